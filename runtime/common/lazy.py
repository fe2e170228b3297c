"""Lazy exports: importing a package loads none of its modules.

The `else` hides `__getattr__` from type checkers, so that they report unknown names:

    if TYPE_CHECKING:
        from .ids import time_of
    else:
        __getattr__ = lazy_exports(__name__, {"ids": ["time_of"]})
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_exports(package: str, names: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of `package` (PEP 562).

    Args:
        package: the package's `__name__`.
        names: module below the package -> the names it exports; a later module overrides an earlier one.

    >>> get = lazy_exports("tidemill.runtime.common", {"ids": ["time_of"]})
    >>> get("time_of").__name__
    'time_of'
    >>> get("nothing")
    Traceback (most recent call last):
    AttributeError: module 'tidemill.runtime.common' has no attribute 'nothing'
    """
    modules = {name: module for module, exported in names.items() for name in exported}

    def getattr_(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return getattr_
