"""The `docker` target: every service is a container of one daemon, on networks of the stack's own.

What holds data or secrets, and what must be asked of the daemon in words the vendor's provider has not, is a resource
of ours (`components.provider.docker`); networks, images and containers are the vendor's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
import pulumi_docker as docker

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
from ..launches import MLFLOW
from ..local.content import LocalContent
from . import postgres
from .container import TMPFS, Mounts, Spec, entrypoint_of, health_of, make
from .images import Image, Images
from .naming import CONFIG, DATA, MOUNT, PORT, PROJECT, SCRATCH, USER, Names, Texts, pass_file
from .settings import ContainerLimits, DockerSettings

__all__ = ["DockerTarget"]

_RUNNER = "runner"


def _kept(opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """Return `opts` for what holds data, or the secrets which open it."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))


def _after(opts: pulumi.ResourceOptions, resources: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(resources)))


class DockerTarget:
    """Gives the seven words in containers.

    Args:
        team, environment: they name the stack.
        root: the stack's folder on this machine, see `components.layout`.
        project: the folder of Pulumi.yaml.
        settings: the block `docker` of the stack config.
    """

    name = "docker"
    reaches_out = False
    plain_http = True

    def __init__(self, team: str, environment: str, *, root: Path, project: Path, settings: DockerSettings) -> None:
        self._names = Names(team, environment)
        self._stack = self._names.stack
        self._root = root
        self._project = project
        self._settings = settings
        self._content = LocalContent(self._stack, root)
        self._databases: dict[str, SecretRef] = {}
        self._published: dict[str, pulumi.Input[int]] = {}
        self._stores: dict[str, native.Volume] = {}

    @cached_property
    def _options(self) -> pulumi.ResourceOptions:
        """Options of the vendor's resources: the daemon, where the config names one."""
        host = self._settings.host
        provider = docker.Provider("docker", host=host) if host else None
        return pulumi.ResourceOptions(provider=provider)

    @cached_property
    def _images(self) -> Images:
        # Images are built through BuildKit, whose provider finds the daemon by itself.
        folder = self._root / "images"
        return Images(self._names, self._project, folder, self._settings, pulumi.ResourceOptions())

    @cached_property
    def _private(self) -> docker.Network:
        """The network of all services, from which nothing leads out."""
        return self._network("private", internal=True)

    @cached_property
    def _edge(self) -> docker.Network:
        """The network of those which are published, or may ask the world something."""
        return self._network("edge", internal=False)

    def _network(self, name: str, *, internal: bool) -> docker.Network:
        labels = sorted(self._names.labels().items())
        return docker.Network(
            f"network-{name}",
            name=self._names.of(name),
            driver="bridge",
            internal=internal,
            labels=[docker.NetworkLabelArgs(label=key, value=value) for key, value in labels],
            opts=pulumi.ResourceOptions.merge(self._options, pulumi.ResourceOptions(delete_before_replace=True)),
        )

    @property
    def stack(self) -> str:
        """TEAM-ENVIRONMENT."""
        return self._stack

    def endpoint(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions) -> EndpointRef:
        """Name the service in its network, and publish a port of the loopback interface where clients come.

        A port which the config fixes is published for a private service too: somebody asked for it.
        """
        url = pulumi.Output.from_input(f"http://{name}:{PORT}")
        address = pulumi.Output.from_input(f"{name}:{PORT}")
        if not args.public and args.port is None:
            return EndpointRef(name, url=url, public_url=url, address=address, resource=self._private)
        made = native.Endpoint(name, stack=self._stack, root=str(self._root), port=args.port, opts=opts)
        port = made.port.apply(int)
        self._published[name] = port
        public = pulumi.Output.concat("http://", made.host, ":", port.apply(str))
        return EndpointRef(name, url=url, public_url=public, address=address, resource=made)

    def service(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions) -> ServiceRef:
        """Run a container and wait until it is healthy."""
        image = self._images.get(args.image or "runtime")
        published = [endpoint.name for endpoint in args.endpoints if endpoint.name in self._published]
        networks: list[tuple[pulumi.Input[str], Sequence[str]]] = [
            (self._private.name, [endpoint.name for endpoint in args.endpoints])
        ]
        if published or name == _RUNNER:
            networks.append((self._edge.name, []))
        texts = Texts(image.upstream)
        files = self._files(name, args, image, opts)
        env = {**(image.upstream.env if image.upstream else {}), **args.env}
        container = make(
            name,
            self._names,
            self._settings,
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
                limits=self._limits(name, args),
                open_files=args.limits.open_files,
                stop_seconds=args.stop_seconds,
                working_dir=self._folder(args),
                digest=files.digest,
            ),
            _after(self._of(opts), [*self._needs(args, image), *(database.resource for database in args.databases)]),
        )
        return ServiceRef(name, self._bounded(name, container, self._limits(name, args), opts))

    def job(self, name: str, args: JobArgs, opts: pulumi.ResourceOptions) -> JobRef:
        """Run a container to its end; with the project's code where the command is the project's."""
        image = self._images.get("training" if args.cwd is not None else args.image or "runtime")
        texts = Texts(image.upstream)
        files = self._files(f"job-{name}", args, image, opts)
        limits = self._limits(name, None)
        made = native.ContainerJob(
            name,
            stack=self._stack,
            root=str(self._root),
            host=self._settings.host,
            image=image.reference,
            argv=[texts(part) for part in args.argv],
            entrypoint=entrypoint_of({variable: secret.name for variable, secret in args.secret_env.items()}) or None,
            env={key: texts(value) for key, value in {"HOME": SCRATCH, **args.env}.items()},
            mounts=_mounts(files, self._volumes(f"job-{name}", args, opts)),
            # A seed fetches what it seeds with.
            networks=[self._private.name, self._edge.name],
            user=f"{USER}:{USER}",
            working_dir=self._folder(args),
            tmpfs=TMPFS,
            memory_mb=limits.memory_mb,
            cpus=limits.cpus,
            processes=limits.processes,
            labels=self._names.labels(job=name),
            timeout=args.timeout,
            triggers=dict(args.triggers),
            opts=_after(opts, self._needs(args, image)),
        )
        return JobRef(name, made)

    def object_store(self, name: str, opts: pulumi.ResourceOptions) -> StoreRef:
        """Make a volume."""
        self._stores[name] = self._volume(name, opts)
        return StoreRef(name, self._stores[name])

    def database(self, name: str, opts: pulumi.ResourceOptions) -> DatabaseRef:
        """Make a database, and a role which owns it, in the stack's Postgres."""
        secret = self.secret(f"database-{name}", SecretArgs(), opts)
        self._databases[name] = secret
        admin = self._postgres_admin
        files = native.Files(
            f"files-database-{name}",
            stack=self._stack,
            root=str(self._root),
            name=f"database-{name}",
            host=self._settings.host,
            owner=postgres.USER,
            files={
                "config/make.sql": postgres.make_database(name, secret.name),
                "config/pgpass": postgres.pass_line(admin.name),
            },
            secrets=[secret.name],
            labels=self._names.labels(),
            opts=_after(opts, [admin.resource, secret.resource]),
        )
        image = self._images.get("postgres")
        job = native.ContainerJob(
            f"database-{name}",
            stack=self._stack,
            root=str(self._root),
            host=self._settings.host,
            image=image.reference,
            entrypoint=["psql"],
            argv=["--no-psqlrc", "--quiet", "--file", f"{CONFIG}/make.sql"],
            env={
                "PGHOST": "postgres",
                "PGUSER": "postgres",
                "PGDATABASE": "postgres",
                "PGPASSFILE": f"{CONFIG}/pgpass",
                "HOME": "/tmp",  # noqa: S108 - within the container
            },
            mounts=[native.MountInputs(volume=files.volume, target=MOUNT, readOnly=True)],
            networks=[self._private.name],
            user=f"{postgres.USER}:{postgres.USER}",
            tmpfs=TMPFS,
            memory_mb=256,
            cpus=1.0,
            processes=64,
            labels=self._names.labels(job=f"database-{name}"),
            timeout=120.0,
            triggers={"files": files.digest},
            opts=_after(opts, [self._postgres, *image.resources]),
        )
        return DatabaseRef(name, job)

    def secret(self, name: str, args: SecretArgs, opts: pulumi.ResourceOptions) -> SecretRef:
        """Make a file of mode 0600 on this machine; containers get copies of it in volumes of their own."""
        made = native.Secret(
            name, stack=self._stack, root=str(self._root), format=args.format, value=args.value, opts=_kept(opts)
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
                argv=["@{python}", "-m", "tidemill.runtime.runner", "--settings", "@{config}/settings.json"],
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

    @cached_property
    def _postgres_admin(self) -> SecretRef:
        return self.secret(postgres.ADMIN_SECRET, SecretArgs(), pulumi.ResourceOptions())

    @cached_property
    def _postgres(self) -> pulumi.Resource:
        """The one Postgres server, made when the first database is asked for."""
        admin = self._postgres_admin
        opts = pulumi.ResourceOptions()
        image = self._images.get("postgres")
        volume = self._volume("postgres", opts, owner=postgres.USER)
        files = native.Files(
            "files-postgres",
            stack=self._stack,
            root=str(self._root),
            name="postgres",
            host=self._settings.host,
            owner=postgres.USER,
            secrets=[admin.name],
            labels=self._names.labels(),
            opts=_after(opts, [admin.resource]),
        )
        limits = self._limits("postgres", None)
        container = make(
            "postgres",
            self._names,
            self._settings,
            Spec(
                image=image,
                entrypoint=None,
                command=["postgres"],
                env=postgres.SERVER_ENV,
                mounts=Mounts(files.volume, {postgres.FOLDER: volume.volume}),
                networks=[(self._private.name, ["postgres"])],
                health=postgres.HEALTH,
                start_seconds=60.0,
                user=postgres.USER,
                tmpfs=postgres.SERVER_TMPFS,
                limits=limits,
                # A server which is not let end in peace has to recover at its next start.
                stop_seconds=60.0,
                working_dir=None,
                digest=files.digest,
            ),
            _after(self._options, [volume, files, *image.resources]),
        )
        return self._bounded("postgres", container, limits, opts)

    def _of(self, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions.merge(opts, self._options)

    def _bounded(
        self, name: str, container: docker.Container, limits: ContainerLimits, opts: pulumi.ResourceOptions
    ) -> native.Bounds:
        """Bound the number of processes; who depends on this depends on the container."""
        return native.Bounds(
            f"bounds-{name}",
            name=name,
            stack=self._stack,
            host=self._settings.host,
            container=container.id,
            processes=limits.processes,
            opts=_after(opts, [container]),
        )

    def _limits(self, name: str, args: ServiceArgs | None) -> ContainerLimits:
        """Return what a container may use: what the config says of it, or the component, or the config in general."""
        if name in self._settings.services:
            return self._settings.services[name]
        general = self._settings.limits
        asked = args.limits if args else None
        return general.model_copy(
            update={
                **({"memory_mb": asked.memory_mb} if asked and asked.memory_mb else {}),
                **({"cpus": asked.cpu} if asked and asked.cpu else {}),
            }
        )

    def _volume(self, name: str, opts: pulumi.ResourceOptions, *, owner: int = USER) -> native.Volume:
        return native.Volume(
            name,
            stack=self._stack,
            host=self._settings.host,
            owner=owner,
            labels=self._names.labels(store=name),
            opts=_kept(opts),
        )

    def _files(self, name: str, args: ProcessArgs, image: Image, opts: pulumi.ResourceOptions) -> native.Files:
        """Make the volume with the config files and secrets of a container."""
        texts = Texts(image.upstream)
        secrets = {secret.name: secret for secret in (*args.secrets, *args.secret_env.values())}
        databases = args.databases if isinstance(args, ServiceArgs) else ()
        files = {f"config/{file}": texts(text) for file, text in args.config_files.items()}
        passwords = {database.name: self._databases[database.name] for database in databases}
        files |= {
            f"config/{pass_file(database)}": postgres.pass_line(secret.name) for database, secret in passwords.items()
        }
        return native.Files(
            f"files-{name}",
            name=name,
            stack=self._stack,
            root=str(self._root),
            host=self._settings.host,
            owner=USER,
            files=files,
            secrets=sorted(secrets),
            labels=self._names.labels(),
            opts=_after(opts, [secret.resource for secret in (*secrets.values(), *passwords.values())]),
        )

    def _volumes(self, name: str, args: ProcessArgs, opts: pulumi.ResourceOptions) -> Mapping[str, pulumi.Input[str]]:
        """Return path -> volume of what a container keeps, and of its scratch folder."""
        scratch = native.Scratch(
            f"scratch-{name}",
            name=f"scratch-{name}",
            stack=self._stack,
            host=self._settings.host,
            owner=USER,
            labels=self._names.labels(),
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
    kept = [
        native.MountInputs(volume=volume, target=target, readOnly=False) for target, volume in sorted(volumes.items())
    ]
    return [native.MountInputs(volume=files.volume, target=MOUNT, readOnly=True), *kept]
