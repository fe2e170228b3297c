"""The platform's components, its targets, the provider and the tools.

What a program of your own is composed of is loaded when it is first used, so that what needs no Pulumi stays light:

    from tidemill.components import Lake, LakeArgs, RepositoryConfig, target_here

    lake = Lake("lake", LakeArgs(target=target_here(), repositories={"orders": RepositoryConfig()}))

docs/components.md tells all of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .access import as_json, lake_settings, listen_settings, registry_settings
    from .lake import ExistingLake, Lake, LakeArgs
    from .monitoring import Monitoring, MonitoringArgs
    from .platform import Platform, PlatformArgs
    from .registry import ExistingRegistry, Registry, RegistryArgs
    from .retraining import Retraining, RetrainingArgs
    from .serving import ModelService, ModelServiceArgs
    from .settings import LakeConfig, ModelConfig, MonitoringConfig, RepositoryConfig, ServeConfig
    from .targets.base import (
        EndpointArgs,
        EndpointRef,
        HealthCheck,
        JobArgs,
        JobRef,
        Limits,
        SecretArgs,
        SecretRef,
        ServiceArgs,
        ServiceRef,
        StoreRef,
        Target,
    )
    from .targets.factory import target_here

__all__ = [
    "EndpointArgs",
    "EndpointRef",
    "ExistingLake",
    "ExistingRegistry",
    "HealthCheck",
    "JobArgs",
    "JobRef",
    "Lake",
    "LakeArgs",
    "LakeConfig",
    "Limits",
    "ModelConfig",
    "ModelService",
    "ModelServiceArgs",
    "Monitoring",
    "MonitoringArgs",
    "MonitoringConfig",
    "Platform",
    "PlatformArgs",
    "Registry",
    "RegistryArgs",
    "RepositoryConfig",
    "Retraining",
    "RetrainingArgs",
    "SecretArgs",
    "SecretRef",
    "ServeConfig",
    "ServiceArgs",
    "ServiceRef",
    "StoreRef",
    "Target",
    "as_json",
    "lake_settings",
    "listen_settings",
    "registry_settings",
    "target_here",
]

_HOMES: dict[str, str] = {
    **dict.fromkeys(("as_json", "lake_settings", "listen_settings", "registry_settings"), "access"),
    **dict.fromkeys(("ExistingLake", "Lake", "LakeArgs"), "lake"),
    **dict.fromkeys(("ModelService", "ModelServiceArgs"), "serving"),
    **dict.fromkeys(("Monitoring", "MonitoringArgs"), "monitoring"),
    **dict.fromkeys(("Platform", "PlatformArgs"), "platform"),
    **dict.fromkeys(("ExistingRegistry", "Registry", "RegistryArgs"), "registry"),
    **dict.fromkeys(("Retraining", "RetrainingArgs"), "retraining"),
    **dict.fromkeys(("LakeConfig", "ModelConfig", "MonitoringConfig", "RepositoryConfig", "ServeConfig"), "settings"),
    "target_here": "targets.factory",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f".{_HOMES.get(name, 'targets.base')}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
