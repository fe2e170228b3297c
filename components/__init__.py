"""The platform's components, its targets, the provider and the tools.

The components are loaded when they are first used, so that what needs no Pulumi stays light:

    from tidemill.components import Lake, Platform, Registry
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .lake import Lake, LakeArgs
    from .monitoring import Monitoring, MonitoringArgs
    from .platform import Platform, PlatformArgs
    from .registry import Registry, RegistryArgs
    from .retraining import Retraining, RetrainingArgs
    from .serving import ModelService, ModelServiceArgs

__all__ = [
    "Lake",
    "LakeArgs",
    "ModelService",
    "ModelServiceArgs",
    "Monitoring",
    "MonitoringArgs",
    "Platform",
    "PlatformArgs",
    "Registry",
    "RegistryArgs",
    "Retraining",
    "RetrainingArgs",
]

_HOMES = {
    "Lake": "lake",
    "ModelService": "serving",
    "Monitoring": "monitoring",
    "Platform": "platform",
    "Registry": "registry",
    "Retraining": "retraining",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f".{_HOMES[name.removesuffix('Args')]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
