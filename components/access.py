"""How the services and the training code of a stack reach its lake and its registry: settings as JSON text.

The text holds placeholders where only the target knows a path; see `components.targets.base`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pulumi

if TYPE_CHECKING:
    from .lake import Lake
    from .registry import Registry
    from .targets.base import Target

__all__ = ["as_json", "lake_settings", "listen_settings", "registry_settings"]


def as_json(value: Mapping[str, Any]) -> pulumi.Output[str]:
    """Return `value`, which may hold outputs at any depth, as JSON text with sorted keys."""
    resolved: pulumi.Output[Any] = pulumi.Output.from_input(dict(value))
    return resolved.apply(lambda plain: json.dumps(plain, indent=2, sort_keys=True))


def lake_settings(lake: Lake) -> dict[str, Any]:
    """Return the fields of `runtime.settings.LakeSettings`."""
    return {
        "endpoint": lake.endpoint.url,
        "key_id_file": f"@{{secret-file:{lake.key_id.name}}}",
        "secret_file": f"@{{secret-file:{lake.secret.name}}}",
    }


def registry_settings(registry: Registry, role: str) -> dict[str, Any]:
    """Return the fields of `runtime.settings.RegistrySettings` for the service `role`."""
    login = registry.logins[role]
    if login.password is None:
        return {"tracking_uri": registry.endpoint.url}
    return {
        "tracking_uri": registry.endpoint.url,
        "username": login.username,
        "password_file": f"@{{secret-file:{login.password.name}}}",
    }


def listen_settings(token: str, target: Target) -> dict[str, Any]:
    """Return the fields of `runtime.settings.ListenSettings`; the secret `token` opens the service."""
    plain = {"plain_http": True} if target.plain_http else {}
    return {"host": "@{host}", "port": "@{port}", "token_file": f"@{{secret-file:{token}}}", **plain}
