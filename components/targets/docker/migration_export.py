"""Where the contents of a stack in containers are read: its volumes, its Postgres, its lakeFS, its secrets.

No port of a database is published for it: volumes are read, and databases are reached, within a container of one's
own, see `helper`. Imports no Pulumi.
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
from ...layout import StackRoot
from ...provider.docker.daemon import SERVICE, STACK, connect, talking
from ...provider.local.files import secret_value
from ..http_get import get
from ..migration import LakeServer
from ..staged_import import jobs_in, secrets_in
from . import postgres
from .daemon import STORE, volumes_of
from .naming import DATA, Names
from .operations import DockerOperations
from .scratch_container import Helper
from .settings import DockerSettings
from .tunnel import postgres_tunnel
from .volumes import VolumeStore

__all__ = ["DockerOldEnds"]

_SCHEME = "local://"
_LAKE = "lakefs"
_OBJECTS = "lakefs-objects"
_POSTGRES = "postgres"
# What opens the servers of one place; the next one makes its own.
_OWN_SECRETS = (postgres.ADMIN_SECRET, "database-")
_OWN_JOBS = "database-"


class DockerOldEnds:
    """A stack whose containers run; see `OldEnds`. Used with `with`.

    Args:
        names: the stack's.
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
        """See `OldEnds`."""
        url = self._operations.url(_LAKE)
        answer = get(f"{url}/_health") if url else None
        if url is None or answer is None or answer[0] != 200:
            raise UnreachableError("lakeFS does not run", field=_LAKE, hint="run `tidemill start`")
        yield LakeServer(url, secret_value(self._root, "lakefs-key-id"), secret_value(self._root, "lakefs-secret"))

    def objects(self, namespace: str) -> VolumeStore:
        """See `OldEnds`."""
        name = namespace.removeprefix(_SCHEME)
        if name == namespace or os.path.normpath(name) != name or name.startswith(("/", ".")):
            raise PlatformError("its objects do not lie in the stack's volume", field="lake", value=namespace)
        return VolumeStore(self._helper, f"{DATA}/{_OBJECTS}/{name}")

    def relative(self, namespace: str, address: str) -> str | None:
        """See `OldEnds`."""
        path = Path(os.path.normpath(address.removeprefix(_SCHEME)))
        folder = Path(DATA, _OBJECTS, namespace.removeprefix(_SCHEME))
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None

    def store(self, name: str) -> VolumeStore | None:
        """See `OldEnds`."""
        return VolumeStore(self._helper, f"{DATA}/{name}") if name in self._volumes else None

    @contextmanager
    def database(self, name: str) -> Generator[str]:
        """See `OldEnds`."""
        if not any(each.name == _POSTGRES and each.state == "running" for each in self._operations.services()):
            raise UnreachableError("Postgres does not run", field=_POSTGRES, hint="run `tidemill start`")
        password = secret_value(self._root, f"database-{name}")
        with postgres_tunnel(self._helper, _POSTGRES, name, password) as url:
            yield url

    def secrets(self) -> Mapping[str, str]:
        """See `OldEnds`."""
        return {name: value for name, value in secrets_in(self._root).items() if not name.startswith(_OWN_SECRETS)}

    def jobs(self) -> Mapping[str, str]:
        """See `OldEnds`."""
        return {name: digest for name, digest in jobs_in(self._root).items() if not name.startswith(_OWN_JOBS)}

    @cached_property
    def _volumes(self) -> dict[str, str]:
        """The stack's stores which are the containers' user's: name -> volume."""
        found = volumes_of(self._client, self._names.stack)
        stores = {(volume["Labels"] or {}).get(STORE): str(volume["Name"]) for volume in found}
        return {name: volume for name, volume in stores.items() if name and name != _POSTGRES}

    @cached_property
    def _helper(self) -> Helper:
        helper = Helper(
            self._client,
            self._image(),
            self._names.of("exporting"),
            self._names.labels(),
            # SQLite writes beside a database which it reads.
            volumes={f"{DATA}/{name}": volume for name, volume in self._volumes.items()},
            network=self._names.of("private"),
        )
        return self._open.enter_context(helper)

    def _image(self) -> str:
        """Return the image of one of the stack's containers which has Python."""
        labels = [f"{STACK}={self._names.stack}", f"{SERVICE}=mlflow"]
        with talking("containers"):
            found = self._client.api.containers(all=True, filters={"label": labels})
        if not found:
            raise NotFoundError("has no container", field="service", value="mlflow", hint="run `tidemill up`")
        return str(found[0]["ImageID"])
