"""Writes the contents of a stack on docker before the stack exists. Imports no Pulumi."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ....runtime.common.errors import NotFoundError
from ...images.container_layout import DATA, USER
from ...layout import StackRoot
from ...provider.content.lakefs import set_up
from ...provider.content.rest import Rest
from ...provider.docker.daemon import STACK, connect, talking
from ...provider.local.files import secret_value
from ...provider.secret_formats import FORMATS
from ..migration import LakeServer
from ..staged_import import StagedImport, lake_server
from .daemon import remove_container, remove_network, remove_volume, store_volume, volumes_of
from .naming import Names
from .scratch_container import ScratchContainer
from .servers import LAKE, OBJECTS, POSTGRES, STOP_SECONDS, Servers, image_of
from .settings import DockerSettings
from .volumes import VolumeStore

_SCHEME = "local://"


class DockerDestination(StagedImport):
    """A stack that does not exist yet; see `MigrationDestination`. Use it with `with`.

    Volumes get the names that `up` expects. Secrets and jobs are written into a folder beside the stack's, which at the
    end becomes the stack's. Until then the target refuses `up`.

    Args:
        names: names of the stack in Docker.
        root: the folder that the stack will have.
        settings: the block `docker` of its config.
    """

    def __init__(self, names: Names, root: StackRoot, settings: DockerSettings) -> None:
        super().__init__(root)
        self._names = names
        self._settings = settings
        self._client = connect(settings.host)
        self._servers = Servers(self._client, names, settings, self._secret)
        self._open = ExitStack()
        self._containers: dict[str, ScratchContainer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def obstacle(self) -> str | None:
        """See `MigrationDestination`."""
        if self._final.path.exists():
            return f"{self._final.path} exists"
        if self._staging.exists():
            return None  # an earlier attempt created the volumes
        found = volumes_of(self._client, self._names.stack)
        return f"the volume {found[0]['Name']} exists" if found else None

    def lake_version(self) -> str | None:
        """See `MigrationDestination`."""
        tag = image_of(self._settings, LAKE).partition("@")[0].rpartition(":")[2]
        found = re.search(r"\d+\.\d+(\.\d+)?", tag)
        return found[0] if found else None

    def begin(self, archive: str) -> bool:
        """See `MigrationDestination`."""
        resumed = self.resume_or_begin(archive)
        self._remove_own()
        for volume in volumes_of(self._client, self._names.stack):
            if not resumed or volume["Name"] == self._names.of(POSTGRES):
                remove_volume(self._client, str(volume["Name"]))
        return resumed

    def place(self) -> str:
        """See `MigrationDestination`."""
        return f"{self._staging} and what `docker volume ls --filter label={STACK}={self._names.stack}` lists"

    def store(self, name: str) -> VolumeStore:
        """See `MigrationDestination`."""
        return VolumeStore(self._container(name), f"{DATA}/{name}")

    def namespace(self, repository: str) -> str:
        """See `MigrationDestination`."""
        return f"{_SCHEME}{repository}"

    def objects(self, repository: str) -> VolumeStore:
        """See `MigrationDestination`."""
        return VolumeStore(self._container(OBJECTS), f"{DATA}/{OBJECTS}/{repository}")

    def database(self, name: str) -> str:
        """See `MigrationDestination`."""
        self._servers.make_database(name)
        return self._servers.database(name)

    def load_lake(self, dump: Path) -> None:
        """See `MigrationDestination`."""
        self._servers.make_database(LAKE)
        self._servers.start_lakefs(dump.read_bytes())
        with self.lake() as server:
            set_up(Rest("lakeFS", f"{server.url}/api/v1", server.key_id, server.secret))
        self._servers.load_lakefs()

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        """See `MigrationDestination`."""
        yield lake_server(self._servers.lakefs_url(), self._root)

    def finish(self) -> None:
        """See `MigrationDestination`. The servers stop gracefully before the stack can use their volumes."""
        self._close()
        super().finish()

    def _close(self) -> None:
        with self._open:
            self._servers.close()

    def _container(self, name: str) -> ScratchContainer:
        """Return a container with the volume of the store `name`."""
        if name not in self._containers:
            volume = store_volume(self._client, self._names, name, USER)
            container = ScratchContainer(
                self._client,
                self._settings.base_image,
                self._servers.own(f"store-{name}"),
                self._names.labels(),
                volumes={f"{DATA}/{name}": volume},
            )
            self._containers[name] = self._open.enter_context(container)
        return self._containers[name]

    def _secret(self, name: str) -> str:
        """Return the value of a secret; generate it if the archive has none of that name."""
        try:
            return secret_value(self._root, name)
        except NotFoundError:
            self.secret(name, FORMATS["token"]())
            return secret_value(self._root, name)

    def _remove_own(self) -> None:
        """Remove what a killed import left, except the stack's volumes."""
        prefix = self._servers.own("")
        with talking("containers"):
            containers = self._client.api.containers(all=True, filters={"label": f"{STACK}={self._names.stack}"})
        for name in (str(each["Names"][0]).lstrip("/") for each in containers):
            if name.startswith(prefix):
                remove_container(self._client, name, grace=STOP_SECONDS if name == self._servers.own(POSTGRES) else 0)
        remove_network(self._client, self._servers.own("network"))
        for volume in volumes_of(self._client, self._names.stack):
            if volume["Name"].startswith(prefix):
                remove_volume(self._client, str(volume["Name"]))
