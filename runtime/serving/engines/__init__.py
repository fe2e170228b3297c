"""Engines compute a version's answers: a compiled model, the model itself, or the model in its own process.

Each engine module has `load(prepared, folder, settings) -> Engine`, and is imported when a version needs it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..inference.batch import Engine
    from .prepared import HasPreparationSettings, Prepared

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


def load(prepared: Prepared, folder: Path, settings: HasPreparationSettings) -> Engine:
    """Return the engine that preparation selected, loaded from the version's folder in the cache."""
    module = importlib.import_module(_MODULES[str(prepared.engine["name"])], __name__)
    return module.load(prepared, folder, settings)
