"""The resources of the `docker` target that Pulumi's Docker provider lacks."""

from __future__ import annotations

from ..base import NativeResource
from .data import Bounds, Files, Scratch, Volume
from .job import Job

__all__ = ["RESOURCES"]

RESOURCES: list[NativeResource] = [Volume(), Scratch(), Files(), Bounds(), Job()]
