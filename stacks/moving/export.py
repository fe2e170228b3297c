"""Writes the contents of a stack which is up into an archive."""

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
    Step,
    Tell,
    commits_file,
    objects_prefix,
    runs_file,
    store_prefix,
    stores_of,
    table_file,
)
from .database import OldDatabase, old_database
from .lake import LakeClient, Snapshot
from .manifest import FORMAT, Database, Manifest, Repository, StoreCount
from .schema import TRACKING
from .sealing import Seal
from .writer import ArchiveWriter, writer_of

__all__ = ["Subject", "export"]


@dataclass(frozen=True)
class Subject:
    """The stack whose contents move.

    Attributes:
        stack: TEAM-ENVIRONMENT.
        team: its team.
        target: its target.
        models: names of its models.
    """

    stack: str
    team: str
    target: str
    models: tuple[str, ...]


@dataclass
class _Run:
    """One export at work."""

    source: MigrationSource
    subject: Subject
    writer: ArchiveWriter
    seal: Seal
    tell: Tell
    stores: dict[str, StoreCount] = field(default_factory=dict[str, StoreCount])
    databases: dict[str, Database] = field(default_factory=dict[str, Database])
    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    pins: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    unresolved: list[str] = field(default_factory=list[str])

    def copy_store(self, name: str, *, sealed: bool) -> None:
        """Copy an object store, as far as the stack has it."""
        store = self.source.store(name)
        if store is None:
            return
        self.tell(Step(f"store {name}"))
        self.stores[name] = self._copy(store, store_prefix(name), sealed=sealed, vanishing=True)

    def copy_database(self, name: str) -> None:
        """Write the rows of a database."""
        self.tell(Step(f"database {name}"))
        with self.source.database(name) as url, old_database(url, name) as database:
            tables = {table: database.digest(table) for table in database.tables()}
            kept = {table: found for table, found in tables.items() if found.rows}
            for table in kept:
                self._add_lines(table_file(name, table), database.lines(table), sealed=name in PRIVATE)
            self.databases[name] = Database(revision=database.revision, tables=kept)
            if name == TRACKING:
                self._pin(database)

    def copy_lake(self) -> str:
        """Copy every repository; return lakeFS's version."""
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
        """Write the secrets, encrypted, and the notes of what ran; return the secrets' names."""
        secrets = dict(self.source.secrets())
        text = json.dumps(secrets).encode()
        self.writer.add_bytes(SECRETS, self.seal.close(SECRETS, text))
        self.writer.add_bytes(JOBS, json.dumps(dict(self.source.jobs())).encode())
        return sorted(secrets)

    def _pin(self, database: OldDatabase) -> None:
        for tags in database.tags([LAKE_REPOSITORY, LAKE_COMMIT]).values():
            repository, commit = tags.get(LAKE_REPOSITORY), tags.get(LAKE_COMMIT)
            if repository and commit and "none" not in (repository, commit):
                self.pins.setdefault(repository, set()).add(commit)

    def _copy_repository(self, lake: LakeClient, name: str) -> None:
        self.tell(Step(f"repository {name}"))
        pins = self.pins.get(name, set())
        left_out = list(lake.uncommitted(name))
        snapshot = lake.snapshot(name, pins)
        self.unresolved += [f"{name}@{commit}" for commit in sorted(pins - set(snapshot.pinned))]
        runs = [run.model_dump_json() + "\n" for run in lake.runs(name)]
        self._add_lines(runs_file(name), (line.encode() for line in runs), sealed=False)
        commits = "".join(f"{commit}\n" for commit in sorted(snapshot.commits))
        self.writer.add_bytes(commits_file(name), commits.encode())
        objects = self._copy(
            self.source.objects(snapshot.namespace), objects_prefix(name), sealed=False, vanishing=False
        )
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
        """Refuse a lake of which an object that counts is not in the archive.

        Raises:
            RefusedError: it was imported into the lake without being copied.
            PlatformError: it is gone, or has another size.
        """
        prefix = objects_prefix(snapshot.name)
        for commit in {*snapshot.branches.values(), *snapshot.tags.values(), *snapshot.pinned}:
            for path, address, size in lake.addresses(snapshot.name, commit):
                relative = self.source.relative(snapshot.namespace, address)
                field = f"{snapshot.name}/{commit[:12]}/{path}"
                if relative is None:
                    raise RefusedError(
                        "the object lies outside of the lake's own store, into which it was imported without a copy",
                        field=field,
                        value=address,
                        hint="upload it, commit, and delete the other",
                    )
                if prefix + relative not in self.writer or self.writer.size(prefix + relative) != size:
                    raise PlatformError("the lake's store does not have this object as it was written", field=field)

    def _copy(self, store: Store, prefix: str, *, sealed: bool, vanishing: bool) -> StoreCount:
        files = total = 0
        for name in store.names():
            try:
                with store.open(name) as (source, size):
                    self._add(prefix + name, source, size, sealed=sealed)
            except NotFoundError:
                if not vanishing:
                    raise
                continue  # retention took it, or a server put a new file in its place
            files += 1
            total += size
        return StoreCount(files=files, bytes=total)

    def _add(self, name: str, source: BinaryIO, size: int, *, sealed: bool) -> None:
        try:
            if sealed:
                self.writer.add_bytes(name, self.seal.close(name, source.read(size)))
            else:
                self.writer.add(name, source, size)
        except EOFError:
            raise PlatformError("the file became shorter while it was copied", field=name) from None

    def _add_lines(self, name: str, lines: Iterable[bytes], *, sealed: bool) -> None:
        with tempfile.TemporaryFile() as file:
            file.writelines(lines)
            size = file.tell()
            file.seek(0)
            self._add(name, cast("BinaryIO", file), size, sealed=sealed)


def export(
    source: MigrationSource, subject: Subject, path: Path, passphrase: str, tell: Tell = lambda _: None
) -> Manifest:
    """Write the contents of a stack into an archive at `path`, a tar file where that is its ending, else a folder.

    What refers to something is read before that: traffic and retraining before MLflow, MLflow before the lake.

    Args:
        source: where the contents are.
        subject: what stack they are of.
        path: where the archive will be; it appears whole or not at all.
        passphrase: encrypts what is secret, and vouches for all.
        tell: is told how far it is.

    Raises:
        UserError: there already is something at `path`, or the passphrase is short.
        UnreachableError: the lake does not run.
        RefusedError, PlatformError: something of the contents cannot be moved; nothing is left behind.
    """
    salt = Seal.new_salt()
    seal = Seal.of(passphrase, salt)
    done = 0
    what = ""

    def count(more: int) -> None:
        nonlocal done
        done += more
        tell(Step(what, done))

    def said(step: Step) -> None:
        nonlocal what
        what = step.what
        tell(Step(what, done))

    with writer_of(path, count) as writer:
        run = _Run(source, subject, writer, seal, said)
        for name, sealed in stores_of(subject.models):
            run.copy_store(name, sealed=sealed)
        for name in DATABASES:
            run.copy_database(name)
        run.copy_store("mlflow-artifacts", sealed=False)
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
                passphrase=seal.witness(salt.encode()),
                repositories=run.repositories,
                databases=run.databases,
                stores=run.stores,
                secrets=secrets,
                unresolved=sorted(set(run.unresolved)),
                files=files,
                bytes=total,
                list_sha256=listed,
            )

        return writer.finish(manifest, seal)


def _versions() -> dict[str, str]:
    return {
        "tidemill": metadata.version("tidemill"),
        "mlflow": metadata.version("mlflow-skinny"),
        "python": platform.python_version(),
    }
