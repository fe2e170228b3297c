"""The resources of the `aws` target that Pulumi's AWS provider lacks."""

from __future__ import annotations

from ..base import NativeResource
from .awake import Awake
from .content import Content
from .job import Job
from .secret import SecretValue

__all__ = ["RESOURCES"]

RESOURCES: list[NativeResource] = [SecretValue(), Job(), Content(), Awake()]
