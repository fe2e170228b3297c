"""The `docker` target: every service is a container of one daemon, on networks of the stack's own.

What holds data or secrets, and what must be asked of the daemon in words the vendor's provider has not, is a resource
of ours (`components.provider.docker`); networks, images and containers are the vendor's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi

from ....runtime.common.errors import RefusedError
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
from ..server_commands import MLFLOW
from ..staged_import import attempt_at
from . import postgres
from .container import Mounts, Spec, health_of, make
from .databases import Databases
from .foundation import Foundation, after, kept
from .images import Image
from .naming import DATA, MOUNT, PORT, PROJECT, SCRATCH, TMPFS, USER, Names, Texts, entrypoint_of, pass_file
from .settings import DockerSettings

__all__ = ["DockerTarget"]

_RUNNER = "runner"


class DockerTarget:
    """Gives the primitives in containers.

    Args:
        team, environment: they name the stack.
        root: the stack's folder on this machine, see `components.layout`.
        project: the folder of Pulumi.yaml.
        settings: the block `docker` of the stack config.

    Raises:
        RefusedError: an import of contents into the stack was not finished; its half-filled volumes would be taken.
    """

    name = "docker"
    reaches_out = False
    plain_http = True

    def __init__(self, team: str, environment: str, *, root: Path, project: Path, settings: DockerSettings) -> None:
        if attempt_at(root).exists():
            raise RefusedError(
                "an import into this stack was not finished",
                field=f"{team}-{environment}",
                value=str(attempt_at(root)),
                hint="run `tidemill import` again, or delete that folder and the stack's volumes",
            )
        self._on = Foundation(Names(team, environment), root=root, project=project, settings=settings)
        self._content = LocalContent(self._on.stack, root)
        self._databases = Databases(self._on, self.secret)
        self._published: dict[str, pulumi.Input[int]] = {}
        self._stores: dict[str, native.Volume] = {}

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return self._on.stack

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Name the service in its network, and publish a port of the loopback interface where clients come.

        A port which the config fixes is published for a private service too: somebody asked for it.
        """
        url = pulumi.Output.from_input(f"http://{name}:{PORT}")
        address = pulumi.Output.from_input(f"{name}:{PORT}")
        if not args.public and args.port is None:
            return EndpointRef(name, url=url, public_url=url, address=address, resource=self._on.private)
        made = native.Endpoint(name, stack=self._on.stack, root=self._on.root, port=args.port, opts=opts)
        port = made.port.apply(int)
        self._published[name] = port
        public = pulumi.Output.concat("http://", made.host, ":", port.apply(str))
        return EndpointRef(name, url=url, public_url=public, address=address, resource=made)

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Run a container and wait until it is healthy."""
        image = self._on.images.get(args.image or "runtime")
        published = [endpoint.name for endpoint in args.endpoints if endpoint.name in self._published]
        networks: list[tuple[pulumi.Input[str], Sequence[str]]] = [
            (self._on.private.name, [endpoint.name for endpoint in args.endpoints])
        ]
        if published or name == _RUNNER:
            networks.append((self._on.edge.name, []))
        texts = Texts(image.upstream)
        files = self._files(name, args, image, opts)
        env = {**(image.upstream.env if image.upstream else {}), **args.env}
        container = make(
            name,
            self._on.names,
            self._on.settings,
            Spec(
                image=image,
                entrypoint=entrypoint_of({variable: secret.name for variable, secret in args.secret_env.items()}),
                command=[texts(part) for part in args.argv],
                env={key: texts(value) for key, value in env.items()},
                mounts=Mounts(files.volume, self._volumes(name, args, opts)),
                networks=networks,
                ports=[(self._published[endpoint], PORT) for endpoint in published],
                health=health_of(args.health, image),
                start_seconds=args.health.timeout,
                limits=self._on.limits(name, args),
                open_files=args.limits.open_files,
                stop_seconds=args.stop_seconds,
                working_dir=self._folder(args),
                digest=files.digest,
            ),
            after(self._on.of(opts), [*self._needs(args, image), *(database.resource for database in args.databases)]),
        )
        return ServiceRef(name, self._on.bounded(name, container, self._on.limits(name, args), opts))

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a container to its end; with the project's code where the command is the project's."""
        image = self._on.images.get("training" if args.cwd is not None else args.image or "runtime")
        texts = Texts(image.upstream)
        files = self._files(f"job-{name}", args, image, opts)
        limits = self._on.limits(name, None)
        made = native.ContainerJob(
            name,
            stack=self._on.stack,
            root=self._on.root,
            host=self._on.host,
            image=image.reference,
            argv=[texts(part) for part in args.argv],
            entrypoint=entrypoint_of({variable: secret.name for variable, secret in args.secret_env.items()}) or None,
            env={key: texts(value) for key, value in {"HOME": SCRATCH, **args.env}.items()},
            mounts=_mounts(files, self._volumes(f"job-{name}", args, opts)),
            # A seed fetches what it seeds with.
            networks=[self._on.private.name, self._on.edge.name],
            user=f"{USER}:{USER}",
            working_dir=self._folder(args),
            tmpfs=TMPFS,
            memory_mb=limits.memory_mb,
            cpus=limits.cpus,
            processes=limits.processes,
            labels=self._on.names.labels(job=name),
            timeout=args.timeout,
            triggers=dict(args.triggers),
            opts=after(opts, self._needs(args, image)),
        )
        return JobRef(name, made)

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Make a volume."""
        self._stores[name] = self._on.volume(name, opts)
        return StoreRef(name, self._stores[name])

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Make a database, and a role which owns it, in the stack's Postgres."""
        return self._databases.make(name, opts)

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Make a file of mode 0600 on this machine; containers get copies of it in volumes of their own."""
        made = native.Secret(
            name, stack=self._on.stack, root=self._on.root, format=args.format, value=args.value, opts=kept(opts)
        )
        return SecretRef(name, made)

    @property
    def content(self) -> Content:
        """Applied by the provider through the published ports of the loopback interface."""
        return self._content

    def trainer(self, args: TrainerArgs, opts: pulumi.ResourceOptions) -> TrainerRef:
        """Run trainings in a container of its own, which has the project's code and no socket of the daemon."""
        endpoint = self.endpoint(_RUNNER, EndpointArgs(), opts)
        token = self.secret(f"{_RUNNER}-token", SecretArgs(), opts)
        store = self.object_store(_RUNNER, opts)
        settings: dict[str, Any] = {
            "listen": {
                "host": "@{host}",
                "port": PORT,
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
        """Start it as everywhere, on Postgres and a volume of artifacts."""
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
        """Make the volume with the config files and secrets of a container."""
        texts = Texts(image.upstream)
        secrets = {secret.name: secret for secret in (*args.secrets, *args.secret_env.values())}
        databases = args.databases if isinstance(args, ServiceArgs) else ()
        files = {f"config/{file}": texts(text) for file, text in args.config_files.items()}
        passwords = {database.name: self._databases.password(database.name) for database in databases}
        files |= {
            f"config/{pass_file(database)}": postgres.pass_line(secret.name) for database, secret in passwords.items()
        }
        waits = [secret.resource for secret in (*secrets.values(), *passwords.values())]
        return self._on.files(name, files, sorted(secrets), after(opts, waits))

    def _volumes(self, name: str, args: ProcessArgs, opts: pulumi.ResourceOptions) -> Mapping[str, pulumi.Input[str]]:
        """Return path -> volume of what a container keeps, and of its scratch folder."""
        scratch = native.Scratch(
            f"scratch-{name}",
            name=f"scratch-{name}",
            stack=self._on.stack,
            host=self._on.host,
            owner=USER,
            labels=self._on.names.labels(),
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


def _mounts(files: native.Files, volumes: Mapping[str, pulumi.Input[str]]) -> list[native.MountInputs]:
    writable = [
        native.MountInputs(volume=volume, target=target, readOnly=False) for target, volume in sorted(volumes.items())
    ]
    return [native.MountInputs(volume=files.volume, target=MOUNT, readOnly=True), *writable]
