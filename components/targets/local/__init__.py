"""The `local` target: real processes under supervisord."""

from __future__ import annotations

from .target import LocalTarget

__all__ = ["LocalTarget"]
