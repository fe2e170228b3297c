"""Arrow without pandas: 45 MB and a second which a worker does not need.

Arrow imports pandas, where it is installed, the first time it makes an array of anything, only to ask whether that came
from pandas. Told that there is none it does not ask again. When pandas is imported after all, since a model wants it,
Arrow is told of it, so that it takes data frames for what they are.
"""

from __future__ import annotations

import sys
import threading
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["arrow_without_pandas"]

_PANDAS = "pandas"


class _Absent(MetaPathFinder):
    """Hides pandas from the imports of one thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002 - the protocol's
        if fullname == _PANDAS and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("hidden from Arrow", name=fullname)


class _Awaited(MetaPathFinder):
    """Finds pandas as it is found anyhow, once, and has Arrow told when it is there."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        if fullname != _PANDAS or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Telling(spec.loader)
        return spec


class _Telling(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        import pyarrow as pa

        spec = module.__spec__
        if spec is not None:
            spec.loader = self._loader
        self._loader.exec_module(module)
        # To make a series Arrow needs pandas, so it looks again.
        pa.array([0]).to_pandas()


def arrow_without_pandas() -> None:
    """Keep Arrow from importing pandas in this process of its own accord; call it early."""
    import pyarrow as pa

    if _PANDAS in sys.modules:
        return
    absent = _Absent()
    sys.meta_path.insert(0, absent)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(absent)
    sys.meta_path.insert(0, _Awaited())
