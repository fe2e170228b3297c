"""Postgres and lakeFS which run while contents are imported, on the volumes which the stack will have.

They are held to what the target holds its containers to, are alone with the import in a network, and get secrets as
files. Of lakeFS a port of the loopback interface is published, of Postgres none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ....runtime.common.errors import ServiceError
from ...provider.docker.daemon import talking
from ...tools.table import IMAGES
from ..http_get import get
from ..local.migration import LAKEFS_CONFIG, LAKEFS_ENV
from . import postgres
from .daemon import have_image, make_volume, remove_container, remove_network, remove_volume, store_volume
from .naming import CONFIG, DATA, MOUNT, PORT, SCRATCH, TMPFS, USER, Names, database_url, entrypoint_of, pass_file
from .scratch_container import Helper
from .settings import DockerSettings
from .tunnel import postgres_tunnel

if TYPE_CHECKING:
    from docker import DockerClient

__all__ = ["DATABASES", "LAKE", "OBJECTS", "POSTGRES", "STOP_SECONDS", "Servers", "image_of"]

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
    """Return the image which the stack's config, or else the table, names for a program which is not ours."""
    return settings.images.get(name) or IMAGES[name].reference


class Servers:
    """Both servers, each started when it is first asked for; `close` ends them in peace.

    Args:
        client: the daemon's.
        names: the stack's.
        settings: the block `docker` of its config.
        secret: returns a secret of the stack by its name.
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
        """End them, and remove what was there for them alone."""
        self._open.close()

    def own(self, name: str) -> str:
        """Return what a thing is called which is there for the import alone."""
        return self._names.of(f"importing-{name}")

    def make_database(self, name: str) -> None:
        """Make a database in Postgres, and the role which owns it."""
        self._run(self._postgres, ["psql", "--no-psqlrc", "--quiet", "--file", f"{CONFIG}/{name}.sql"])

    def database(self, name: str) -> str:
        """Return the SQLAlchemy URL of a database which was made."""
        return self._open.enter_context(postgres_tunnel(self._way, POSTGRES, name, self._secret(f"database-{name}")))

    def start_lakefs(self, dump: bytes) -> None:
        """Start lakeFS on the database of its name; `dump` is for `load_lakefs`."""
        files = {
            "lakefs.yaml": LAKEFS_CONFIG,
            "runs.json": dump.decode(),
            pass_file(LAKE): _pass_line(self._secret(f"database-{LAKE}")),
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

        def answers() -> bool:
            answer = get(f"{self.lakefs_url()}/_health")
            return answer is not None and answer[0] == 200

        self._wait(container, answers)

    def load_lakefs(self) -> None:
        """Put the dump's entries into lakeFS's key-value store."""
        load = [*_LAKEFS, "kv", "load", "--input", f"{CONFIG}/runs.json", "--strategy", "overwrite"]
        self._run(self.own(LAKE), [*entrypoint_of(_LAKE_SECRETS), *load])

    def lakefs_url(self) -> str:
        """Return where lakeFS answers on this machine."""
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
    def _way(self) -> Helper:
        """A container in the network, through which databases are reached."""
        image, labels = self._settings.base_image, self._names.labels()
        return self._open.enter_context(Helper(self._client, image, self.own("way"), labels, network=self._network))

    @cached_property
    def _postgres(self) -> str:
        """The container of Postgres, which takes connections."""
        files = {f"{name}.sql": postgres.make_database(name, f"database-{name}") for name in DATABASES}
        files["pgpass"] = _pass_line(self._secret(postgres.ADMIN_SECRET))
        secrets = [postgres.ADMIN_SECRET, *(f"database-{name}" for name in DATABASES)]
        mounts = {
            MOUNT: self._files(POSTGRES, postgres.USER, files, secrets),
            postgres.FOLDER: store_volume(self._client, self._names, POSTGRES, postgres.USER),
        }
        container = self._start(
            POSTGRES,
            ["postgres"],
            mounts,
            user=postgres.USER,
            tmpfs=postgres.SERVER_TMPFS,
            environment=_SERVER_ENV,
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
        have_image(self._client, image)
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
            ServiceError: it ended, or is not within time.
        """
        end = time.monotonic() + _START_SECONDS
        while True:
            with talking(container):
                runs = self._client.api.inspect_container(container)["State"]["Running"]
            if runs and ready():
                return
            if not runs or time.monotonic() > end:
                with talking(container):
                    said = self._client.api.logs(container, tail=40).decode(errors="replace")
                raise ServiceError("does not start", field=container, log_tail=said[-2000:])
            time.sleep(_EVERY)

    def _exec(self, container: str, argv: Sequence[str]) -> tuple[int, str]:
        api = self._client.api
        with talking(container):
            made: Any = api.exec_create(container, list(argv))
            said: Any = api.exec_start(made["Id"])
            code: Any = api.exec_inspect(made["Id"])["ExitCode"]
        return int(code), bytes(said).decode(errors="replace")

    def _run(self, container: str, argv: Sequence[str]) -> None:
        """Run a command which must succeed.

        Raises:
            ServiceError: it does not.
        """
        code, said = self._exec(container, argv)
        if code != 0:
            raise ServiceError("did not take its entries", field=container, log_tail=said[-2000:])


def _pass_line(password: str) -> str:
    """Return the text of a file in which libpq finds a password, whatever it connects to."""
    return f"*:*:*:*:{password}\n"
