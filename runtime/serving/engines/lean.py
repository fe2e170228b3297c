"""Keeps pandas out of a process which does not need it: 57 MB and a second, in each worker."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

import pyarrow as pa

__all__ = ["keep_pandas_out"]


class _NotNow:
    """An importer which knows one thing: there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        del path, target
        if name == "pandas":
            raise ModuleNotFoundError("not now", name=name)
        return None


def keep_pandas_out() -> None:
    """Let pyarrow look for pandas while there is none: it imports it when the first array is made of Python values.

    Who imports pandas later still can, and pyarrow then works with it, but for this: it does not know `pd.NA` in lists
    and in columns of objects for null.
    """
    if "pandas" in sys.modules:
        return
    importer = _NotNow()
    sys.meta_path.insert(0, importer)
    try:
        pa.array([None, 1.0]).to_numpy(zero_copy_only=False)
    finally:
        sys.meta_path.remove(importer)
