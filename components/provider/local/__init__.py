"""The resources of the `local` target."""

from __future__ import annotations

from ..base import NativeResource
from .data import Endpoint, Folder, Secret
from .job import Job
from .service import Service

__all__ = ["RESOURCES"]

RESOURCES: list[NativeResource] = [Endpoint(), Secret(), Folder(), Service(), Job()]
