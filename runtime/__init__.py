"""The lifecycle of a model: data, validation, training, registry, serving, capture, drift, monitoring and retraining.

Training code imports this package, and the services run from it. A package loads when it is first used, so
`import tidemill.runtime` stays light:

    from tidemill.runtime import data, registry, training
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["data", "drift", "errors", "registry", "training", "validation"]

if TYPE_CHECKING:
    from . import data, drift, errors, registry, training, validation
else:

    def __getattr__(name: str) -> Any:
        if name in __all__:
            return importlib.import_module(f".{name}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
