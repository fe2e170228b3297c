"""What computes the answers of a version: compiled, the model itself, or the model itself in a process of its own.

Each module here which serves has `load(prepared, folder, settings) -> Engine`, and is imported when it is the one.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference.batch import Engine
    from .prepared import Prepared, Wanted

__all__ = ["load"]

_MODULES = {
    "tl2cgen": ".compiled",
    "treelite": ".compiled",
    "linear": ".compiled",
    "onnxruntime": ".compiled",
    "sklearn": ".scikit",
    "pyfunc": ".pyfunc",
    "isolated": "..isolation.engine",
}


def load(prepared: Prepared, folder: Path, settings: Wanted) -> Engine:
    """Return the engine which `prepared` chose, loaded from the version's folder in the cache."""
    module = importlib.import_module(_MODULES[str(prepared.engine["name"])], __name__)
    return module.load(prepared, folder, settings)
