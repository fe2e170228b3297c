"""The primitives: Endpoint, Service, Job, ObjectStore, Database, Secret, Content.

A component asks for primitives and a target creates them. No component asks which target it is on. Texts contain
placeholders for what only the target knows; they are resolved where the process runs:

    @{config}             folder of this service's config files
    @{secret-file:NAME}   file with the secret NAME
    @{secret:NAME}        its value; only in config files, which are then private
    @{bcrypt:NAME}        its bcrypt hash; only in config files
    @{store:NAME}         folder (or URI) of the object store NAME
    @{database:NAME}      SQLAlchemy URI of the database NAME
    @{tool:NAME}          the program NAME of the tools table
    @{tool-home:NAME}     the folder in which that program is installed
    @{python}             the Python with tidemill
    @{host}, @{port}      address of the service's first endpoint, to listen on
    @{scratch}            a private folder that can be lost at any restart
    @{project}            the team's project, the folder of Pulumi.yaml
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pulumi

from .options import protected


@dataclass(frozen=True)
class _Ref:
    name: str
    resource: pulumi.Resource


@dataclass(frozen=True)
class EndpointArgs:
    """An address, created before the service behind it so that services can refer to each other.

    Attributes:
        public: whether the team's clients reach it, and not only the stack's services.
        port: a fixed port; None lets the target choose one and keep it.
    """

    public: bool = False
    port: int | None = None


@dataclass(frozen=True)
class EndpointRef:
    """A created endpoint.

    Attributes:
        name: its name within the stack.
        url: its URL for the stack's services, without a trailing slash.
        public_url: its URL for this machine's user and for the provider.
        address: `host:port` of `url`, for scrape configs.
        resource: the resource on which the service behind it depends.
    """

    name: str
    url: pulumi.Output[str]
    public_url: pulumi.Output[str]
    address: pulumi.Output[str]
    resource: pulumi.Resource


@dataclass(frozen=True)
class SecretArgs:
    """A secret, by default a random one, which is generated once and kept with the data it protects.

    Attributes:
        format: `token` (43 characters of base64url, 256 bits), one of the formats of lakeFS's key pair, or `ed25519`, a
            private key.
        value: an existing value, a secret output; None generates one.
    """

    format: Literal["token", "lakefs-key-id", "lakefs-secret", "ed25519"] = "token"
    value: pulumi.Output[str] | None = None


@dataclass(frozen=True)
class SecretRef(_Ref):
    """A created secret. Its value never passes through the program.

    Attributes:
        public: the public key of a secret with the format `ed25519`; unused otherwise.
    """

    public: pulumi.Output[str] | None = None


class StoreRef(_Ref):
    """A created object store."""


class DatabaseRef(_Ref):
    """A created database."""


@dataclass(frozen=True)
class HealthCheck:
    """The health check of a service, which answers 200 if it is healthy.

    Attributes:
        path: HTTP path on the service's first endpoint.
        timeout: seconds until creation fails.
        basic: (user, name of the secret) for HTTP basic authentication; None sends no credentials.
    """

    path: str = "/healthz"
    timeout: float = 60.0
    basic: tuple[str, str] | None = None


@dataclass(frozen=True)
class Limits:
    """Resource limits of a service.

    Attributes:
        open_files: RLIMIT_NOFILE, or None for the system's limit.
        memory_mb: on targets that can enforce it.
        cpu: cores, on targets that can enforce it.
    """

    open_files: int | None = None
    memory_mb: int | None = None
    cpu: float | None = None


@dataclass(frozen=True, kw_only=True)
class ProcessArgs:
    """The arguments that services and jobs share.

    Attributes:
        argv: the command; placeholders allowed.
        image: the name of its image, from the tools table or `components.images`, on targets that run containers.
        env: environment variables; placeholders allowed.
        secret_env: environment variable -> secret that is its value.
        secrets: other secrets whose files it reads.
        config_files: name -> text; placeholders allowed.
        stores: object stores that it uses.
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
    """A server that runs until it is stopped.

    Attributes:
        endpoints: where it listens; the health check uses the first one.
        databases: databases that it uses.
        health: its health check.
        limits: its resource limits.
        stop_seconds: from SIGTERM to SIGKILL.
    """

    endpoints: Sequence[EndpointRef]
    databases: Sequence[DatabaseRef] = ()
    health: HealthCheck = HealthCheck()
    limits: Limits = Limits()
    stop_seconds: float = 10.0


class ServiceRef(_Ref):
    """A created service."""


@dataclass(frozen=True, kw_only=True)
class JobArgs(ProcessArgs):
    """A command that runs once, to its end. It runs again when `triggers` change.

    Attributes:
        timeout: seconds after which it is killed and has failed.
        triggers: values that cause a new run when they change.
    """

    timeout: float = 1800.0
    triggers: Mapping[str, pulumi.Input[str]] = field(default_factory=dict[str, pulumi.Input[str]])


class JobRef(_Ref):
    """A created job."""


@dataclass(frozen=True)
class TrainerArgs:
    """The trainings that the retraining service starts after `up` has ended.

    Attributes:
        runtime: the text of the RuntimeSettings for trainings; placeholders allowed.
        secrets: the secrets whose files that text names.
        trainings: model -> (command, folder of its code relative to the project).
    """

    runtime: pulumi.Input[str]
    secrets: Sequence[SecretRef]
    trainings: Mapping[str, tuple[Sequence[str], str]]


