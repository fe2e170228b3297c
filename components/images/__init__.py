"""Our own images: what goes into them, from the lock of the project and the files of this very tidemill."""

from __future__ import annotations

from .context import BuildContext, ImageSpec, prepare, python_of
from .lock import requirements

__all__ = ["BuildContext", "ImageSpec", "prepare", "python_of", "requirements"]
