"""How the services and the training code of a stack reach its lake and its registry: settings as JSON text.

The text holds placeholders where only the target knows a path; see `components.targets.base`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pulumi

from ..runtime.common.errors import ConfigError

if TYPE_CHECKING:
    from .lake import Lake
    from .registry import Registry
    from .targets.base import Target

__all__ = ["address_of", "as_json", "lake_settings", "listen_settings", "refuse_unreachable", "registry_settings"]


def as_json(value: Mapping[str, Any]) -> pulumi.Output[str]:
    """Return `value`, which may hold outputs at any depth, as JSON text with sorted keys."""
    resolved: pulumi.Output[Any] = pulumi.Output.from_input(dict(value))
    return resolved.apply(lambda plain: json.dumps(plain, indent=2, sort_keys=True))


def lake_settings(lake: Lake) -> dict[str, Any]:
    """Return the fields of `runtime.common.settings.LakeSettings`."""
    return {
        "endpoint": lake.endpoint.url,
        "key_id_file": f"@{{secret-file:{lake.key_id.name}}}",
        "secret_file": f"@{{secret-file:{lake.secret.name}}}",
    }


def registry_settings(registry: Registry, role: str) -> dict[str, Any]:
    """Return the fields of `runtime.common.settings.RegistrySettings` for the service `role`."""
    login = registry.logins[role]
    if login.password is None:
        return {"tracking_uri": registry.endpoint.url}
    return {
        "tracking_uri": registry.endpoint.url,
        "username": login.username,
        "password_file": f"@{{secret-file:{login.password.name}}}",
    }


def listen_settings(token: str, target: Target) -> dict[str, Any]:
    """Return the fields of `runtime.common.settings.ListenSettings`; the secret `token` opens the service."""
    plain = {"plain_http": True} if target.plain_http else {}
    return {"host": "@{host}", "port": "@{port}", "token_file": f"@{{secret-file:{token}}}", **plain}


def address_of(url: str) -> str:
    """Return `host:port` of a server which was brought, or the host alone where the URL names no port."""
    return urlsplit(url).netloc


def refuse_unreachable(target: Target, port: int | None) -> None:
    """Refuse to bring a server where the stack's services could not reach it, or with a port of its own to choose.

    Raises:
        ConfigError: services of the target reach nothing outside of the stack, or there is a port.
    """
    if port is not None:
        raise ConfigError(
            "exclude one another", field="port, existing", hint="the server which is there has a port: leave it out"
        )
    if not target.reaches_out:
        raise ConfigError(
            f"services on the target {target.name} reach nothing outside of the stack",
            field="existing",
            hint="leave it out, so that the stack gets a server of its own",
        )