@dataclass(frozen=True)
class TrainerRef:
    """How the retraining service starts trainings.

    Attributes:
        launcher: the field `launcher` of `runtime.retraining.settings.RetrainingSettings`; outputs and placeholders
            allowed; empty if trainings are processes beside the service.
        secrets: secrets whose files it names.
        resources: resources on which the retraining service depends.
    """

    launcher: Mapping[str, Any] = field(default_factory=dict[str, Any])
    secrets: Sequence[SecretRef] = ()
    resources: Sequence[pulumi.Resource] = ()


@dataclass(frozen=True)
class Launch:
    """How a server starts on one target.

    Attributes:
        argv: the command; placeholders allowed.
        env: environment variables that say where its data is; placeholders allowed.
        namespace: prefix of a repository's storage namespace in lakeFS.
    """

    argv: Sequence[str]
    env: Mapping[str, pulumi.Input[str]]
    namespace: pulumi.Input[str] = "local://"


@dataclass(frozen=True)
class LakeAccess:
    """How the provider reaches lakeFS."""

    url: pulumi.Input[str]
    key_id: SecretRef
    secret: SecretRef


@dataclass(frozen=True)
class RegistryAccess:
    """How the provider reaches the registry, as its administrator."""

    url: pulumi.Input[str]
    admin: str
    password: SecretRef


def access_properties(
    access: LakeAccess | RegistryAccess, folder: str, password: SecretRef | None = None
) -> dict[str, str]:
    """Return the provider's properties that name the files of secrets in `folder`, and the administrator."""
    if isinstance(access, LakeAccess):
        found = {"key_id_file": access.key_id.name, "secret_file": access.secret.name}
    else:
        found = {"password_file": access.password.name}
    found |= {"user_password_file": password.name} if password else {}
    files = {key: f"{folder}/{name}" for key, name in found.items()}
    return files if isinstance(access, LakeAccess) else {"admin": access.admin, **files}


class Content(ABC):
    """Creates objects inside services: repositories, experiments, permissions.

    A target implements `_create`. Pass the resources on which an object depends in `opts`.
    """

    @abstractmethod
    def _create(
        self,
        kind: str,
        name: str,
        properties: dict[str, Any],
        access: LakeAccess | RegistryAccess,
        opts: pulumi.ResourceOptions,
        password: SecretRef | None = None,
    ) -> pulumi.Resource:
        """Create an object by its type below `tidemill-native:`; a user with its `password`."""

    def repository(
        self, name: str, *, lake: LakeAccess, namespace: pulumi.Input[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """Create a lakeFS repository. It contains data, so it is protected."""
        properties = {"name": name, "namespace": namespace, "default_branch": "main"}
        return self._create("lakefs:Repository", name, properties, lake, protected(opts))

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
        """Commit a lakeFS action file on `branch`."""
        properties = {"repository": repository, "branch": branch, "path": path, "content": content}
        return self._create("lakefs:Action", name, properties, lake, opts)

    def branch_protection(
        self, name: str, *, lake: LakeAccess, repository: str, branches: Sequence[str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """Protect branches of a repository."""
        properties = {"repository": repository, "branches": list(branches)}
        return self._create("lakefs:BranchProtection", name, properties, lake, opts)

    def experiment(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Create an MLflow experiment. It contains data, so it is protected."""
        return self._create("mlflow:Experiment", name, {"name": name}, registry, protected(opts))

    def registered_model(self, name: str, *, registry: RegistryAccess, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """Create a registered model. It contains data, so it is protected."""
        return self._create("mlflow:RegisteredModel", name, {"name": name}, registry, protected(opts))

    def user(
        self, name: str, *, registry: RegistryAccess, password: SecretRef, opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        """Create an MLflow user without permissions."""
        return self._create("mlflow:User", name, {"username": name}, registry, opts, password)

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
        """Give a user a permission on the experiment or registered model `target`."""
        properties = {"username": user, "kind": kind, "target": target, "permission": permission}
        return self._create("mlflow:Permission", name, properties, registry, opts)


class Target(Protocol):
    """Creates the primitives on one target. Names are unique within the stack and deterministic.

    Attributes:
        name: its name in a stack config.
        external_access: whether services can reach servers outside the stack.
        plain_http: whether services listen beyond the loopback interface without TLS, because the target isolates
            their network or terminates TLS in front of them.
    """

    name: str
    external_access: bool
    plain_http: bool

    @property
    def stack(self) -> str:
        """The name of the stack, TEAM-ENVIRONMENT."""
        ...

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Create an endpoint."""
        ...

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Create a service, and wait until it is healthy."""
        ...

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a job to its end."""
        ...

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Create an object store; it is protected."""
        ...

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Create a database; it is protected."""
        ...

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Create a secret; it is protected."""
        ...

    @property
    def content(self) -> Content:
        """Creates objects inside services."""
        ...

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Create what runs trainings after `up` has ended."""
        ...

    def mlflow(self) -> Launch:
        """Return how MLflow starts, on the databases `mlflow`, `mlflow-accounts` and the store `mlflow-artifacts`."""
        ...

    def lakefs(self) -> Launch:
        """Return how lakeFS starts, on the database `lakefs` and the object store `lakefs-objects`."""
        ...
