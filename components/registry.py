"""The component `Registry`: MLflow's tracking server and model registry, with its users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import pulumi

from ..runtime.common.errors import ConfigError
from ..runtime.registry import accounts
from ..runtime.registry.accounts import ADMIN
from .access import Login, host_of, refuse_unreachable
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

METRICS_USER = accounts.METRICS

_Kind = Literal["experiment", "registered_model"]
_Level = Literal["READ", "EDIT", "MANAGE"]
# Permissions of each account on experiments and on models, by MLflow's names. `runtime.registry.mlflow_routes` says
# which routes it may use.
_GRANTS: Mapping[str, tuple[_Level, _Level]] = {
    accounts.SERVING: ("READ", "READ"),
    accounts.MONITOR: ("READ", "READ"),
    accounts.TRAINING: ("EDIT", "EDIT"),
    accounts.RETRAINING: ("READ", "MANAGE"),
}


@dataclass(frozen=True)
class ExistingRegistry:
    """An existing MLflow server. The stack does not start, stop or delete it.

    Attributes:
        url: its URL for this machine, the services and their jobs.
        username: the user; None if the server has no authentication.
        password: that user's password, a secret output.
        administrator: whether that user can create users. Then each service gets its own user with the permissions it
            needs; otherwise all services use this user.
        metrics: whether that user can read the server's metrics at `/metrics`.
    """

    url: pulumi.Input[str]
    username: str | None = None
    password: pulumi.Output[str] | None = None
    administrator: bool = False
    metrics: bool = False

    def check(self) -> None:
        """Check that the fields fit together.

        Raises:
            ConfigError: they do not.
        """
        if (self.username is None) != (self.password is None):
            raise ConfigError(
                "belong together", field="existing.username, existing.password", hint="give both or neither"
            )
        if self.administrator and self.username is None:
            raise ConfigError("needs a user", field="existing.administrator", hint="give `username` and `password`")


@dataclass(frozen=True)
class RegistryArgs:
    """The arguments of a registry.

    Attributes:
        target: the target on which it runs.
        models: names of the models; each gets an experiment and a registered model of that name.
        clients: whether to create the users `serving`, `monitor`, `training` (for jobs) and `retraining`.
        public: whether the team's clients reach it; ignored for an existing server.
        port: a fixed port, or None.
        existing: an existing server; None creates one.
    """

    target: Target
    models: Sequence[str] = ()
    clients: bool = True
    public: bool = True
    port: int | None = None
    existing: ExistingRegistry | None = None

    def check(self) -> None:
        """Check that the arguments fit together.

        Raises:
            ConfigError: they do not, or services of the target cannot reach servers outside the stack.
        """
        if self.existing is None:
            return
        self.existing.check()
        refuse_unreachable(self.target, self.port)


@dataclass
class _Parts:
    database: DatabaseRef
    accounts: DatabaseRef
    artifacts: StoreRef
    admin: SecretRef
    session: SecretRef


class Registry(pulumi.ComponentResource):
    """MLflow with authentication, no default permissions, proxied artifacts and an allow-list of hosts.

    In an existing server, only content is created: experiments, models, users, permissions.

    Attributes:
        endpoint: its endpoint.
        service: the server; None if it existed.
        access: how the provider reaches it, as its administrator.
        logins: account of each service and of jobs: `serving`, `monitor`, `training`, `retraining`, and `metrics` if it
            has metrics.
        content: all resources inside it, on which its users depend.
    """

    endpoint: EndpointRef
    service: ServiceRef | None
    access: RegistryAccess
    logins: Mapping[str, Login]
    content: list[pulumi.Resource]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("tidemill:components:Registry", name, None, opts)
        args.check()
        child = pulumi.ResourceOptions(parent=self)
        if args.existing:
            self._use(args, args.existing, child)
        else:
            self._make(args, child)
        self.content = self._content(args)
        self.register_outputs({"url": self.endpoint.public_url})

    def _make(self, args: RegistryArgs, child: pulumi.ResourceOptions) -> None:
        target = args.target
        self.endpoint = target.endpoint("mlflow", EndpointArgs(public=args.public, port=args.port), child)
        parts = _Parts(
            database=target.database("mlflow", child),
            accounts=target.database("mlflow-accounts", child),
            artifacts=target.object_store("mlflow-artifacts", child),
            admin=target.secret("mlflow-admin", SecretArgs(), child),
            session=target.secret("mlflow-flask", SecretArgs(), child),
        )
        self.logins = {
            user: Login(user, target.secret(f"mlflow-{user}", SecretArgs(), child))
            for user in (METRICS_USER, *(_GRANTS if args.clients else ()))
        }
        self._accounts = self.logins
        self.service = target.service("mlflow", _mlflow(target, self.endpoint, parts), child)
        self.access = RegistryAccess(url=self.endpoint.public_url, admin=ADMIN, password=parts.admin)

    def _use(self, args: RegistryArgs, existing: ExistingRegistry, child: pulumi.ResourceOptions) -> None:
        target = args.target
        url = pulumi.Output.from_input(existing.url).apply(lambda text: text.rstrip("/"))
        self.endpoint = EndpointRef("mlflow", url=url, public_url=url, address=url.apply(host_of), resource=self)
        self.service = None
        # A server without authentication ignores the credentials.
        password = target.secret("mlflow-existing", SecretArgs(value=existing.password), child)
        self.access = RegistryAccess(url=url, admin=existing.username or ADMIN, password=password)
        login = Login(existing.username, password) if existing.username else Login()
        roles = tuple(_GRANTS) if args.clients else ()
        # Other stacks can have users on the same server.
        self._accounts = {
            role: Login(f"{target.stack}-{role}", target.secret(f"mlflow-{role}", SecretArgs(), child))
            for role in (roles if existing.administrator else ())
        }
        metrics = {METRICS_USER: login} if existing.metrics else {}
        self.logins = {**metrics, **dict.fromkeys(roles, login), **self._accounts}

    def _content(self, args: RegistryArgs) -> list[pulumi.Resource]:
        target = args.target
        after = pulumi.ResourceOptions(
            parent=self, depends_on=[self.service.resource if self.service else self.access.password.resource]
        )
        users = {
            role: target.content.user(login.username, registry=self.access, password=login.password, opts=after)
            for role, login in self._accounts.items()
            if login.username and login.password
        }
        made: list[pulumi.Resource] = [*users.values()]
        for model in args.models:
            experiment = target.content.experiment(model, registry=self.access, opts=after)
            registered = target.content.registered_model(model, registry=self.access, opts=after)
            made += [experiment, registered]
            for role, (on_experiment, on_model) in _GRANTS.items():
                if role not in users:
                    continue
                grants: list[tuple[str, _Kind, _Level, pulumi.Resource]] = [
                    ("experiment", "experiment", on_experiment, experiment),
                    ("model", "registered_model", on_model, registered),
                ]
                for label, kind, permission, resource in grants:
                    made.append(
                        target.content.permission(
                            f"{role}-{label}-{model}",
                            registry=self.access,
                            user=self._accounts[role].username or role,
                            kind=kind,
                            target=model,
                            permission=permission,
                            opts=pulumi.ResourceOptions(parent=self, depends_on=[users[role], resource]),
                        )
                    )
        return made


def _mlflow(target: Target, endpoint: EndpointRef, parts: _Parts) -> ServiceArgs:
    users = (
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        "database_uri = @{database:mlflow-accounts}\n"
        f"admin_username = {ADMIN}\n"
        "admin_password = @{secret:mlflow-admin}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        # Without it, each request costs one PBKDF2 run. A changed password leaves the cache immediately.
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
            # Clients outside the stack use another host name, and any port of this machine through an SSH tunnel.
            "MLFLOW_SERVER_ALLOWED_HOSTS": pulumi.Output.all(endpoint.address, endpoint.public_url).apply(_hosts),
            "MLFLOW_AUTH_CONFIG_PATH": "@{config}/basic_auth.ini",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        secret_env={"MLFLOW_FLASK_SERVER_SECRET_KEY": parts.session},
        secrets=[parts.admin],
        config_files={"basic_auth.ini": users},
        stores=[parts.artifacts],
        databases=[parts.database, parts.accounts],
        health=HealthCheck(path="/health", timeout=120.0),
    )


def _hosts(addresses: list[str]) -> str:
    """Return the hosts in `addresses` and the loopback names, without duplicates, as MLflow's comma-separated list."""
    given = (urlsplit(f"//{text.rpartition('//')[2]}").netloc for text in addresses)
    return ",".join(dict.fromkeys((*given, *accounts.OWN_HOSTS)))
