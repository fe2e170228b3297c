"""Archives: contents are read back unchanged, and every change is detected."""

from __future__ import annotations

import functools
import io
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tidemill.components.targets.docker.settings import DockerSettings
from tidemill.components.targets.docker.target import DockerTarget
from tidemill.components.targets.local.store import FolderStore
from tidemill.components.targets.staged_import import staging_folder
from tidemill.runtime.common.errors import NotFoundError, PlatformError, RefusedError, UserError
from tidemill.runtime.retraining.retrainings import Retraining, RetrainingStore
from tidemill.stacks.moving.archive import open_archive
from tidemill.stacks.moving.encryption import ArchiveKeys
from tidemill.stacks.moving.manifest import FORMAT, Manifest
from tidemill.stacks.moving.retrainings import settled
from tidemill.stacks.moving.writer import ArchiveWriter, writer_of

from tests.support.moving import PASSPHRASE

SALT = "0f" * 16
ARCHIVE_KEYS = ArchiveKeys.derive(PASSPHRASE, SALT)
CONTENTS = {"lake/flights/objects/data/a b": b"hello" * 1000, "mlflow/runs.jsonl": b"[1]\n", "secrets.json": b"x"}
KINDS = ["archive.tar", "archive"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive the keys of each passphrase only once, because that is slow on purpose."""
    monkeypatch.setattr(ArchiveKeys, "derive", functools.cache(ArchiveKeys.derive))


def manifest(files: int, total: int, listed: str, form: int = FORMAT) -> Manifest:
    return Manifest(
        form=form,
        id="1",
        created=datetime(2026, 1, 2, tzinfo=UTC),
        stack="flights-dev",
        team="flights",
        target="local",
        models=[],
        versions={},
        salt=SALT,
        passphrase=ARCHIVE_KEYS.sign(SALT.encode()),
        repositories={},
        databases={},
        stores={},
        secrets=[],
        unresolved=[],
        files=files,
        bytes=total,
        list_sha256=listed,
    )


def written(path: Path, make: Callable[[int, int, str], Manifest] = manifest) -> Path:
    with writer_of(path) as writer:
        for name, data in CONTENTS.items():
            writer.add_bytes(name, data)
        writer.finish(make, ARCHIVE_KEYS)
    return path


def check(path: Path, passphrase: str = PASSPHRASE) -> None:
    with open_archive(path) as archive:
        found, _ = archive.manifest(passphrase)
        archive.verify(found)


@pytest.mark.parametrize("kind", KINDS)
def test_contents_are_read_back_unchanged(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path / kind)
    told: list[int] = []
    with open_archive(path) as archive:
        found, _ = archive.manifest(PASSPHRASE)
        archive.verify(found, told.append)
        assert {entry.name: archive.read(entry.name) for entry in archive.below("")} == CONTENTS
        assert [entry.name for entry in archive.below("lake/")] == ["lake/flights/objects/data/a b"]
    assert sum(told) == found.bytes == sum(map(len, CONTENTS.values()))
    assert list(tmp_path.iterdir()) == [path]
    modes = {item.stat().st_mode & 0o077 for item in (path, *path.rglob("*")) if item == path or item.is_file()}
    assert modes == {0}, "only the owner can read it"


def test_a_folder_with_a_changed_truncated_or_missing_file_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "archive")
    names = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
    assert len(names) == len(CONTENTS) + 3

    def flipped(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)

    def shorter(path: Path) -> None:
        os.truncate(path, path.stat().st_size - 1)

    def longer(path: Path) -> None:
        path.write_bytes(path.read_bytes() + b"\n")

    for name in names:
        for change in (flipped, shorter, longer, Path.unlink):
            copy = tmp_path / "copy"
            shutil.copytree(whole, copy)
            change(copy / name)
            if (name, change) == ("manifest.hmac", longer):
                check(copy)  # a trailing newline has no meaning
            else:
                with pytest.raises(RefusedError):
                    check(copy)
            shutil.rmtree(copy)


def test_a_change_of_any_meaningful_byte_of_a_tar_file_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "archive.tar")
    with tarfile.open(whole) as tar:
        members = tar.getmembers()
    copy = tmp_path / "copy.tar"
    for member in members:
        data = bytearray(whole.read_bytes())
        data[member.offset_data + member.size // 2] ^= 1
        copy.write_bytes(data)
        with pytest.raises(RefusedError):
            check(copy)
        copy.write_bytes(whole.read_bytes()[: member.offset_data + member.size // 2])
        with pytest.raises(RefusedError):
            check(copy)


def test_additional_files_are_refused(tmp_path: Path) -> None:
    folder = written(tmp_path / "archive")
    (folder / "files" / "more").write_text("x")
    with pytest.raises(RefusedError, match="files/more is not in the list of files"):
        check(folder)
    (folder / "files" / "more").unlink()
    (folder / "files" / "link").symlink_to("/etc/passwd")
    with pytest.raises(RefusedError, match="not a regular file"):
        check(folder)

    path = written(tmp_path / "archive.tar")
    for name, kind in (("files/more", tarfile.REGTYPE), ("files/link", tarfile.SYMTYPE), ("manifest.json", b"0")):
        copy = tmp_path / "copy.tar"
        shutil.copy(path, copy)
        with tarfile.open(copy, "a") as tar:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        with pytest.raises(RefusedError):
            check(copy)


def test_a_name_outside_the_folder_is_refused_despite_a_valid_signature(tmp_path: Path) -> None:
    class Sly(type(writer_of(tmp_path / "unused"))):  # type: ignore[misc]
        def add(self, name: str, source: io.BytesIO, size: int) -> None:  # type: ignore[override]
            entry = super().add("harmless", source, size)
            self._entries = {name: entry.model_copy(update={"name": name})}

    with Sly(tmp_path / "archive") as writer:
        writer.add("../outside", io.BytesIO(b"x"), 1)
        writer.finish(manifest, ARCHIVE_KEYS)
    with pytest.raises(RefusedError, match="not a valid name in an archive"):
        check(tmp_path / "archive")


def test_wrong_passphrase_and_newer_format_have_their_own_errors(tmp_path: Path) -> None:
    path = written(tmp_path / "archive.tar")
    with pytest.raises(RefusedError, match="wrong passphrase"):
        check(path, "correct horse battery stapler")
    with pytest.raises(UserError, match="shorter than 12"):
        check(path, "short")
    later = written(tmp_path / "later", lambda *facts: manifest(*facts, form=FORMAT + 1))
    with pytest.raises(RefusedError, match=f"has format {FORMAT + 1}; this tidemill supports up to {FORMAT}"):
        check(later)


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file or folder"):
        open_archive(tmp_path / "none")
    (tmp_path / "text.tar").write_text("not a tar file" * 100)
    with pytest.raises(RefusedError, match="not a tar file"):
        open_archive(tmp_path / "text.tar")
    with pytest.raises(RefusedError, match="not an archive of tidemill"):
        check(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_export_leaves_nothing_and_an_existing_archive_is_kept(tmp_path: Path, kind: str) -> None:
    def fail(writer: ArchiveWriter) -> None:
        writer.add_bytes("a", b"a")
        raise PlatformError("no")

    with pytest.raises(PlatformError), writer_of(tmp_path / kind) as writer:
        fail(writer)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EOFError), writer_of(tmp_path / kind) as writer:
        writer.add("a", io.BytesIO(b"short"), 100)
    assert list(tmp_path.iterdir()) == []
    written(tmp_path / kind)
    with pytest.raises(UserError, match="already exists"):
        written(tmp_path / kind)
    check(tmp_path / kind)


def test_an_export_removes_leftovers_of_a_killed_one(tmp_path: Path) -> None:
    left = tmp_path / ".archive.partial"
    left.mkdir()
    (left / "half").write_text("x")
    check(written(tmp_path / "archive"))
    assert not left.exists()


def test_a_file_changed_between_verification_and_use_is_detected(tmp_path: Path) -> None:
    path = written(tmp_path / "archive")
    with open_archive(path) as archive:
        found, _ = archive.manifest(PASSPHRASE)
        archive.verify(found)
        file = path / "files/mlflow/runs.jsonl"
        file.write_bytes(b"[2]\n")
        with pytest.raises(RefusedError, match="changed during the import"):
            archive.read("mlflow/runs.jsonl")
        os.truncate(file, 1)
        with pytest.raises(RefusedError, match="truncated during the import"):
            archive.read("mlflow/runs.jsonl")


def test_encrypted_data_reveals_nothing_and_is_bound_to_its_name() -> None:
    closed = ARCHIVE_KEYS.encrypt("secrets.json", b"very secret")
    assert b"secret" not in closed
    assert closed != ARCHIVE_KEYS.encrypt("secrets.json", b"very secret"), "equal contents have different ciphertexts"
    assert ARCHIVE_KEYS.decrypt("secrets.json", closed) == b"very secret"
    for keys, name, data in (
        (ARCHIVE_KEYS, "other.json", closed),
        (ARCHIVE_KEYS, "secrets.json", closed[:-1]),
        (ARCHIVE_KEYS, "secrets.json", b""),
        (ArchiveKeys.derive(PASSPHRASE, "00" * 16), "secrets.json", closed),
    ):
        with pytest.raises(RefusedError, match="cannot be decrypted"):
            keys.decrypt(name, data)


def test_a_folder_store_reads_database_snapshots_and_writes_complete_files(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("a/b", io.BytesIO(b"12345"), 5)
    with closing(sqlite3.connect(tmp_path / "retrainings.db", isolation_level=None)) as database:
        database.execute("pragma journal_mode = wal")
        database.execute("create table t (x)")
        database.execute("insert into t values (1)")
        assert (tmp_path / "retrainings.db-wal").exists()
        assert list(store.names()) == ["retrainings.db", "a/b"], "the journal is part of the database"
        with store.open("retrainings.db") as (source, size):
            database.execute("insert into t values (2)")
            copy = tmp_path / "copy"
            copy.write_bytes(source.read())
            assert copy.stat().st_size == size
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("select x from t").fetchall() == [(1,)]
    with pytest.raises(PlatformError, match="ended before its size was reached"):
        store.write("half", io.BytesIO(b"1"), 2)
    assert store.sha256("half") is None
    assert store.sha256("a/b") == "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    with pytest.raises(NotFoundError), store.open("gone"):
        pass


def test_an_open_retraining_does_not_stay_open_at_another_place(tmp_path: Path) -> None:
    path = tmp_path / "retrainings.db"
    facts = {"model": "flights", "reason": "drift", "why": "", "what": "", "queued_at": datetime.now(UTC)}
    with closing(RetrainingStore(path)) as store:
        assert store.add(Retraining(id="1", state="done", finished_at=datetime.now(UTC), **facts))
        assert store.add(Retraining(id="2", state="running", job="job", **facts))
    with FolderStore(tmp_path).open("retrainings.db") as (source, _), settled(source) as (changed, size):
        moved = tmp_path / "moved.db"
        moved.write_bytes(changed.read())
        assert moved.stat().st_size == size
    with closing(RetrainingStore(moved)) as store:
        assert store.open_retrainings() == []
        newest, oldest = store.newest()
    assert (newest.state, newest.job, oldest.state) == ("failed", "job", "done")
    assert "moved while this retraining was open" in newest.detail


def test_containers_do_not_use_the_volumes_of_an_unfinished_import(tmp_path: Path) -> None:
    root = tmp_path / "stacks" / "flights-dev"
    staging_folder(root).mkdir(parents=True)
    with pytest.raises(RefusedError, match="flights-dev: an import into this stack was interrupted"):
        DockerTarget("flights", "dev", root=root, project=tmp_path, settings=DockerSettings())
    staging_folder(root).rmdir()
    assert DockerTarget("flights", "dev", root=root, project=tmp_path, settings=DockerSettings()).name == "docker"
