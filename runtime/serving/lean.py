"""Arrow without pandas: 45 MB and a second which a worker does not need.

Arrow imports pandas, where it is installed, the first time it makes an array of anything, only to ask whether that came
from pandas. Told that there is none it does not ask again, and still imports it when a data frame is wanted.
"""

from __future__ import annotations

import sys
import threading
from importlib.abc import MetaPathFinder
from typing import Any

__all__ = ["arrow_without_pandas"]


class _Absent(MetaPathFinder):
    """Hides pandas from the imports of one thread."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:  # noqa: ARG002 - the protocol's
        if fullname == "pandas" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("hidden from Arrow", name=fullname)


def arrow_without_pandas() -> None:
    """Keep Arrow from importing pandas in this process until a data frame is asked for; call it early."""
    import pyarrow as pa

    if "pandas" in sys.modules:
        return
    finder = _Absent()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
