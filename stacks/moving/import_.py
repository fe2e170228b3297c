"""Imports an archive into a new stack."""

from __future__ import annotations

import io
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from ...components.provider.content.base import OWNER
from ...components.targets.migration import MigrationDestination, Store
from ...runtime.common.errors import PlatformError, RefusedError
from .archive import Archive, open_archive
from .contents import (
    DATABASES,
    JOBS,
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
from .database import DestinationDatabase, destination_database
from .encryption import ArchiveKeys
from .export import Subject
from .lake import LakeClient, Refs
from .manifest import Entry, Manifest, Repository
from .retrainings import COPY_FILE, FILE, OLD_FILE, settled
from .runs import Run, dump_of
from .schema import TRACKING, MlflowTables

_TAG_TABLES = ("experiment_tags", "registered_model_tags")


@dataclass(frozen=True)
class Imported:
    """The result of an import.

    Attributes:
        manifest: the manifest of the archive.
        resumed: whether it continued an interrupted import.
        kept: number of files that were already written by the interrupted import.
    """

    manifest: Manifest
    resumed: bool
    kept: int


@dataclass
class _Import:
    """One running import of a verified archive."""

    destination: MigrationDestination
    subject: Subject
    archive: Archive
    manifest: Manifest
    keys: ArchiveKeys
    tables: MlflowTables
    count: Callable[[int], None]
    kept: int = 0

    def write_secrets(self) -> None:
        """Write the secrets and the hashes of finished jobs."""
        secrets = cast("dict[str, str]", json.loads(self.keys.decrypt(SECRETS, self.archive.read(SECRETS))))
        for name, value in secrets.items():
            self.destination.secret(name, value)
        for name, digest in cast("dict[str, str]", json.loads(self.archive.read(JOBS))).items():
            self.destination.job(name, digest)

    def write_store(self, name: str, *, encrypted: bool) -> None:
        """Write an object store."""
        store = self.destination.store(name)
        prefix = store_prefix(name)
        for entry in self.archive.below(prefix):
            if encrypted:
                data = self.keys.decrypt(entry.name, self.archive.read(entry.name))
                store.write(entry.name.removeprefix(prefix), io.BytesIO(data), len(data))
            elif entry.name == store_prefix("retraining") + FILE:
                self._write(store, entry, FILE, settled)
            elif entry.name == store_prefix("retraining") + OLD_FILE:
                # An archive with both was exported while the service took the old one over.
                if store_prefix("retraining") + FILE not in self.archive.entries:
                    self._write(store, entry, FILE, partial(settled, name=OLD_FILE))
            elif entry.name == store_prefix("retraining") + COPY_FILE:
                continue  # its retrainings are still open; the service writes a new copy
            else:
                self._write(store, entry, entry.name.removeprefix(prefix))

    def write_lake(self) -> None:
        """Write the objects of all repositories, then restore commits, branches, tags and action runs from them."""
        for name, about in self.manifest.repositories.items():
            prefix = objects_prefix(name)
            store = self.destination.objects(name)
            files = self.archive.below(prefix)
            if len(files) != about.objects.files:
                raise PlatformError("the number of objects in the archive differs from its manifest", field=name)
            for entry in files:
                self._write(store, entry, entry.name.removeprefix(prefix))
        with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
            dump = Path(folder) / "runs.json"
            dump.write_text(dump_of((name, run) for name in self.manifest.repositories for run in self._runs(name)))
            self.destination.load_lake(dump)
        with self.destination.lake() as server:
            lake = LakeClient(server)
            for name, about in self.manifest.repositories.items():
                self._restore(lake, name, about)

    def write_database(self, name: str) -> None:
        """Fill a database."""
        found = self.manifest.databases[name]
        with destination_database(self.destination.database(name), name, self.tables) as database:
            database.fill({table: partial(self._lines, table_file(name, table)) for table in found.tables})
            database.compare(found.tables)
            if name == TRACKING:
                self._replace_owner(database)

    def _replace_owner(self, database: DestinationDatabase) -> None:
        """Replace the ownership mark of the exported stack by this stack's."""
        if self.subject.stack != self.manifest.stack:
            for table in _TAG_TABLES:
                database.replace(table, OWNER, self.manifest.stack, self.subject.stack)

    def _restore(self, lake: LakeClient, name: str, about: Repository) -> None:
        metadata = {**about.metadata, OWNER: self.subject.stack}
        refs = Refs(about.commits_range, about.branches_range, about.tags_range)
        lake.restore(name, self.destination.namespace(name), about.default_branch, refs, metadata, about.protected)
        if lake.heads(name) != (about.branches, about.tags):
            raise PlatformError("the branches or tags in lakeFS differ from the archive", field=name)
        if lake.rules(name) != about.protected:
            raise PlatformError("the branch protection in lakeFS differs from the archive", field=name)
        starts = [*about.branches.values(), *about.tags.values(), *about.pinned]
        wanted = self.archive.read(commits_file(name)).decode().split()
        if lake.commits(name, starts) != frozenset(wanted) or len(wanted) != about.commits:
            raise PlatformError("the commits in lakeFS differ from the archive", field=name)
        runs = {run.run_id: run for run in self._runs(name)}
        if {run.run_id: run for run in lake.runs(name)} != runs or len(runs) != about.runs:
            raise PlatformError("the action runs in lakeFS differ from the archive", field=name)

    def _runs(self, name: str) -> list[Run]:
        return [Run.model_validate_json(line) for line in self.archive.read(runs_file(name)).splitlines()]

    def _lines(self, name: str) -> Iterable[bytes]:
        if name.endswith(".sealed"):
            yield from io.BytesIO(self.keys.decrypt(name, self.archive.read(name)))
            return
        with self.archive.reading(self.archive.entries[name], self.count) as source:
            yield from source

    def _write(
        self,
        store: Store,
        entry: Entry,
        name: str,
        change: Callable[[BinaryIO], AbstractContextManager[tuple[BinaryIO, int]]] | None = None,
    ) -> None:
        if change is None and store.sha256(name) == entry.sha256:
            self.kept += 1
            self.count(entry.size)
            return
        with (
            self.archive.reading(entry, self.count) as source,
            change(source) if change else nullcontext((source, entry.size)) as (changed, size),
        ):
            store.write(name, changed, size)


def import_(
    destination: MigrationDestination, subject: Subject, repositories: Iterable[str], path: Path, passphrase: str,
    progress: Progress = lambda _: None,
) -> Imported:  # fmt: skip
    """Write the contents of the archive at `path` into a new stack.

    The whole archive is verified first. The stack gets all contents in one last step. The same import continues after
    an interruption.

    Args:
        destination: where the contents will be.
        subject: the stack.
        repositories: names of the repositories in its config.
        path: the archive.
        passphrase: the passphrase of the export.
        progress: receives the progress.

    Raises:
        NotFoundError: the archive does not exist.
        RefusedError: the archive was changed, the passphrase is wrong, the stack is not empty, or its config or
            programs do not match the archive.
        PlatformError: writing failed; the stack stays empty.
    """
    done = total = 0
    what = ""

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(Step(what, done, total))

    if obstacle := destination.obstacle():
        raise RefusedError(
            f"the stack is not empty: {obstacle}",
            field=subject.stack,
            hint="import into a new stack, or run `tidemill destroy --delete-data` first",
        )
    with open_archive(path) as archive, MlflowTables() as tables:
        manifest, keys = archive.manifest(passphrase)
        what, total = "verifying", manifest.bytes
        archive.verify(manifest, count)
        _require_fit(manifest, subject, set(repositories))
        _require_programs(manifest, tables.revisions(), destination.lake_version())
        resumed = destination.begin(manifest.id)
        run = _Import(destination, subject, archive, manifest, keys, tables, count)
        done, what = 0, "writing"
        try:
            run.write_secrets()
            for name in DATABASES:
                what = f"database {name}"
                run.write_database(name)
            what = "repositories"
            run.write_lake()
            for name, encrypted in [*stores_of(manifest.models), ("mlflow-artifacts", False)]:
                if name in manifest.stores:
                    what = f"store {name}"
                    run.write_store(name, encrypted=encrypted)
        except PlatformError as error:
            error.hint = error.hint or f"import again to go on, or delete {destination.place()}"
            raise
        destination.finish()
    return Imported(manifest, resumed, run.kept)


def _require_fit(manifest: Manifest, subject: Subject, repositories: set[str]) -> None:
    """Check that the config has all models and repositories of the archive, and that no database is missing."""
    for kind, archived, configured in (
        ("models", set(manifest.models), set(subject.models)),
        ("repositories", set(manifest.repositories), repositories),
    ):
        if unknown := min(archived - configured, default=None):
            raise RefusedError(
                f"the archive has {kind} that are missing in the stack's config",
                field=subject.stack,
                value=unknown,
                hint="add them to the config",
            )
    if missing := min(set(DATABASES) - set(manifest.databases), default=None):
        raise RefusedError("the archive lacks a database", field="archive", value=missing)


def _require_programs(manifest: Manifest, schemas: Mapping[str, str], lakefs: str | None) -> None:
    """Check that MLflow's schema is the archive's, and that lakeFS is not older."""
    for name, found in manifest.databases.items():
        if found.revision != schemas.get(name):
            raise RefusedError(
                f"the archive is from MLflow {manifest.versions['mlflow']}; the installed MLflow has another schema",
                field=name,
                value=found.revision,
                hint="export and import with the same version of MLflow",
            )
    theirs = manifest.versions["lakefs"]
    if lakefs is not None and _numbers(theirs) > _numbers(lakefs):
        raise RefusedError(
            f"the archive is from lakeFS {theirs}; this lakeFS is {lakefs}", field="lakefs", hint="install that version"
        )


def _numbers(version: str) -> list[int]:
    """Return the numbers of a version.

    >>> _numbers("v1.86.0") > _numbers("1.9.2")
    True
    """
    return [int(number) for number in re.findall(r"\d+", version)]
