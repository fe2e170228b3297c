"""The settings by which services and training code reach the lake and the registry, as JSON text.

The text contains placeholders where only the target knows a path; see `components.targets.base`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

import pulumi

from ..runtime.common.errors import ConfigError
from ..runtime.common.host_names import ANY, is_address
from .targets.base import EndpointRef, SecretRef, Target


@dataclass(frozen=True)
class Login:
    """The account with which a service of the stack calls the registry.

    Attributes:
        username: the user; None if the server has no authentication.
        password: the secret that holds its password, or None.
    """

    username: str | None = None
    password: SecretRef | None = None

    @property
    def secrets(self) -> list[SecretRef]:
        """The secrets that a service needs to log in."""
        return [self.password] if self.password else []


class _Lake(Protocol):
    endpoint: EndpointRef
    key_id: SecretRef
    secret: SecretRef
    verdict_keys: list[pulumi.Output[str]]


class _Registry(Protocol):
    endpoint: EndpointRef
    logins: Mapping[str, Login]


def as_json(value: Mapping[str, Any]) -> pulumi.Output[str]:
    """Return `value`, which may contain outputs at any depth, as JSON text with sorted keys."""
    resolved: pulumi.Output[Any] = pulumi.Output.from_input(dict(value))
    return resolved.apply(lambda plain: json.dumps(plain, indent=2, sort_keys=True))


def lake_settings(lake: _Lake) -> dict[str, Any]:
    """Return the fields of `runtime.common.settings.LakeSettings`."""
    return {
        "endpoint": lake.endpoint.url,
        "key_id_file": f"@{{secret-file:{lake.key_id.name}}}",
        "secret_file": f"@{{secret-file:{lake.secret.name}}}",
        **({"verdict_keys": lake.verdict_keys} if lake.verdict_keys else {}),
    }


def registry_settings(registry: _Registry, role: str) -> dict[str, Any]:
    """Return the fields of `runtime.common.settings.RegistrySettings` for the service `role`."""
    login = registry.logins[role]
    if login.password is None:
        return {"tracking_uri": registry.endpoint.url}
    return {
        "tracking_uri": registry.endpoint.url,
        "username": login.username,
        "password_file": f"@{{secret-file:{login.password.name}}}",
    }


def listen_settings(
    token: str, target: Target, endpoint: EndpointRef | None = None, hosts: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the fields of `runtime.common.settings.ListenSettings`.

    Args:
        token: the secret that clients send.
        target: the target on which the service runs.
        endpoint: the service's endpoint, whose names the service accepts in the Host header. Without one, a service
            beyond the loopback interface accepts every name.
        hosts: more accepted names.
    """
    plain = {"plain_http": True} if target.plain_http else {}
    names: pulumi.Input[list[str]] = [ANY, *hosts] if target.plain_http else list(hosts)
    if endpoint is not None:
        names = pulumi.Output.all(endpoint.url, endpoint.public_url).apply(lambda urls: host_names_of(urls, hosts))
    return {"host": "@{host}", "port": "@{port}", "hosts": names, "token_file": f"@{{secret-file:{token}}}", **plain}


def host_names_of(urls: Sequence[str], more: Sequence[str] = ()) -> list[str]:
    """Return the host names in `urls`, and `more`, without duplicates and IP addresses, which are always accepted.

    >>> host_names_of(["http://monitor:8080", "https://monitor.example.org", "http://127.0.0.1:8080"])
    ['monitor', 'monitor.example.org']
    """
    found = [urlsplit(url).hostname or "" for url in urls]
    return list(dict.fromkeys([*(name for name in found if name and not is_address(name)), *more]))


def host_of(url: str) -> str:
    """Return `host:port` of `url`, or only the host if the URL names no port."""
    return urlsplit(url).netloc


def refuse_unreachable(target: Target, port: int | None) -> None:
    """Refuse an existing server that the stack's services cannot reach, or one together with a fixed port.

    Raises:
        ConfigError: services of the target cannot reach servers outside the stack, or `port` is given.
    """
    if port is not None:
        raise ConfigError(
            "exclude one another", field="port, existing", hint="remove `port`: the existing server has its own"
        )
    if not target.external_access:
        raise ConfigError(
            f"services on the target {target.name} cannot reach servers outside the stack",
            field="existing",
            hint="remove it, so that the stack creates its own server",
        )
