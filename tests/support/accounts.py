"""The accounts of a stack in a real MLflow, with the permissions that `up` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tidemill.runtime.common.settings import RegistrySettings

from tests.support.servers import Server, secret_file

GRANTS: Mapping[str, tuple[str, str] | None] = {
    "serving": ("READ", "READ"),
    "monitor": ("READ", "READ"),
    "training": ("EDIT", "EDIT"),
    "retraining": ("READ", "MANAGE"),
    "metrics": None,
}
"""As in `components.registry`; `test_registry` compares the two."""


@dataclass(frozen=True)
class Accounts:
    """The accounts of a stack with one model.

    Attributes:
        server: their MLflow.
        experiment: id of the model's experiment.
        passwords: service -> file with its password.
    """

    server: Server
    experiment: str
    passwords: Mapping[str, Path]

    def settings(self, name: str) -> RegistrySettings:
        """Return the settings of the service `name`."""
        return RegistrySettings(tracking_uri=self.server.url, username=name, password_file=self.passwords[name])

    def client(self, name: str, password: str | None = None) -> httpx.Client:
        """Return a client with the account of a service, with `admin`, or with the given password."""
        if password is None:
            password = self.server.auth[1] if name == "admin" else self.passwords[name].read_text()
        return httpx.Client(base_url=self.server.url, auth=(name, password), trust_env=False, timeout=60)


def create_accounts(server: Server, folder: Path, model: str) -> Accounts:
    """Create experiment and registered model `model` and the accounts of the services, as `up` does."""
    passwords = {name: secret_file(folder, f"mlflow-{name}") for name in GRANTS}
    made = Accounts(server, "", passwords)
    with made.client("admin") as admin:

        def post(route: str, **body: Any) -> Any:
            return admin.post(f"/api/{route}", json=body).raise_for_status().json()

        experiment = post("2.0/mlflow/experiments/create", name=model)["experiment_id"]
        post("2.0/mlflow/registered-models/create", name=model)
        for name, grants in GRANTS.items():
            post("2.0/mlflow/users/create", username=name, password=passwords[name].read_text())
            for kind, target, permission in zip(
                ("experiment", "registered_model"), (experiment, model), grants or (), strict=False
            ):
                grant = {"username": name, "resource_type": kind, "resource_id": target, "permission": permission}
                post("3.0/mlflow/users/permissions/grant", **grant)
    return Accounts(server, experiment, passwords)
