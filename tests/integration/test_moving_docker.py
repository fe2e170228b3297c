"""Docker volumes as exported stores, and interrupted imports, with a real daemon."""

from __future__ import annotations

import hashlib
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tidemill.components.images.container_layout import USER
from tidemill.components.layout import StackRoot
from tidemill.components.provider.docker.daemon import connect
from tidemill.components.targets.docker.daemon import remove_volume, store_volume, volumes_of
from tidemill.components.targets.docker.migration_import import DockerDestination
from tidemill.components.targets.docker.naming import Names
from tidemill.components.targets.docker.scratch_container import ScratchContainer
from tidemill.components.targets.docker.settings import DockerSettings
from tidemill.components.targets.docker.volumes import VolumeStore
from tidemill.runtime.common.errors import NotFoundError, PlatformError, RefusedError

from tests.support.docker import Docker, base_image, docker_daemon

pytestmark = [pytest.mark.integration, pytest.mark.slow]

NAMES = Names("quay", "moving")
IMAGE = "python:3.11-slim-bookworm"


@pytest.fixture(scope="module")
def daemon() -> Iterator[Docker]:
    with docker_daemon() as docker:
        yield docker


@pytest.fixture(scope="module")
def settings(daemon: Docker) -> Iterator[DockerSettings]:
    found = DockerSettings(host=daemon.environ.get("DOCKER_HOST"), base_image=base_image(daemon) or IMAGE)
    yield found
    client = connect(found.host)
    for volume in volumes_of(client, NAMES.stack):
        remove_volume(client, str(volume["Name"]))
    client.close()
    connect.cache_clear()


@pytest.fixture
def container(settings: DockerSettings) -> Iterator[ScratchContainer]:
    """A container with the empty volume of the store `x`."""
    client = connect(settings.host)
    remove_volume(client, NAMES.of("x"))
    volume = store_volume(client, NAMES, "x", USER)
    assert store_volume(client, NAMES, "x", USER) == volume, "it already exists"
    with ScratchContainer(
        client, settings.base_image, NAMES.of("helper"), NAMES.labels(), volumes={"/data/x": volume}
    ) as running:
        yield running
    assert not client.containers.list(all=True, filters={"name": NAMES.of("helper")})


def test_a_volume_returns_what_was_written(container: ScratchContainer) -> None:
    store = VolumeStore(container, "/data/x")
    big = bytes(range(256)) * 20_000
    files = {"a b/ü\n.txt": b"12345", "big": big, "empty": b"", "a b/c": b"c"}
    for name, content in files.items():
        store.write(name, io.BytesIO(content), len(content))
    assert list(store.names()) == ["big", "empty", "a b/c", "a b/ü\n.txt"]
    for name, content in files.items():
        with store.open(name) as (source, size):
            assert size == len(content)
            assert source.read() == content
        assert store.sha256(name) == hashlib.sha256(content).hexdigest()
    with store.open("big") as (source, _):
        source.read(10)  # the rest must not appear in the next answer
    assert store.sha256("none") is store.sha256("a b") is None
    with pytest.raises(NotFoundError), store.open("gone"):
        pass
    with pytest.raises(PlatformError, match="ended before its size was reached"):
        store.write("half", io.BytesIO(b"1"), 2)
    assert store.sha256("half") is None
    assert list(VolumeStore(container, "/data/x/a b").names()) == ["c", "ü\n.txt"]
    assert list(VolumeStore(container, "/data/none").names()) == []


def test_a_database_in_a_volume_is_read_as_a_snapshot(container: ScratchContainer, tmp_path: Path) -> None:
    store = VolumeStore(container, "/data/x")
    made = tmp_path / "retrainings.db"
    with closing(sqlite3.connect(made, isolation_level=None)) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("create table t (x)")
        database.execute("insert into t values (1)")
        for path in (made, made.with_name("retrainings.db-wal")):
            store.write(path.name, io.BytesIO(path.read_bytes()), path.stat().st_size)
    assert list(store.names()) == ["retrainings.db"], "the journal is part of the database"
    copy = tmp_path / "copy.db"
    with store.open("retrainings.db") as (source, size):
        copy.write_bytes(source.read())
    assert copy.stat().st_size == size
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("select x from t").fetchall() == [(1,)], "rows that were only in the journal moved too"


def test_volumes_without_an_owner_or_of_other_stacks_are_not_used(settings: DockerSettings, tmp_path: Path) -> None:
    client = connect(settings.host)
    root = StackRoot(tmp_path / "stacks" / NAMES.stack)
    volume = NAMES.of("monitor")
    client.api.create_volume(name=volume, labels={"tidemill.stack": "other-dev"})
    try:
        with DockerDestination(NAMES, root, settings) as destination:
            destination.begin("one")
            with pytest.raises(RefusedError, match="belongs to the stack 'other-dev'"):
                destination.store("monitor")
    finally:
        remove_volume(client, volume)


def test_an_interrupted_import_continues_and_another_archive_starts_again(
    settings: DockerSettings, tmp_path: Path
) -> None:
    client = connect(settings.host)
    for volume in volumes_of(client, NAMES.stack):
        remove_volume(client, str(volume["Name"]))
    root = StackRoot(tmp_path / "stacks" / NAMES.stack)
    with DockerDestination(NAMES, root, settings) as destination:
        assert destination.obstacle() is None
        assert destination.begin("one") is False
        destination.store("x").write("a", io.BytesIO(b"a"), 1)
        left = client.containers.list(filters={"label": f"tidemill.stack={NAMES.stack}"})
        assert [container.name for container in left] == [NAMES.of("importing-store-x")]
        assert not root.path.exists()
    assert not client.containers.list(all=True, filters={"label": f"tidemill.stack={NAMES.stack}"})
    # A killed import would leave its container.
    client.containers.create(settings.base_image, name=NAMES.of("importing-store-x"), labels=NAMES.labels())
    with DockerDestination(NAMES, root, settings) as destination:
        assert destination.obstacle() is None
        assert str(root.path.with_name(f".{NAMES.stack}.importing")) in destination.place()
        assert destination.begin("one") is True
        assert destination.store("x").sha256("a") == hashlib.sha256(b"a").hexdigest()
    with DockerDestination(NAMES, root, settings) as destination:
        assert destination.begin("two") is False
        assert not volumes_of(client, NAMES.stack)
        destination.store("x").write("b", io.BytesIO(b"b"), 1)
        destination.secret("token", "a secret")
        destination.finish()
    assert (root.secrets / "token").read_text() == "a secret"
    assert [path.name for path in root.path.parent.iterdir()] == [NAMES.stack]
    assert DockerDestination(NAMES, root, settings).obstacle() == f"{root.path} exists"
    other = StackRoot(tmp_path / "elsewhere" / NAMES.stack)
    assert DockerDestination(NAMES, other, settings).obstacle() == f"the volume {NAMES.of('x')} exists"
