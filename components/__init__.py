"""The platform's components, its targets, the provider and the tools.

Programs of your own import these names from here. Each loads its module at first use:

    from tidemill.components import Lake, LakeArgs, RepositoryConfig, target_here

    lake = Lake("lake", LakeArgs(target=target_here(), repositories={"orders": RepositoryConfig()}))

docs/components.md documents them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..runtime.common.lazy import lazy_exports

__all__ = [
    "EndpointArgs", "EndpointRef", "ExistingLake", "ExistingRegistry", "HealthCheck", "JobArgs", "JobRef", "Lake",
    "LakeArgs", "LakeConfig", "Limits", "ModelConfig", "ModelService", "ModelServiceArgs", "Monitoring",
    "MonitoringArgs", "MonitoringConfig", "Platform", "PlatformArgs", "Registry", "RegistryArgs", "RepositoryConfig",
    "Retraining", "RetrainingArgs", "SecretArgs", "SecretRef", "ServeConfig", "ServiceArgs", "ServiceRef", "StoreRef",
    "Target", "as_json", "lake_settings", "listen_settings", "registry_settings", "target_here",
]  # fmt: skip

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
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "access": ["as_json", "lake_settings", "listen_settings", "registry_settings"],
            "lake": ["ExistingLake", "Lake", "LakeArgs"],
            "monitoring": ["Monitoring", "MonitoringArgs"],
            "platform": ["Platform", "PlatformArgs"],
            "registry": ["ExistingRegistry", "Registry", "RegistryArgs"],
            "retraining": ["Retraining", "RetrainingArgs"],
            "serving": ["ModelService", "ModelServiceArgs"],
            "settings": ["LakeConfig", "ModelConfig", "MonitoringConfig", "RepositoryConfig", "ServeConfig"],
            "targets.base": [
                *("EndpointArgs", "EndpointRef", "HealthCheck", "JobArgs", "JobRef", "Limits", "SecretArgs"),
                *("SecretRef", "ServiceArgs", "ServiceRef", "StoreRef", "Target"),
            ],
            "targets.factory": ["target_here"],
        },
    )
