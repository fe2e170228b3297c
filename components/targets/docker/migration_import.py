"""Where the contents of a stack in containers are written before the stack is there. Imports no Pulumi."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from ....runtime.common.errors import NotFoundError
from ...layout import StackRoot
from ...provider.content.lakefs import set_up
from ...provider.content.rest import Rest
from ...provider.docker.daemon import STACK, connect, talking
from ...provider.local.files import secret_value
from ...provider.secret_formats import FORMATS
from ..migration import LakeServer
from ..staged_import import Attempt
from .daemon import remove_container, remove_network, remove_volume, store_volume, volumes_of
from .naming import DATA, USER, Names
from .scratch_container import Helper
from .servers import LAKE, OBJECTS, POSTGRES, STOP_SECONDS, Servers, image_of
from .settings import DockerSettings
from .volumes import VolumeStore

__all__ = ["DockerNewEnds"]

_SCHEME = "local://"


class DockerNewEnds(Attempt):
    """A stack which is not there yet; see `NewEnds`. Used with `with`.

    Volumes get the names which `up` looks for; what opens them lies in a folder beside the stack's, which at the end
    becomes the stack's. Until then the target refuses to bring the stack up.

    Args:
        names: the stack's.
        root: where its folder will be.
        settings: the block `docker` of its config.
    """

    def __init__(self, names: Names, root: StackRoot, settings: DockerSettings) -> None:
        super().__init__(root)
        self._names = names
        self._settings = settings
        self._client = connect(settings.host)
        self._servers = Servers(self._client, names, settings, self._secret)
        self._open = ExitStack()
        self._helpers: dict[str, Helper] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def obstacle(self) -> str | None:
        """See `NewEnds`."""
        if self._final.path.exists():
            return f"{self._final.path} exists"
        if self._attempt.exists():
            return None  # what there is, an earlier attempt made
        found = volumes_of(self._client, self._names.stack)
        return f"the volume {found[0]['Name']} exists" if found else None

    def lake_version(self) -> str | None:
        """See `NewEnds`."""
        tag = image_of(self._settings, LAKE).partition("@")[0].rpartition(":")[2]
        found = re.search(r"\d+\.\d+(\.\d+)?", tag)
        return found[0] if found else None

    def begin(self, archive: str) -> bool:
        """See `NewEnds`."""
        again = self.go_on_with(archive)
        self._remove_own()
        for volume in volumes_of(self._client, self._names.stack):
            if not again or volume["Name"] == self._names.of(POSTGRES):
                remove_volume(self._client, str(volume["Name"]))
        return again

    def place(self) -> str:
        """See `NewEnds`."""
        return f"{self._attempt} and what `docker volume ls --filter label={STACK}={self._names.stack}` lists"

    def store(self, name: str) -> VolumeStore:
        """See `NewEnds`."""
        return VolumeStore(self._helper(name), f"{DATA}/{name}")

    def namespace(self, repository: str) -> str:
        """See `NewEnds`."""
        return f"{_SCHEME}{repository}"

    def objects(self, repository: str) -> VolumeStore:
        """See `NewEnds`."""
        return VolumeStore(self._helper(OBJECTS), f"{DATA}/{OBJECTS}/{repository}")

    def database(self, name: str) -> str:
        """See `NewEnds`."""
        self._servers.make_database(name)
        return self._servers.database(name)

    def load_lake(self, dump: Path) -> None:
        """See `NewEnds`."""
        self._servers.make_database(LAKE)
        self._servers.start_lakefs(dump.read_bytes())
        with self.lake() as server:
            set_up(Rest("lakeFS", f"{server.url}/api/v1", server.key_id, server.secret))
        self._servers.load_lakefs()

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        """See `NewEnds`."""
        key_id, secret = (secret_value(self._root, f"lakefs-{name}") for name in ("key-id", "secret"))
        yield LakeServer(self._servers.lakefs_url(), key_id, secret)

    def finish(self) -> None:
        """See `NewEnds`. The servers end in peace before their volumes are anybody's."""
        self._close()
        super().finish()

    def _close(self) -> None:
        with self._open:
            self._servers.close()

    def _helper(self, name: str) -> Helper:
        """Return a container which has the volume of the store `name`."""
        if name not in self._helpers:
            volume = store_volume(self._client, self._names, name, USER)
            helper = Helper(
                self._client,
                self._settings.base_image,
                self._servers.own(f"store-{name}"),
                self._names.labels(),
                volumes={f"{DATA}/{name}": volume},
            )
            self._helpers[name] = self._open.enter_context(helper)
        return self._helpers[name]

    def _secret(self, name: str) -> str:
        """Return a secret, made where the archive has none of that name."""
        try:
            return secret_value(self._root, name)
        except NotFoundError:
            self.secret(name, FORMATS["token"]())
            return secret_value(self._root, name)

    def _remove_own(self) -> None:
        """Remove what a killed import left, but for the stack's volumes."""
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
