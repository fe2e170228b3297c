"""The MLflow tracking server and model registry, with its users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import pulumi

from .targets.base import (
    DatabaseRef,
    EndpointArgs,
    EndpointRef,
    HealthCheck,
    RegistryAccess,
    SecretArgs,
    SecretRef,
    ServiceArgs,
    ServiceRef,
    StoreRef,
    Target,
)

__all__ = ["ADMIN", "METRICS_USER", "Registry", "RegistryArgs"]

ADMIN = "admin"
METRICS_USER = "metrics"

_Kind = Literal["experiment", "registered_model"]
_Level = Literal["READ", "EDIT", "MANAGE"]
# What each service may do with the experiments and the models of the stack (MLflow's own permission names).
_GRANTS: Mapping[str, tuple[_Level, _Level]] = {
    "serving": ("READ", "READ"),
    "monitor": ("READ", "READ"),
    "retraining": ("EDIT", "MANAGE"),
}


@dataclass(frozen=True)
class RegistryArgs:
    """What a registry needs.

    Attributes:
        target: the target to build on.
        models: names of the models; each gets an experiment and a registered model of its name.
        clients: whether the users of services and jobs are made: `serving`, `monitor`, `retraining`.
        public: whether the team's clients reach it.
        port: a fixed port, or None.
    """

    target: Target
    models: Sequence[str] = ()
    clients: bool = True
    public: bool = True
    port: int | None = None


@dataclass
class _Parts:
    database: DatabaseRef
    accounts: DatabaseRef
    artifacts: StoreRef
    admin: SecretRef
    session: SecretRef
    users: dict[str, SecretRef] = field(default_factory=dict[str, SecretRef])


class Registry(pulumi.ComponentResource):
    """MLflow with authentication on, nobody permitted anything by default, artifacts proxied, hosts checked.

    Attributes:
        endpoint: where it answers.
        access: how Content reaches it, as its administrator.
        passwords: user -> password secret, for `metrics` and, where asked for, its clients.
        content: every resource inside it, to wait for.
    """

    endpoint: EndpointRef
    service: ServiceRef
    access: RegistryAccess
    passwords: Mapping[str, SecretRef]
    content: list[pulumi.Resource]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tidemill:components:Registry", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        target = args.target
        self.endpoint = target.endpoint("mlflow", EndpointArgs(public=args.public, port=args.port), child)
        parts = _Parts(
            database=target.database("mlflow", child),
            accounts=target.database("mlflow-accounts", child),
            artifacts=target.object_store("mlflow-artifacts", child),
            admin=target.secret("mlflow-admin", SecretArgs(), child),
            session=target.secret("mlflow-flask", SecretArgs(), child),
            users={
                user: target.secret(f"mlflow-{user}", SecretArgs(), child)
                for user in (METRICS_USER, *(_GRANTS if args.clients else ()))
            },
        )
        self.passwords = parts.users
        self.service = target.service("mlflow", _mlflow(target, self.endpoint, parts), child)
        self.access = RegistryAccess(url=self.endpoint.public_url, admin=ADMIN, password=parts.admin)
        self.content = self._content(target, args.models)
        self.register_outputs({"url": self.endpoint.public_url})

    def _content(self, target: Target, models: Sequence[str]) -> list[pulumi.Resource]:
        after = pulumi.ResourceOptions(parent=self, depends_on=[self.service.resource])
        users = {
            user: target.content.user(user, registry=self.access, password=password, opts=after)
            for user, password in self.passwords.items()
        }
        made: list[pulumi.Resource] = [*users.values()]
        for model in models:
            experiment = target.content.experiment(model, registry=self.access, opts=after)
            registered = target.content.registered_model(model, registry=self.access, opts=after)
            made += [experiment, registered]
            for user, (on_experiment, on_model) in _GRANTS.items():
                grants: list[tuple[str, _Kind, _Level, pulumi.Resource]] = [
                    ("experiment", "experiment", on_experiment, experiment),
                    ("model", "registered_model", on_model, registered),
                ]
                for label, kind, permission, resource in grants:
                    made.append(
                        target.content.permission(
                            f"{user}-{label}-{model}",
                            registry=self.access,
                            user=user,
                            kind=kind,
                            target=model,
                            permission=permission,
                            opts=pulumi.ResourceOptions(parent=self, depends_on=[users[user], resource]),
                        )
                    )
        return made


def _mlflow(target: Target, endpoint: EndpointRef, parts: _Parts) -> ServiceArgs:
    accounts = (
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        "database_uri = @{database:mlflow-accounts}\n"
        f"admin_username = {ADMIN}\n"
        "admin_password = @{secret:mlflow-admin}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Pollers would otherwise cost one PBKDF2 run a request; a password which is changed is forgotten at once.
        "auth_cache_ttl_seconds = 300\n"
    )
    launch = target.mlflow()
    return ServiceArgs(
        argv=launch.argv,
        image="mlflow",
        endpoints=[endpoint],
        env={
            **launch.env,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # Whoever comes from outside comes under another name.
            "MLFLOW_SERVER_ALLOWED_HOSTS": pulumi.Output.all(endpoint.address, endpoint.public_url).apply(_hosts),
            "MLFLOW_AUTH_CONFIG_PATH": "@{config}/basic_auth.ini",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        secret_env={"MLFLOW_FLASK_SERVER_SECRET_KEY": parts.session},
        secrets=[parts.admin],
        config_files={"basic_auth.ini": accounts},
        stores=[parts.artifacts],
        databases=[parts.database, parts.accounts],
        health=HealthCheck(path="/health", timeout=120.0),
    )


def _hosts(addresses: list[str]) -> str:
    """Return the hosts of an address and a URL, each once, as MLflow wants them."""
    return ",".join(dict.fromkeys(urlsplit(f"//{text.rpartition('//')[2]}").netloc for text in addresses))
