"""Converts a scikit-learn model that is stored as a pickle into one that is not, and compares the two."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...common.lazy import lazy_exports

__all__ = ["Converted", "convert"]

if TYPE_CHECKING:
    from .converter import Converted, convert
else:
    __getattr__ = lazy_exports(__name__, {"converter": ["Converted", "convert"]})
