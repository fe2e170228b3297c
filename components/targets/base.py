"""The primitives a component speaks: Endpoint, Service, Job, ObjectStore, Database, Secret, Content.

A component says what it needs; a target knows how to give it. No component asks which target it is on.
Text which only the target can know is written as a placeholder, resolved where the process runs:

    @{config}             folder of this service's config files
    @{secret-file:NAME}   file which holds the secret NAME
    @{secret:NAME}        its value; in config files only, which are then private
    @{bcrypt:NAME}        its bcrypt hash; in config files only
    @{store:NAME}         folder (or URI) of the object store NAME
    @{database:NAME}      SQLAlchemy URI of the database NAME
    @{tool:NAME}          the program NAME of the tools table
    @{tool-home:NAME}     the folder with what that program was installed with
    @{python}             the Python which has tidemill
    @{host}, @{port}      what the service binds to, its first endpoint
    @{scratch}            a private folder which may be lost at any restart
    @{project}            the team's project, the folder of Pulumi.yaml
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pulumi

__all__ = [
    "Content",
    "DatabaseRef",
    "EndpointArgs",
    "EndpointRef",
    "HealthCheck",
    "JobArgs",
    "JobRef",
    "LakeAccess",
    "Launch",
    "Limits",
    "ProcessArgs",
    "RegistryAccess",
    "SecretArgs",
    "SecretRef",
    "ServiceArgs",
    "ServiceRef",
    "StoreRef",
    "Target",
    "TrainerArgs",
    "TrainerRef",
]


@dataclass(frozen=True)
class EndpointArgs:
    """An address, made before the service behind it so that services can refer to one another.

    Attributes:
        public: reached by the team's clients, not only by the stack's own services.
        port: a fixed port; None lets the target choose one and keep it.
    """

    public: bool = False
    port: int | None = None


@dataclass(frozen=True)
class EndpointRef:
    """A made endpoint.

    Attributes:
        name: its name within the stack.
        url: how the stack's own services reach it, without a trailing slash.
        public_url: how this machine's user (and the provider) reaches it.
        address: `host:port` of `url`, as scrape configs want it.
        resource: what a service behind it depends on.
    """

    name: str
    url: pulumi.Output[str]
    public_url: pulumi.Output[str]
    address: pulumi.Output[str]
    resource: pulumi.Resource


@dataclass(frozen=True)
class SecretArgs:
    """A secret, by default a random one, generated once and kept as long as the data it opens.

    Attributes:
        format: `token` (43 characters of base64url, 256 bits) or the shapes lakeFS wants for its key pair.
        value: a value which the user brings, marked secret; None generates one.
    """

    format: Literal["token", "lakefs-key-id", "lakefs-secret"] = "token"
    value: pulumi.Output[str] | None = None


@dataclass(frozen=True)
class SecretRef:
    """A made secret; its value never passes through the program."""

    name: str
    resource: pulumi.Resource


@dataclass(frozen=True)
class StoreRef:
    """A made object store."""

    name: str
    resource: pulumi.Resource


@dataclass(frozen=True)
class DatabaseRef:
    """A made database."""

    name: str
    resource: pulumi.Resource


@dataclass(frozen=True)
class HealthCheck:
    """What answers 200 when a service is alive.

    Attributes:
        path: HTTP path on the service's first endpoint, without credentials unless `secret` names them.
        timeout: seconds until creation fails.
        basic: (user, secret name) for HTTP basic authentication.
    """

    path: str = "/healthz"
    timeout: float = 60.0
    basic: tuple[str, str] | None = None


@dataclass(frozen=True)
class Limits:
    """Bounds on a service.

    Attributes:
        open_files: RLIMIT_NOFILE, or None for the system's.
        memory_mb: for targets which can enforce it.
        cpu: share of a core, for targets which can enforce it.
    """

    open_files: int | None = None
    memory_mb: int | None = None
    cpu: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessArgs:
    """What a service and a job have in common.

    Attributes:
        argv: the command where the target runs processes; placeholders allowed.
        image: the name of the image in the tools table or templates where the target runs containers.
        env: plain settings; placeholders allowed.
        secret_env: environment variable -> secret whose value it gets.
        secrets: further secrets whose files it reads.
        config_files: name -> text; placeholders allowed.
        stores: object stores which hold its data.
        cwd: working directory relative to the project, or None for a scratch folder.
    """

    argv: Sequence[pulumi.Input[str]]
    image: str | None = None
    env: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    secret_env: Mapping[str, SecretRef] = field(default_factory=dict[str, SecretRef])
    secrets: Sequence[SecretRef] = ()
    config_files: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])
    stores: Sequence[StoreRef] = ()
    cwd: str | None = None


@dataclass(frozen=True, kw_only=True)
class ServiceArgs(ProcessArgs):
    """A server which runs until stopped.

    Attributes:
        endpoints: what it listens on; the first is the one its health is asked on.
        databases: databases which hold its data.
        health: when it counts as alive.
        limits: bounds on it.
        stop_seconds: from SIGTERM to SIGKILL.
    """

    endpoints: Sequence[EndpointRef]
    databases: Sequence[DatabaseRef] = ()
    health: HealthCheck = HealthCheck()
    limits: Limits = Limits()
    stop_seconds: float = 10.0


@dataclass(frozen=True)
class ServiceRef:
    """A made service."""

    name: str
    resource: pulumi.Resource


@dataclass(frozen=True, kw_only=True)
class JobArgs(ProcessArgs):
    """A command which runs once, to its end; run again when `triggers` change.

    Attributes:
        timeout: seconds until it is ended and fails.
        triggers: text by which a changed job is told from the one which ran.
    """

    timeout: float = 1800.0
    triggers: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])


@dataclass(frozen=True)
class JobRef:
    """A made job."""

    name: str
    resource: pulumi.Resource


@dataclass(frozen=True)
class TrainerArgs:
    """What runs trainings long after `up`, for the retraining service.

    Attributes:
        runtime: the text of the RuntimeSettings which trainings get; placeholders allowed.
        secrets: the secrets whose files that text names.
        trainings: model -> (command, folder of its code relative to the project).
    """

    runtime: pulumi.Input[str]
    secrets: Sequence[SecretRef]
    trainings: Mapping[str, tuple[Sequence[str], str]]


@dataclass(frozen=True)
class TrainerRef:
    """What was made for that.

    Attributes:
        launcher: the field `launcher` of `runtime.retraining.settings.RetrainingSettings`, in which outputs and
            placeholders may stand; empty where trainings are processes beside the service.
        secrets: secrets whose files that names.
        resources: what must be there before the retraining service.
    """

    launcher: Mapping[str, Any] = field(default_factory=dict[str, Any])
    secrets: Sequence[SecretRef] = ()
    resources: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True)
class Launch:
    """What differs between targets in how a server is started.

    Attributes:
        argv: the command; placeholders allowed.
        env: settings of where its data lives; placeholders allowed.
        namespace: what stands before a repository's name to say where lakeFS keeps its objects.
    """

    argv: Sequence[str]
    env: Mapping[str, pulumi.Input[str]]
    namespace: pulumi.Input[str] = "local://"


class Content(Protocol):
    """What lives inside a service: repositories, experiments, permissions.

    Every method takes the resources it must wait for in `opts`.
    """

    def repository(
        self, name: str, *, lake: LakeAccess, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """A lakeFS repository; holds data, so it is protected."""
        ...

    def action(
        self,
        name: str,
        *,
        lake: LakeAccess,
        repository: str,
        branch: str,
        path: str,
        content: pulumi.Input[str],
        opts: pulumi.ResourceOptions,
    ) -> pulumi.Resource:
        """A lakeFS action file, committed on `branch`."""
        ...

    def branch_protection(
        self, name: str, *, lake: LakeAccess, repository: str, branches: Sequence[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """The protected branches of a repository."""
        ...

    def experiment(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """An MLflow experiment; holds data, so it is protected."""
        ...

    def registered_model(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """A registered model; holds data, so it is protected."""
        ...

    def user(
        self, name: str, *, registry: RegistryAccess, password: SecretRef, opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """An MLflow user without any permission of its own."""
        ...

    def permission(
        self,
        name: str,
        *,
        registry: RegistryAccess,
        user: str,
        kind: Literal["experiment", "registered_model"],
        target: str,
        permission: Literal["READ", "EDIT", "MANAGE"],
        opts: pulumi.ResourceOptions,
    ) -> pulumi.Resource:
        """What a user may do with an experiment or a registered model, named by `target`."""
        ...


@dataclass(frozen=True)
class LakeAccess:
    """How Content reaches the lake."""

    url: pulumi.Input[str]
    key_id: SecretRef
    secret: SecretRef


@dataclass(frozen=True)
class RegistryAccess:
    """How Content reaches the registry, as its administrator."""

    url: pulumi.Input[str]
    admin: str
    password: SecretRef


class Target(Protocol):
    """How one target gives what the primitives ask for. Names are unique within the stack and deterministic.

    Attributes:
        name: its name in a stack config.
        stack: the stack which is built, TEAM-ENVIRONMENT.
        reaches_out: whether services reach servers outside of the stack.
        plain_http: whether services listen beyond the loopback interface without TLS, because the target keeps their
            network to themselves, or ends TLS before it.
    """

    name: str
    reaches_out: bool
    plain_http: bool

    @property
    def stack(self) -> str:
        """The stack which is built."""
        ...

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Make an endpoint."""
        ...

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Make a service, and wait until it is alive."""
        ...

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a job to its end."""
        ...

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Make an object store; it is protected."""
        ...

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Make a database; it is protected."""
        ...

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Make a secret; it is protected."""
        ...

    @property
    def content(self) -> Content:
        """Apply what lives inside services."""
        ...

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Make what runs trainings long after `up`."""
        ...

    def mlflow(self) -> Launch:
        """How MLflow is started here: databases `mlflow` and `mlflow-accounts`, object store `mlflow-artifacts`."""
        ...

    def lakefs(self) -> Launch:
        """How lakeFS is started here, on the database `lakefs` and the object store `lakefs-objects`."""
        ...
