"""The images of a stack: their contents, from the project's lock and this tidemill, and how containers use them."""

from __future__ import annotations

from .context import BuildContext, ImageSpec, prepare, python_of
from .lock import requirements

__all__ = ["BuildContext", "ImageSpec", "prepare", "python_of", "requirements"]
