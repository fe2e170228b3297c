"""The target `docker`: each service is a container of one daemon, on networks of the stack.

Volumes, secrets, jobs and process limits are resources of our provider (`components.provider.docker`). Networks, images
and containers are resources of the Docker provider.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi

from ....runtime.common.errors import RefusedError
from ...images.catalog import Image
from ...images.container_layout import DATA, MOUNT, PORT, PROJECT, SCRATCH, USER
from ...images.container_placeholders import ContainerPlaceholders
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
from ..local.content import LocalContent
from ..options import after, protected
from ..postgres_access import pass_file, pass_line
from ..server_commands import MLFLOW
from ..staged_import import staging_folder
from .container import ContainerSpec, Mounts, declare_container, health_command
from .databases import Databases
from .foundation import Foundation
from .naming import TMPFS, Names, database_url, entrypoint_of
from .settings import DockerSettings

_RUNNER = "runner"


class DockerTarget:
    """Creates the primitives in containers.

    Args:
        team, environment: together the stack's name.
        root: the stack's folder on this machine, see `components.layout`.
        project: the folder of Pulumi.yaml.
        settings: the block `docker` of the stack config.

    Raises:
        RefusedError: an import into the stack was interrupted; `up` would use its incomplete volumes.
    """

    name = "docker"
    external_access = False
    plain_http = True

    def __init__(self, team: str, environment: str, *, root: Path, project: Path, settings: DockerSettings) -> None:
        if staging_folder(root).exists():
            raise RefusedError(
                "an import into this stack was interrupted",
                field=f"{team}-{environment}",
                value=str(staging_folder(root)),
                hint="run `tidemill import` again, or delete that folder and the stack's volumes",
            )
        self._base = Foundation(Names(team, environment), root=root, project=project, settings=settings)
        self._content = LocalContent(self._base.stack, root)
        self._databases = Databases(self._base, self.secret)
        self._published: dict[str, pulumi.Input[int]] = {}
        self._stores: dict[str, native.Volume] = {}

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return self._base.stack

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Give the service a name in its network; if it is public, also publish a port on the loopback interface.

        A private service is published, too, if the config gives it a fixed port.
        """
        url = pulumi.Output.from_input(f"http://{name}:{PORT}")
        address = pulumi.Output.from_input(f"{name}:{PORT}")
        if not args.public and args.port is None:
            return EndpointRef(name, url=url, public_url=url, address=address, resource=self._base.private)
        made = native.Endpoint(name, stack=self._base.stack, root=self._base.root, port=args.port, opts=opts)
        port = made.port.apply(int)
        self._published[name] = port
        public = pulumi.Output.concat("http://", made.host, ":", port.apply(str))
        return EndpointRef(name, url=url, public_url=public, address=address, resource=made)

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Run a container and wait until it is healthy."""
        image = self._base.images.get(args.image or "runtime")
        published = [endpoint.name for endpoint in args.endpoints if endpoint.name in self._published]
        networks: list[tuple[pulumi.Input[str], Sequence[str]]] = [
            (self._base.private.name, [endpoint.name for endpoint in args.endpoints])
        ]
        if published or name == _RUNNER:
            networks.append((self._base.edge.name, []))
        resolve = _placeholders(args, image)
        files = self._files(name, args, image, opts)
        env = {**(image.upstream.env if image.upstream else {}), **args.env}
        container = declare_container(
            name,
            self._base.names,
            self._base.settings,
            ContainerSpec(
                image=image,
                entrypoint=entrypoint_of({variable: secret.name for variable, secret in args.secret_env.items()}),
                command=[resolve(part) for part in args.argv],
                env={key: resolve(value) for key, value in env.items()},
                mounts=Mounts(files.volume, self._volumes(name, args, opts)),
                networks=networks,
                ports=[(self._published[endpoint], PORT) for endpoint in published],
                health=health_command(args.health, image),
                start_seconds=args.health.timeout,
                limits=self._base.limits(name, args),
                open_files=args.limits.open_files,
                stop_seconds=args.stop_seconds,
                working_dir=self._folder(args),
                digest=files.digest,
            ),
            after(
                self._base.with_provider(opts),
                [*self._needs(args, image), *(database.resource for database in args.databases)],
            ),
        )
        return ServiceRef(name, self._base.bounded(name, container, self._base.limits(name, args), opts))

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a container to its end, with the project's code if the command is the project's."""
        image = self._base.images.get("training" if args.cwd is not None else args.image or "runtime")
        resolve = _placeholders(args, image)
        files = self._files(f"job-{name}", args, image, opts)
        limits = self._base.limits(name, None)
        made = native.ContainerJob(
            name,
            stack=self._base.stack,
            root=self._base.root,
            host=self._base.host,
            image=image.reference,
            argv=[resolve(part) for part in args.argv],
            entrypoint=entrypoint_of({variable: secret.name for variable, secret in args.secret_env.items()}) or None,
            env={key: resolve(value) for key, value in {"HOME": SCRATCH, **args.env}.items()},
            mounts=_mounts(files, self._volumes(f"job-{name}", args, opts)),
            # Seeds download their data.
            networks=[self._base.private.name, self._base.edge.name],
            user=f"{USER}:{USER}",
            working_dir=self._folder(args),
            tmpfs=TMPFS,
            memory_mb=limits.memory_mb,
            cpus=limits.cpus,
            processes=limits.processes,
            labels=self._base.names.labels(job=name),
            timeout=args.timeout,
            triggers=dict(args.triggers),
            opts=after(opts, self._needs(args, image)),
        )
        return JobRef(name, made)

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Create a volume."""
        self._stores[name] = self._base.volume(name, opts)
        return StoreRef(name, self._stores[name])

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Create a database and the role that owns it in the stack's Postgres."""
        return self._databases.make(name, opts)

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Create a file of mode 0600 on this machine; containers get copies in their own volumes."""
        made = native.Secret(
            name,
            stack=self._base.stack,
            root=self._base.root,
            format=args.format,
            value=args.value,
            opts=protected(opts),
        )
        return SecretRef(name, made, made.public)

    @property
    def content(self) -> Content:
        """Created by the provider through the published ports."""
        return self._content

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Run trainings in a separate container with the project's code and without the daemon's socket."""
        endpoint = self.endpoint(_RUNNER, EndpointArgs(), opts)
        token = self.secret(f"{_RUNNER}-token", SecretArgs(), opts)
        store = self.object_store(_RUNNER, opts)
        settings: dict[str, Any] = {
            "listen": {
                "host": "@{host}",
                "port": PORT,
                "hosts": [_RUNNER],
                "token_file": f"@{{secret-file:{token.name}}}",
                "plain_http": True,
            },
            "state": f"@{{store:{store.name}}}",
            "runtime": "@{config}/runtime.json",
            "trainings": [
                {"model": model, "command": list(command), "code": f"{PROJECT}/{PurePosixPath(code)}"}
                for model, (command, code) in args.trainings.items()
            ],
        }
        made = self.service(
            _RUNNER,
            ServiceArgs(
                argv=["@{python}", "-m", "tidemill.runtime.retraining.runner", "--settings", "@{config}/settings.json"],
                image="training",
                endpoints=[endpoint],
                secrets=[token, *args.secrets],
                config_files={
                    "settings.json": json.dumps(settings, indent=2, sort_keys=True),
                    "runtime.json": args.runtime,
                },
                stores=[store],
            ),
            opts,
        )
        access = {"kind": "runner", "url": endpoint.url, "token_file": f"@{{secret-file:{token.name}}}"}
        return TrainerRef(launcher=access, secrets=[token], resources=[made.resource])

    def mlflow(self) -> Launch:
        """Start MLflow on Postgres and a volume of artifacts."""
        return MLFLOW

    def lakefs(self) -> Launch:
        """Start lakeFS on Postgres and a volume of objects."""
        return Launch(
            argv=["@{tool:lakefs}"],
            env={
                "LAKEFS_DATABASE_TYPE": "postgres",
                "LAKEFS_DATABASE_POSTGRES_CONNECTION_STRING": "@{database:lakefs}",
                "LAKEFS_BLOCKSTORE_TYPE": "local",
                "LAKEFS_BLOCKSTORE_LOCAL_PATH": "@{store:lakefs-objects}",
            },
        )

    def _files(self, name: str, args: ProcessArgs, image: Image, opts: pulumi.ResourceOptions) -> native.Files:
        """Create the volume with the config files and secrets of a container."""
        resolve = _placeholders(args, image)
        secrets = {secret.name: secret for secret in (*args.secrets, *args.secret_env.values())}
        files = {f"config/{file}": resolve(text) for file, text in args.config_files.items()}
        passwords = {database.name: self._databases.password(database.name) for database in _databases(args)}
        files |= {
            f"config/{pass_file(database)}": pass_line(f"@{{secret:{secret.name}}}")
            for database, secret in passwords.items()
        }
        waits = [secret.resource for secret in (*secrets.values(), *passwords.values())]
        return self._base.files(name, files, sorted(secrets), after(opts, waits))

    def _volumes(self, name: str, args: ProcessArgs, opts: pulumi.ResourceOptions) -> Mapping[str, pulumi.Input[str]]:
        """Return path -> volume of a container's stores and of its scratch folder."""
        scratch = native.Scratch(
            f"scratch-{name}",
            name=f"scratch-{name}",
            stack=self._base.stack,
            host=self._base.host,
            owner=USER,
            labels=self._base.names.labels(),
            opts=opts,
        )
        return {
            SCRATCH: scratch.volume,
            **{f"{DATA}/{store.name}": self._stores[store.name].volume for store in args.stores},
        }

    def _folder(self, args: ProcessArgs) -> str:
        return SCRATCH if args.cwd is None else str(PurePosixPath(PROJECT) / args.cwd)

    def _needs(self, args: ProcessArgs, image: Image) -> list[pulumi.Resource]:
        secrets = [secret.resource for secret in (*args.secrets, *args.secret_env.values())]
        endpoints = [endpoint.resource for endpoint in args.endpoints] if isinstance(args, ServiceArgs) else []
        return [*secrets, *(store.resource for store in args.stores), *endpoints, *image.resources]


def _databases(args: ProcessArgs) -> Sequence[DatabaseRef]:
    return args.databases if isinstance(args, ServiceArgs) else ()


def _placeholders(args: ProcessArgs, image: Image) -> ContainerPlaceholders:
    return ContainerPlaceholders(
        image.upstream, {database.name: database_url(database.name) for database in _databases(args)}
    )


def _mounts(files: native.Files, volumes: Mapping[str, pulumi.Input[str]]) -> list[native.MountInputs]:
    writable = [
        native.MountInputs(volume=volume, target=target, readOnly=False) for target, volume in sorted(volumes.items())
    ]
    return [native.MountInputs(volume=files.volume, target=MOUNT, readOnly=True), *writable]
