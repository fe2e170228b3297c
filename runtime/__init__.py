"""What training code imports and what the services run.

The packages load when they are first used, so `import tidemill.runtime` stays light:

    from tidemill.runtime import data, registry, training
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import data, drift, registry, training, validation

__all__ = ["data", "drift", "registry", "training", "validation"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
