"""The target `local`: each primitive is a resource of our provider on this machine.

All processes run as one user. It is for development and not a trust boundary.
"""

from __future__ import annotations

from pathlib import Path

import pulumi

from ...provider import resources as native
from ..base import (
    Content,
    DatabaseRef,
    EndpointArgs,
    EndpointRef,
    JobArgs,
    JobRef,
    Launch,
    ProcessArgs,
    SecretArgs,
    SecretRef,
    ServiceArgs,
    ServiceRef,
    StoreRef,
    TrainerArgs,
    TrainerRef,
)
from ..options import after, protected
from ..server_commands import MLFLOW
from .content import LocalContent


def _secrets(args: ProcessArgs) -> dict[str, SecretRef]:
    return {secret.name: secret for secret in (*args.secrets, *args.secret_env.values())}


def _dependencies(args: ProcessArgs) -> list[pulumi.Resource]:
    secrets = [secret.resource for secret in _secrets(args).values()]
    return [*secrets, *(store.resource for store in args.stores)]


class LocalTarget:
    """Creates the primitives on this machine.

    Args:
        stack: TEAM-ENVIRONMENT.
        root: the stack's folder, see `components.layout`.
        project: the folder of Pulumi.yaml.
    """

    name = "local"
    external_access = True
    plain_http = False

    def __init__(self, stack: str, root: Path, project: Path) -> None:
        self._stack = stack
        self._root = root
        self._project = project
        self._content = LocalContent(stack, root)

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return self._stack

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Choose a free port on the loopback interface and keep it."""
        made = native.Endpoint(name, stack=self._stack, root=str(self._root), port=args.port, opts=opts)
        address = pulumi.Output.concat(made.host, ":", made.port.apply(lambda port: str(int(port))))
        url = pulumi.Output.concat("http://", address)
        return EndpointRef(name, url=url, public_url=url, address=address, resource=made)

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Run a process under supervisord and wait until it is healthy."""
        basic = args.health.basic
        made = native.Service(
            name,
            **self._process(args),
            endpoints=[endpoint.name for endpoint in args.endpoints],
            health={
                "path": args.health.path,
                "timeout": args.health.timeout,
                **({"basicUser": basic[0], "basicSecret": basic[1]} if basic else {}),
            },
            open_files=args.limits.open_files,
            stop_seconds=args.stop_seconds,
            opts=after(
                opts,
                [
                    *(endpoint.resource for endpoint in args.endpoints),
                    *_dependencies(args),
                    *(database.resource for database in args.databases),
                ],
            ),
        )
        return ServiceRef(name, made)

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a process to its end."""
        made = native.Job(
            name,
            **self._process(args),
            timeout=args.timeout,
            triggers=dict(args.triggers),
            opts=after(opts, _dependencies(args)),
        )
        return JobRef(name, made)

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Create a folder."""
        return StoreRef(name, native.Folder(name, stack=self._stack, root=str(self._root), opts=protected(opts)))

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Create a folder for SQLite or an embedded key-value store."""
        return DatabaseRef(name, native.Folder(name, stack=self._stack, root=str(self._root), opts=protected(opts)))

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Create a file of mode 0600."""
        made = native.Secret(
            name, stack=self._stack, root=str(self._root), format=args.format, value=args.value, opts=protected(opts)
        )
        return SecretRef(name, made, made.public)

    @property
    def content(self) -> Content:
        """Created by the provider directly; it runs on the same machine as the services."""
        return self._content

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Create nothing: the retraining service starts trainings as processes."""
        del args, opts
        return TrainerRef()

    def mlflow(self) -> Launch:
        """Start MLflow on SQLite and a folder of artifacts."""
        return MLFLOW

    def lakefs(self) -> Launch:
        """Start lakeFS on its embedded key-value store and a folder of objects."""
        return Launch(
            argv=["@{tool:lakefs}"],
            env={
                "LAKEFS_DATABASE_TYPE": "local",
                "LAKEFS_DATABASE_LOCAL_PATH": "@{store:lakefs}",
                "LAKEFS_BLOCKSTORE_TYPE": "local",
                "LAKEFS_BLOCKSTORE_LOCAL_PATH": "@{store:lakefs-objects}",
            },
        )

    def _process(self, args: ProcessArgs) -> native.ProcessInputs:
        return {
            "stack": self._stack,
            "root": str(self._root),
            "argv": [self._text(part) for part in args.argv],
            "env": {key: self._text(value) for key, value in args.env.items()},
            "secret_env": {key: secret.name for key, secret in args.secret_env.items()},
            "secrets": sorted(_secrets(args)),
            "config_files": {key: self._text(value) for key, value in args.config_files.items()},
            "cwd": None if args.cwd is None else str(self._project / args.cwd),
        }

    def _text(self, value: pulumi.Input[str]) -> pulumi.Input[str]:
        if isinstance(value, str):
            return value.replace("@{project}", str(self._project))
        return pulumi.Output.from_input(value).apply(lambda text: text.replace("@{project}", str(self._project)))
