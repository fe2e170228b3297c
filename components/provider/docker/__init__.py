"""The resources of the `docker` target which its vendor's provider has not."""

from __future__ import annotations

from ..base import NativeResource
from .data import Bounds, Files, Scratch, Volume
from .job import Job

__all__ = ["RESOURCES"]

RESOURCES: list[NativeResource] = [Volume(), Scratch(), Files(), Bounds(), Job()]
