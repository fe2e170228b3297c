"""The ports of a platform, and the credentials that open them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.support.platform import RunningPlatform


@dataclass(frozen=True)
class Door:
    """A port.

    Attributes:
        service: its service.
        path: a path that requires credentials.
        accounts: user -> the secret with its password; the user of a bearer token is empty.
        health: a path that requires no credentials.
    """

    service: str
    path: str
    accounts: Mapping[str, str] = field(hash=False)
    health: str


# Any account may read its own name.
_MLFLOW = "/api/2.0/mlflow/users/current"
_DOORS = (
    Door("lakefs", "/api/v1/repositories", {"lakefs-key-id": "lakefs-secret"}, "/_health"),
    Door("mlflow", _MLFLOW, {}, "/health"),
    Door("prometheus", "/api/v1/query?query=up", {"admin": "prometheus-admin"}, "/-/healthy"),
    Door("alertmanager", "/api/v2/alerts", {"admin": "alertmanager-admin"}, "/-/healthy"),
    Door("serving-flights", "/metrics", {"": "serving-flights-key"}, "/healthz"),
    Door("monitor", "/status", {"": "monitor-token"}, "/healthz"),
    Door("validation", "/metrics", {"": "validation-token"}, "/healthz"),
    Door("retraining", "/status", {"": "retraining-token"}, "/healthz"),
)


def doors(platform: RunningPlatform) -> list[Door]:
    """Return the ports that this machine reaches: on docker only those of public services."""
    reachable = json.loads(platform.root.endpoints.read_text())
    found = [
        replace(door, accounts=accounts(platform)) if door.service == "mlflow" else door
        for door in _DOORS
        if door.service in reachable
    ]
    assert {door.service for door in found} == set(reachable), "a service without a door: add it"
    return found


def accounts(platform: RunningPlatform) -> dict[str, str]:
    """Return the accounts of MLflow: name -> the secret with its password."""
    names = sorted(name for name in secrets(platform) if name.startswith("mlflow-") and name != "mlflow-flask")
    return {name.removeprefix("mlflow-"): name for name in names}


def ours(platform: RunningPlatform) -> list[Door]:
    """Return the ports of the project's own services."""
    return [door for door in doors(platform) if door.health == "/healthz"]


def secrets(platform: RunningPlatform) -> dict[str, str]:
    """Return every secret of the stack: name -> value."""
    return {path.name: path.read_text().strip() for path in platform.root.secrets.iterdir() if path.is_file()}


def user_of(platform: RunningPlatform, user: str) -> str:
    """Return the name of an account: lakeFS's is a secret too."""
    return platform.secret(user) if user == "lakefs-key-id" else user


def basic(user: str, password: str) -> str:
    """Return the value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
