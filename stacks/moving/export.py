"""Exports the contents of a running stack into an archive."""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import BinaryIO, cast

from ...components.targets.migration import MigrationSource, Store
from ...runtime.common.errors import NotFoundError, PlatformError, RefusedError
from ...runtime.common.ids import uuid7
from ...runtime.common.tags import LAKE_COMMIT, LAKE_REPOSITORY
from .contents import (
    DATABASES,
    JOBS,
    PRIVATE,
    SECRETS,
    Progress,
    Step,
    commits_file,
    objects_prefix,
    runs_file,
    store_prefix,
    stores_of,
    table_file,
)
from .database import SourceDatabase, source_database
from .encryption import ArchiveKeys
from .lake import LakeClient, Snapshot
from .manifest import FORMAT, Database, Manifest, Repository, StoreCount
from .schema import TRACKING
from .writer import ArchiveWriter, writer_of


@dataclass(frozen=True)
class Subject:
    """The stack that is exported or imported: its name, team, target and the names of its models."""

    stack: str
    team: str
    target: str
    models: tuple[str, ...]


@dataclass
class _Export:
    """One running export."""

    source: MigrationSource
    subject: Subject
    writer: ArchiveWriter
    keys: ArchiveKeys
    progress: Progress
    stores: dict[str, StoreCount] = field(default_factory=dict[str, StoreCount])
    databases: dict[str, Database] = field(default_factory=dict[str, Database])
    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    pins: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    unresolved: list[str] = field(default_factory=list[str])

    def copy_store(self, name: str, *, encrypted: bool = False) -> None:
        """Copy an object store if the stack has it."""
        store = self.source.store(name)
        if store is None:
            return
        self.progress(Step(f"store {name}"))
        self.stores[name] = self._copy(store, store_prefix(name), encrypted=encrypted, ignore_missing=True)

    def copy_database(self, name: str) -> None:
        """Copy the rows of a database."""
        self.progress(Step(f"database {name}"))
        with self.source.database(name) as url, source_database(url, name) as database:
            tables = {table: database.digest(table) for table in database.tables()}
            kept = {table: found for table, found in tables.items() if found.rows}
            for table in kept:
                self._add_lines(table_file(name, table), database.lines(table), encrypted=name in PRIVATE)
            self.databases[name] = Database(revision=database.revision, tables=kept)
            if name == TRACKING:
                self._pin(database)

    def copy_lake(self) -> str:
        """Copy all repositories; return the version of lakeFS."""
        with self.source.lake() as server:
            lake = LakeClient(server)
            names = lake.repositories()
            self.unresolved += [
                f"{name}@{commit}" for name in set(self.pins) - set(names) for commit in sorted(self.pins[name])
            ]
            for name in names:
                self._copy_repository(lake, name)
            return lake.version()

    def copy_secrets(self) -> list[str]:
        """Write the encrypted secrets and the hashes of finished jobs; return the names of the secrets."""
        secrets = dict(self.source.secrets())
        text = json.dumps(secrets).encode()
        self.writer.add_bytes(SECRETS, self.keys.encrypt(SECRETS, text))
        self.writer.add_bytes(JOBS, json.dumps(dict(self.source.jobs())).encode())
        return sorted(secrets)

    def _pin(self, database: SourceDatabase) -> None:
        for tags in database.tags([LAKE_REPOSITORY, LAKE_COMMIT]).values():
            repository, commit = tags.get(LAKE_REPOSITORY), tags.get(LAKE_COMMIT)
            if repository and commit and "none" not in (repository, commit):
                self.pins.setdefault(repository, set()).add(commit)

    def _copy_repository(self, lake: LakeClient, name: str) -> None:
        self.progress(Step(f"repository {name}"))
        pins = self.pins.get(name, set())
        left_out = list(lake.uncommitted(name))
        snapshot = lake.snapshot(name, pins)
        self.unresolved += [f"{name}@{commit}" for commit in sorted(pins - set(snapshot.pinned))]
        runs = [run.model_dump_json() + "\n" for run in lake.runs(name)]
        self._add_lines(runs_file(name), (line.encode() for line in runs))
        commits = "".join(f"{commit}\n" for commit in sorted(snapshot.commits))
        self.writer.add_bytes(commits_file(name), commits.encode())
        objects = self._copy(self.source.objects(snapshot.namespace), objects_prefix(name))
        self._require_objects(lake, snapshot)
        self.repositories[name] = Repository(
            default_branch=snapshot.default_branch,
            branches=dict(snapshot.branches),
            tags=dict(snapshot.tags),
            commits=len(snapshot.commits),
            pinned=list(snapshot.pinned),
            runs=len(runs),
            left_out=left_out,
            metadata=dict(snapshot.metadata),
            protected=[dict(rule) for rule in snapshot.protected],
            commits_range=snapshot.refs.commits,
            branches_range=snapshot.refs.branches,
            tags_range=snapshot.refs.tags,
            objects=objects,
        )

    def _require_objects(self, lake: LakeClient, snapshot: Snapshot) -> None:
        """Check that the archive has all objects of the branches, the tags and the pinned commits.

        Raises:
            RefusedError: an object was imported into the lake without a copy.
            PlatformError: an object is missing, or has the wrong size.
        """
        prefix = objects_prefix(snapshot.name)
        for commit in {*snapshot.branches.values(), *snapshot.tags.values(), *snapshot.pinned}:
            for path, address, size in lake.addresses(snapshot.name, commit):
                relative = self.source.relative(snapshot.namespace, address)
                field = f"{snapshot.name}/{commit[:12]}/{path}"
                if relative is None:
                    raise RefusedError(
                        "the object is outside the lake's own store: it was imported without a copy",
                        field=field,
                        value=address,
                        hint="upload a copy, commit it, and delete the imported object",
                    )
                if prefix + relative not in self.writer or self.writer.size(prefix + relative) != size:
                    raise PlatformError("the object is missing in the lake's store, or has another size", field=field)

    def _copy(self, store: Store, prefix: str, *, encrypted: bool = False, ignore_missing: bool = False) -> StoreCount:
        files = total = 0
        for name in store.names():
            try:
                with store.open(name) as (source, size):
                    self._add(prefix + name, source, size, encrypted=encrypted)
            except NotFoundError:
                if not ignore_missing:
                    raise
                continue  # retention deleted it, or a server replaced it
            files += 1
            total += size
        return StoreCount(files=files, bytes=total)

    def _add(self, name: str, source: BinaryIO, size: int, *, encrypted: bool) -> None:
        try:
            if encrypted:
                self.writer.add_bytes(name, self.keys.encrypt(name, source.read(size)))
            else:
                self.writer.add(name, source, size)
        except EOFError:
            raise PlatformError("the file was truncated during the export", field=name) from None

    def _add_lines(self, name: str, lines: Iterable[bytes], *, encrypted: bool = False) -> None:
        with tempfile.TemporaryFile() as file:
            file.writelines(lines)
            size = file.tell()
            file.seek(0)
            self._add(name, cast("BinaryIO", file), size, encrypted=encrypted)


