"""Reads the contents of a stack on docker: volumes, Postgres, lakeFS, secrets. Imports no Pulumi.

A scratch container reads the volumes and connects to the databases, so no port of a database is published.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from ....runtime.common.errors import NotFoundError, PlatformError, UnreachableError
from ...images.container_layout import DATA
from ...layout import StackRoot
from ...provider.docker.daemon import SERVICE, STACK, connect, talking
from ...provider.local.files import secret_value
from ..migration import LakeServer
from ..staged_import import finished_jobs, read_secrets, running_lake
from . import postgres
from .daemon import STORE, volumes_of
from .naming import Names
from .operations import DockerOperations
from .scratch_container import ScratchContainer
from .settings import DockerSettings
from .tunnel import postgres_tunnel
from .volumes import VolumeStore

_SCHEME = "local://"
_LAKE = "lakefs"
_OBJECTS = "lakefs-objects"
_POSTGRES = "postgres"
# They belong to the servers of this place; the destination creates its own.
_OWN_SECRETS = (postgres.ADMIN_SECRET, "database-")
_OWN_JOBS = "database-"


class DockerSource:
    """A stack whose containers run; see `MigrationSource`. Use it with `with`.

    Args:
        names: names of the stack in Docker.
        root: its folder on this machine.
        settings: the block `docker` of its config.
    """

    def __init__(self, names: Names, root: StackRoot, settings: DockerSettings) -> None:
        self._names = names
        self._root = root
        self._client = connect(settings.host)
        self._operations = DockerOperations(names.stack, root, settings)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        """See `MigrationSource`."""
        yield running_lake(self._operations.url(_LAKE), self._root)

    def objects(self, namespace: str) -> VolumeStore:
        """See `MigrationSource`."""
        name = namespace.removeprefix(_SCHEME)
        if name == namespace or os.path.normpath(name) != name or name.startswith(("/", ".")):
            raise PlatformError("its objects are not in the stack's volume", field="lake", value=namespace)
        return VolumeStore(self._container, f"{DATA}/{_OBJECTS}/{name}")

    def relative(self, namespace: str, address: str) -> str | None:
        """See `MigrationSource`."""
        path = Path(os.path.normpath(address.removeprefix(_SCHEME)))
        folder = Path(DATA, _OBJECTS, namespace.removeprefix(_SCHEME))
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None

    def store(self, name: str) -> VolumeStore | None:
        """See `MigrationSource`."""
        return VolumeStore(self._container, f"{DATA}/{name}") if name in self._volumes else None

    @contextmanager
    def database(self, name: str) -> Generator[str]:
        """See `MigrationSource`."""
        if not self._operations.runs(_POSTGRES):
            raise UnreachableError("Postgres does not run", field=_POSTGRES, hint="run `tidemill start`")
        password = secret_value(self._root, f"database-{name}")
        with postgres_tunnel(self._container, _POSTGRES, name, password) as url:
            yield url

    def secrets(self) -> Mapping[str, str]:
        """See `MigrationSource`."""
        return {name: value for name, value in read_secrets(self._root).items() if not name.startswith(_OWN_SECRETS)}

    def jobs(self) -> Mapping[str, str]:
        """See `MigrationSource`."""
        return {name: digest for name, digest in finished_jobs(self._root).items() if not name.startswith(_OWN_JOBS)}

    @cached_property
    def _volumes(self) -> dict[str, str]:
        """The stack's stores except Postgres's: name -> volume."""
        found = volumes_of(self._client, self._names.stack)
        stores = {(volume["Labels"] or {}).get(STORE): str(volume["Name"]) for volume in found}
        return {name: volume for name, volume in stores.items() if name and name != _POSTGRES}

    @cached_property
    def _container(self) -> ScratchContainer:
        container = ScratchContainer(
            self._client,
            self._image(),
            self._names.of("exporting"),
            self._names.labels(),
            # Writable, because SQLite writes beside a database that it reads.
            volumes={f"{DATA}/{name}": volume for name, volume in self._volumes.items()},
            network=self._names.of("private"),
        )
        return self._open.enter_context(container)

    def _image(self) -> str:
        """Return an image with Python: that of the stack's MLflow container."""
        labels = [f"{STACK}={self._names.stack}", f"{SERVICE}=mlflow"]
        with talking("containers"):
            found = self._client.api.containers(all=True, filters={"label": labels})
        if not found:
            raise NotFoundError("has no container", field="service", value="mlflow", hint="run `tidemill up`")
        return str(found[0]["ImageID"])
