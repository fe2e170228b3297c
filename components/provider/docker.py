"""The resources of the `docker` target which its vendor's provider has not."""

from __future__ import annotations

from .base import NativeResource
from .docker_data import Bounds, Files, Scratch, Volume
from .docker_job import Job

__all__ = ["RESOURCES"]

RESOURCES: list[NativeResource] = [Volume(), Scratch(), Files(), Bounds(), Job()]
