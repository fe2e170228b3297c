"""Contents of a stack for tests: the folders of real servers behind the interface of a stack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.components.layout import StackRoot
from tidemill.components.targets.local.migration import LocalDestination, LocalSource
from tidemill.components.targets.local.store import FolderStore, sqlite_copy
from tidemill.components.targets.migration import LakeServer
from tidemill.stacks.moving.export import Subject

from tests.support.servers import Server

PASSPHRASE = "correct horse battery staple"
KEYS = {"access-key-id": "key-id", "secret-access-key": "secret"}
SUBJECT = Subject("flights-dev", "flights", "local", ("flights",))


@dataclass
class ServerSource(LocalSource):
    """The source of a stack whose lake is a server of a test, and whose other things lie in `folder`.

    Attributes:
        lakefs: the lake.
        urls: databases, by SQLAlchemy URL; one of SQLite's is read as the target `local` reads it.
        folder: `stores/NAME`, and the secrets.
    """

    lakefs: Server
    urls: dict[str, str]
    folder: Path
    kept: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def lake(self) -> Generator[LakeServer]:
        yield LakeServer(self.lakefs.url, *self.lakefs.auth)

    def objects(self, namespace: str) -> FolderStore:
        return FolderStore(self.lakefs.folder / "objects" / namespace.removeprefix("local://"))

    def relative(self, namespace: str, address: str) -> str | None:
        path = Path(address.removeprefix("local://"))
        folder = self.lakefs.folder / "objects" / namespace.removeprefix("local://")
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else None

    def store(self, name: str) -> FolderStore | None:
        folder = self.folder / "stores" / name
        return FolderStore(folder) if folder.is_dir() else None

    @contextmanager
    def database(self, name: str) -> Generator[str]:
        url = self.urls[name]
        if not url.startswith("sqlite:///"):
            yield url
            return
        with sqlite_copy(Path(url.removeprefix("sqlite:///"))) as copy:
            yield f"sqlite:///{copy}"

    def secrets(self) -> Mapping[str, str]:
        return self.kept

    def jobs(self) -> Mapping[str, str]:
        return {"seed-flights": "0" * 64}


class DatabaseDestination(LocalDestination):
    """A destination whose databases are elsewhere: MLflow's, and under the name `lakefs` lakeFS's key-value store."""

    def __init__(self, root: StackRoot, urls: Mapping[str, str]) -> None:
        super().__init__(root)
        self._urls = urls

    def database(self, name: str) -> str:
        return self._urls[name]

    def load_lake(self, dump: Path) -> None:
        if "lakefs" in self._urls:
            # Only with its embedded store, lakeFS creates the user of its installation keys itself.
            keys = [f"--{kind}={(self._root.secrets / f'lakefs-{name}').read_text()}" for kind, name in KEYS.items()]
            argv = [*self._lakefs(), "setup", "--user-name=tidemill", *keys]
            subprocess.run(argv, env=self._lake_env(0), cwd=self._staging, check=True, capture_output=True)
        super().load_lake(dump)

    def _lake_env(self, port: int) -> dict[str, str]:
        if "lakefs" not in self._urls:
            return super()._lake_env(port)
        url = self._urls["lakefs"].replace("+psycopg2", "")
        changed = {"LAKEFS_DATABASE_TYPE": "postgres", "LAKEFS_DATABASE_POSTGRES_CONNECTION_STRING": url}
        return super()._lake_env(port) | changed


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def manifest_of(folder: Path) -> dict[str, object]:
    """Return the manifest of a folder archive."""
    return json.loads((folder / "manifest.json").read_text())
