"""The resources of the `local` target."""

from __future__ import annotations

from .base import NativeResource
from .local_data import Endpoint, Folder, Secret
from .local_job import Job
from .local_service import Service

__all__ = ["RESOURCES"]

RESOURCES: list[NativeResource] = [Endpoint(), Secret(), Folder(), Service(), Job()]
