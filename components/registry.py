"""The MLflow tracking server and model registry, made or brought, with its users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

import pulumi

from ..runtime.common.errors import ConfigError
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

__all__ = ["ADMIN", "METRICS_USER", "ExistingRegistry", "Registry", "RegistryArgs"]

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
class ExistingRegistry:
    """An MLflow server which is there already: nothing is started, and it is not stopped or deleted either.

    Attributes:
        url: where this machine, the services and their jobs reach it.
        username: who asks; None where the server asks for no credentials.
        password: that user's password, a secret output.
        administrator: whether that user may make users. Each service then gets one of its own, which may do what it
            must; otherwise all of them act as that user.
        metrics: whether the server shows its metrics to that user, below `/metrics`.
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
            raise ConfigError("go together", field="existing.username, existing.password", hint="give both or neither")
        if self.administrator and self.username is None:
            raise ConfigError(
                "needs somebody who is one", field="existing.administrator", hint="give `username` and `password`"
            )


@dataclass(frozen=True)
class RegistryArgs:
    """What a registry needs.

    Attributes:
        target: the target to build on.
        models: names of the models; each gets an experiment and a registered model of its name.
        clients: whether the users of services and jobs are made: `serving`, `monitor`, `retraining`.
        public: whether the team's clients reach it; of a server which is made.
        port: a fixed port, or None; of a server which is made.
        existing: a server which is there already; None makes one.
    """

    target: Target
    models: Sequence[str] = ()
    clients: bool = True
    public: bool = True
    port: int | None = None
    existing: ExistingRegistry | None = None

    def check(self) -> None:
        """Check that the arguments do not exclude one another.

        Raises:
            ConfigError: they do, or services of the target reach nothing outside of the stack.
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
    """MLflow with authentication on, nobody permitted anything by default, artifacts proxied, hosts checked.

    Where one is brought, its content is made in it: experiments, models, users, permissions.

    Attributes:
        endpoint: where it answers.
        service: the server; None where it was brought.
        access: how Content reaches it, as its administrator.
        logins: who the services are: `serving`, `monitor`, `retraining`, and `metrics` where it shows any.
        content: every resource inside it, to wait for.
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
            self._bring(args, args.existing, child)
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

    def _bring(self, args: RegistryArgs, existing: ExistingRegistry, child: pulumi.ResourceOptions) -> None:
        target = args.target
        url = pulumi.Output.from_input(existing.url).apply(lambda text: text.rstrip("/"))
        self.endpoint = EndpointRef("mlflow", url=url, public_url=url, address=url.apply(host_of), resource=self)
        self.service = None
        # A server which asks for no credentials does not look at those which it is shown.
        password = target.secret("mlflow-existing", SecretArgs(value=existing.password), child)
        self.access = RegistryAccess(url=url, admin=existing.username or ADMIN, password=password)
        given = Login(existing.username, password) if existing.username else Login()
        roles = tuple(_GRANTS) if args.clients else ()
        # Other stacks may have users of theirs on the same server.
        self._accounts = {
            role: Login(f"{target.stack}-{role}", target.secret(f"mlflow-{role}", SecretArgs(), child))
            for role in (roles if existing.administrator else ())
        }
        shown = {METRICS_USER: given} if existing.metrics else {}
        self.logins = {**shown, **dict.fromkeys(roles, given), **self._accounts}

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