def export(
    source: MigrationSource, subject: Subject, path: Path, passphrase: str, progress: Progress = lambda _: None
) -> Manifest:
    """Write the contents of a stack into an archive at `path`: a tar file if it source in `.tar`, else a folder.

    References are read before what they refer to: traffic and retraining before MLflow, MLflow before the lake.

    Args:
        source: where the contents are.
        subject: the stack.
        path: the new archive, which appears complete or not at all.
        passphrase: encrypts the secrets and signs the archive.
        progress: receives the progress.

    Raises:
        UserError: `path` exists, or the passphrase is too short.
        UnreachableError: the lake does not run.
        RefusedError, PlatformError: some contents cannot be exported; no archive is written.
    """
    salt = ArchiveKeys.new_salt()
    keys = ArchiveKeys.derive(passphrase, salt)
    done = 0
    what = ""

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(Step(what, done))

    def begin(step: Step) -> None:
        nonlocal what
        what = step.what
        progress(Step(what, done))

    with writer_of(path, count) as writer:
        run = _Export(source, subject, writer, keys, begin)
        for name, encrypted in stores_of(subject.models):
            run.copy_store(name, encrypted=encrypted)
        for name in DATABASES:
            run.copy_database(name)
        run.copy_store("mlflow-artifacts")
        lakefs = run.copy_lake()
        secrets = run.copy_secrets()

        def manifest(files: int, total: int, listed: str) -> Manifest:
            return Manifest(
                form=FORMAT,
                id=str(uuid7()),
                created=datetime.now(UTC),
                stack=subject.stack,
                team=subject.team,
                target=subject.target,
                models=list(subject.models),
                versions={**_versions(), "lakefs": lakefs},
                salt=salt,
                passphrase=keys.sign(salt.encode()),
                repositories=run.repositories,
                databases=run.databases,
                stores=run.stores,
                secrets=secrets,
                unresolved=sorted(set(run.unresolved)),
                files=files,
                bytes=total,
                list_sha256=listed,
            )

        return writer.finish(manifest, keys)


def _versions() -> dict[str, str]:
    return {
        "tidemill": metadata.version("tidemill"),
        "mlflow": metadata.version("mlflow-skinny"),
        "python": platform.python_version(),
    }
