"""Postgres and lakeFS servers for an import, on the volumes that the stack will have.

They have the restrictions of the target's containers, a separate network, and secrets as files. lakeFS has a published
port on the loopback interface; Postgres has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ....runtime.common.errors import ServiceError
from ...images.container_layout import CONFIG, DATA, MOUNT, PORT, SCRATCH, USER
from ...provider.docker.daemon import talking
from ...tools.table import IMAGES
from ..http_get import is_healthy
from ..local.migration import LAKEFS_CONFIG, LAKEFS_ENV
from ..postgres_access import pass_file, pass_line
from . import postgres
from .daemon import ensure_image, make_volume, remove_container, remove_network, remove_volume, store_volume
from .naming import TMPFS, Names, database_url, entrypoint_of
from .scratch_container import ScratchContainer
from .settings import DockerSettings
from .tunnel import postgres_tunnel

if TYPE_CHECKING:
    from docker import DockerClient

LAKE, POSTGRES, OBJECTS = "lakefs", "postgres", "lakefs-objects"
DATABASES = ("mlflow", "mlflow-accounts", LAKE)
STOP_SECONDS = 60
_START_SECONDS = 120.0
_EVERY = 0.2
_MB = 1024 * 1024
_LAKE_SECRETS: Final[Mapping[str, str]] = {
    "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": "lakefs-encrypt",
    "LAKEFS_BLOCKSTORE_SIGNING_SECRET_KEY": "lakefs-signing",
}
_SERVER_ENV = {
    **postgres.SERVER_ENV,
    "PGHOST": "127.0.0.1",
    "PGUSER": "postgres",
    "PGDATABASE": "postgres",
    "PGPASSFILE": f"{CONFIG}/pgpass",
}
_LAKE_ENV = {
    **LAKEFS_ENV,
    "HOME": SCRATCH,
    "LAKEFS_LISTEN_ADDRESS": f"0.0.0.0:{PORT}",
    "LAKEFS_DATABASE_TYPE": "postgres",
    "LAKEFS_DATABASE_POSTGRES_CONNECTION_STRING": database_url(LAKE),
    "LAKEFS_BLOCKSTORE_TYPE": "local",
    "LAKEFS_BLOCKSTORE_LOCAL_PATH": f"{DATA}/{OBJECTS}",
    "LAKEFS_COMMITTED_LOCAL_CACHE_DIR": f"{SCRATCH}/cache",
}
_LAKEFS = [IMAGES[LAKE].programs["lakefs"], "--config", f"{CONFIG}/lakefs.yaml"]


def image_of(settings: DockerSettings, name: str) -> str:
    """Return the image of another vendor's program: that of the stack's config, else of the tools table."""
    return settings.images.get(name) or IMAGES[name].reference


class Servers:
    """Both servers. Each starts when it is first used; `close` stops them gracefully.

    Args:
        client: the daemon's client.
        names: names of the stack in Docker.
        settings: the block `docker` of its config.
        secret: returns the value of a secret of the stack.
    """

    def __init__(
        self, client: DockerClient, names: Names, settings: DockerSettings, secret: Callable[[str], str]
    ) -> None:
        self._client = client
        self._names = names
        self._settings = settings
        self._secret = secret
        self._open = ExitStack()

    def close(self) -> None:
        """Stop the servers, and remove what only they used."""
        self._open.close()

    def own(self, name: str) -> str:
        """Return the name in Docker of something that only the import uses."""
        return self._names.of(f"importing-{name}")

    def make_database(self, name: str) -> None:
        """Create a database in Postgres and the role that owns it."""
        self._run(self._postgres, ["psql", "--no-psqlrc", "--quiet", "--file", f"{CONFIG}/{name}.sql"])

    def database(self, name: str) -> str:
        """Return the SQLAlchemy URL of the database `name`."""
        return self._open.enter_context(
            postgres_tunnel(self._client_container, POSTGRES, name, self._secret(f"database-{name}"))
        )

    def start_lakefs(self, dump: bytes) -> None:
        """Start lakeFS on its database; `load_lakefs` loads `dump`."""
        files = {
            "lakefs.yaml": LAKEFS_CONFIG,
            "runs.json": dump.decode(),
            pass_file(LAKE): pass_line(self._secret(f"database-{LAKE}")),
        }
        mounts = {
            MOUNT: self._files(LAKE, USER, files, _LAKE_SECRETS.values()),
            SCRATCH: self._volume("scratch", USER, {}),
            f"{DATA}/{OBJECTS}": store_volume(self._client, self._names, OBJECTS, USER),
        }
        container = self._start(
            LAKE,
            [*_LAKEFS, "run"],
            mounts,
            user=USER,
            tmpfs=TMPFS,
            environment=_LAKE_ENV,
            entrypoint=entrypoint_of(_LAKE_SECRETS),
            published=True,
        )

        self._wait(container, lambda: is_healthy(f"{self.lakefs_url()}/_health"))

    def load_lakefs(self) -> None:
        """Load the dump into lakeFS's key-value store."""
        load = [*_LAKEFS, "kv", "load", "--input", f"{CONFIG}/runs.json", "--strategy", "overwrite"]
        self._run(self.own(LAKE), [*entrypoint_of(_LAKE_SECRETS), *load])

    def lakefs_url(self) -> str:
        """Return the URL of lakeFS on this machine."""
        with talking(LAKE):
            found: dict[str, Any] = self._client.api.inspect_container(self.own(LAKE))
        bound: list[dict[str, str]] = found["NetworkSettings"]["Ports"].get(f"{PORT}/tcp") or [{"HostPort": "0"}]
        return f"http://127.0.0.1:{bound[0]['HostPort']}"

    @cached_property
    def _network(self) -> str:
        name = self.own("network")
        with talking(name):
            self._client.api.create_network(name, driver="bridge", labels=self._names.labels())
        self._open.callback(remove_network, self._client, name)
        return name

    @cached_property
    def _client_container(self) -> ScratchContainer:
        """A container in the network, through which this machine reaches the databases."""
        image, labels = self._settings.base_image, self._names.labels()
        container = ScratchContainer(self._client, image, self.own("way"), labels, network=self._network)
        return self._open.enter_context(container)

    @cached_property
    def _postgres(self) -> str:
        """The container of Postgres, which accepts connections."""
        files = {f"{name}.sql": postgres.make_database(name, f"database-{name}") for name in DATABASES}
        files["pgpass"] = pass_line(self._secret(postgres.ADMIN_SECRET))
        secrets = [postgres.ADMIN_SECRET, *(f"database-{name}" for name in DATABASES)]
        mounts = {
            MOUNT: self._files(POSTGRES, postgres.USER, files, secrets),
            postgres.FOLDER: store_volume(self._client, self._names, POSTGRES, postgres.USER),
        }
        container = self._start(
            POSTGRES, ["postgres"], mounts, user=postgres.USER, tmpfs=postgres.SERVER_TMPFS, environment=_SERVER_ENV
        )
        self._wait(container, lambda: self._exec(container, postgres.HEALTH[1:])[0] == 0)
        return container

    def _files(self, name: str, owner: int, files: Mapping[str, str], secrets: Iterable[str]) -> str:
        contents = {f"config/{path}": (text.encode(), 0o400) for path, text in files.items()}
        contents |= {f"secrets/{each}": (self._secret(each).encode(), 0o400) for each in secrets}
        return self._volume(f"{name}-files", owner, contents)

    def _volume(self, name: str, owner: int, files: dict[str, tuple[bytes, int]]) -> str:
        volume = self.own(name)
        self._open.callback(remove_volume, self._client, volume)
        make_volume(self._client, volume, self._names.labels(), owner, files)
        return volume

    def _start(
        self,
        name: str,
        command: list[str],
        mounts: Mapping[str, str],
        *,
        user: int,
        tmpfs: Mapping[str, str],
        environment: Mapping[str, str],
        entrypoint: list[str] | None = None,
        published: bool = False,
    ) -> str:
        """Start a server; `mounts` are path -> volume."""
        container, image, api = self.own(name), image_of(self._settings, name), self._client.api
        ensure_image(self._client, image)
        network = self._network
        limits = self._settings.services.get(name, self._settings.limits)
        with talking(container):
            host = api.create_host_config(
                binds={
                    volume: {"bind": path, "mode": "ro" if path == MOUNT else "rw,nocopy"}
                    for path, volume in mounts.items()
                },
                network_mode=network,
                port_bindings={PORT: ("127.0.0.1", None)} if published else None,
                read_only=True,
                tmpfs=dict(tmpfs),
                cap_drop=["ALL"],
                security_opt=["no-new-privileges:true"],
                init=True,
                mem_limit=limits.memory_mb * _MB,
                pids_limit=limits.processes,
            )
            api.create_container(
                image=image,
                name=container,
                hostname=name,
                command=command,
                entrypoint=entrypoint,
                environment=dict(environment),
                user=f"{user}:{user}",
                working_dir="/",
                labels=self._names.labels(),
                ports=[PORT] if published else None,
                host_config=host,
                networking_config=api.create_networking_config({network: api.create_endpoint_config(aliases=[name])}),
            )
            self._open.callback(remove_container, self._client, container, grace=STOP_SECONDS)
            api.start(container)
        return container

    def _wait(self, container: str, ready: Callable[[], bool]) -> None:
        """Wait until a server is ready.

        Raises:
            ServiceError: it ended, or is not ready in time.
        """
        end = time.monotonic() + _START_SECONDS
        while True:
            with talking(container):
                runs = self._client.api.inspect_container(container)["State"]["Running"]
            if runs and ready():
                return
            if not runs or time.monotonic() > end:
                with talking(container):
                    log = self._client.api.logs(container, tail=40).decode(errors="replace")
                raise ServiceError("does not start", field=container, log_tail=log[-2000:])
            time.sleep(_EVERY)

    def _exec(self, container: str, argv: Sequence[str]) -> tuple[int, str]:
        api = self._client.api
        with talking(container):
            made: Any = api.exec_create(container, list(argv))
            output: Any = api.exec_start(made["Id"])
            code: Any = api.exec_inspect(made["Id"])["ExitCode"]
        return int(code), bytes(output).decode(errors="replace")

    def _run(self, container: str, argv: Sequence[str]) -> None:
        """Run a command in a container.

        Raises:
            ServiceError: it fails.
        """
        code, output = self._exec(container, argv)
        if code != 0:
            raise ServiceError("could not be loaded", field=container, log_tail=output[-2000:])
