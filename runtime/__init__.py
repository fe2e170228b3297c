"""What training code imports and what the services run.

The parts are loaded when they are first used, so that `import tidemill.runtime` stays light:

    from tidemill.runtime import data, registry, training
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.runtime import data, registry, training

__all__ = ["data", "registry", "training"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"tidemill.runtime.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
