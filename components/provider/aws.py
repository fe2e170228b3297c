"""The resources of the `aws` target which its vendor's provider has not."""

from __future__ import annotations

from .aws_awake import Awake
from .aws_content import Content
from .aws_job import Job
from .aws_secret import SecretValue
from .base import NativeResource

__all__ = ["RESOURCES"]

RESOURCES: list[NativeResource] = [SecretValue(), Job(), Content(), Awake()]
