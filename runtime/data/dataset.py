"""Versioned data: pinned reads, and writes that pass the gate.

An address is `REPOSITORY/REF/PATH`, for example `flights/main/departures`. REF is a branch, a tag or a commit id. A
read resolves the ref to a commit immediately, so that the same data can be read again later:

    frame = data.read("flights/main/departures", validated=True).to_pandas()

Write to a branch, commit, and publish through the gate. `add` does all three for one file:

    data.branch("flights/fix")                                    # from main
    data.write(frame, "flights/fix/departures/2013-01.parquet")
    data.commit("flights/fix", "Fix January")
    data.publish("flights/fix")                                   # GateError has the reasons

Every function takes `lake`: the settings of a lakeFS server, or an open connection. The default is the platform of
TIDEMILL_RUNTIME.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ..common.errors import ConfigError, NotFoundError, UnvalidatedError
from ..common.settings import LakeSettings, runtime_settings
from .lake_client import Commit, Lake, ObjectInfo

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

LakeLike: TypeAlias = "Lake | LakeSettings | None"

_BATCH_ROWS = 65_536


@dataclass(frozen=True)
class Pinned:
    """An address, resolved to a commit.

    Attributes:
        repository, ref, path: the parts of the original address.
        commit: the full commit id.
    """

    repository: str
    ref: str
    commit: str
    path: str

    @property
    def address(self) -> str:
        """The address with the commit id, which always means the same data."""
        return f"{self.repository}/{self.commit}/{self.path}".rstrip("/")


class Dataset:
    """The Parquet files below a path at one commit, ordered by path.

    Attributes:
        pinned: the resolved address.
        files: the Parquet files, with sizes in bytes.
    """

    def __init__(
        self,
        pinned: Pinned,
        files: Sequence[ObjectInfo],
        lake: LakeLike = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self.pinned = pinned
        self.files = tuple(files)
        self._lake = lake
        # Path -> SHA-256, from the gate's verdict; None if the data need not be validated.
        self._digests = digests

    @property
    def repository(self) -> str:
        """The repository."""
        return self.pinned.repository

    @property
    def commit(self) -> str:
        """The commit id."""
        return self.pinned.commit

    @property
    def path(self) -> str:
        """The path within the repository."""
        return self.pinned.path

    def batches(self, columns: Sequence[str] | None = None, rows: int = _BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield batches of at most `rows` rows; only one file is on disk, and one batch in memory, at a time.

        If files have different types for a column, each batch has the types of its file.
        """
        import pyarrow.parquet as pq

        for _, file in self.downloaded():
            with pq.ParquetFile(file) as opened:
                yield from opened.iter_batches(batch_size=rows, columns=list(columns) if columns else None)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows as one table; a column that is integer in one file and float in another becomes float."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables: list[pa.Table] = []
        for _, file in self.downloaded():
            with pq.ParquetFile(file) as opened:
                tables.append(opened.read(columns=list(columns) if columns else None).replace_schema_metadata())
        return pa.concat_tables(tables, promote_options="permissive")

    def to_pandas(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Return all rows as a data frame."""
        return self.to_arrow(columns).to_pandas()

    def downloaded(self) -> Iterator[tuple[ObjectInfo, Path]]:
        """Yield each file with its local path, which is valid until the next file is requested.

        Raises:
            UnvalidatedError: the bytes are not those that the gate judged.
        """
        with opened(self._lake) as lake, tempfile.TemporaryDirectory(prefix="tidemill-read-") as folder:
            for item in self.files:
                file = Path(folder, "part.parquet")
                with file.open("wb") as stream:
                    lake.download(self.repository, self.commit, item.path, stream)
                if self._digests is not None:
                    self._verify(item, file, self._digests)
                yield item, file

    def _verify(self, item: ObjectInfo, file: Path, digests: Mapping[str, str]) -> None:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digests.get(item.path) != digest:
            raise UnvalidatedError(
                "the bytes are not those that the gate judged: someone changed them in the object store",
                field="data",
                value=f"{self.repository}/{self.commit}/{item.path}",
                hint="restore the object from a backup, or publish the data again",
            )


def resolve(address: str, *, validated: bool = False, lake: LakeLike = None) -> Pinned:
    """Resolve `address` to a commit.

    Args:
        address: REPOSITORY/REF/PATH.
        validated: require that the gate accepted the data. A verdict must cover the path, and a key in the settings
            of the lake must have signed it. The result is the newest accepted commit. It may be older than the ref,
            but only if the newer commits change nothing below the path. The suite may have changed since the verdict.
        lake: the lakeFS server.

    Raises:
        NotFoundError: the repository or ref does not exist.
        UnvalidatedError: `validated` is set, and the data did not pass the gate.
        UnreachableError: lakeFS does not answer.
    """
    repository, ref, path = split(address)
    with opened(lake) as connection:
        head = connection.head(repository, ref)
        if not validated:
            return Pinned(repository, ref, head.id, path)
        good = newest_accepted(connection, repository, head.id)
        if good is None or (
            good.id != head.id and next(connection.changed(repository, good.id, head.id, prefix_of(path)), None)
        ):
            newest = f"; the newest commit that did is {good.id}" if good else ""
            raise UnvalidatedError(
                f"commit {head.id} did not pass the gate{newest}",
                field="data",
                value=address,
                hint=_hint(connection),
            )
        _require_covered(connection, repository, good.id, path)
        return Pinned(repository, ref, good.id, path)


def read(address: str, *, validated: bool = False, lake: LakeLike = None) -> Dataset:
    """Return the Parquet files at or below `address`, pinned to a commit.

    `validated` and the errors are those of `resolve`.

    Raises:
        NotFoundError: also if there is no Parquet file.
    """
    with opened(lake) as connection:
        pinned = resolve(address, validated=validated, lake=connection)
        files = _parquet_files(connection, pinned)
        verdict = connection.verdict(pinned.repository, pinned.commit) if validated else None
    if not files:
        raise NotFoundError("no Parquet file at this address", field="data", value=pinned.address)
    return Dataset(pinned, files, lake, verdict.files if verdict else None)


def exists(address: str, *, lake: LakeLike = None) -> bool:
    """Tell whether `address` is an object (not a prefix)."""
    repository, ref, path = split(address)
    with opened(lake) as connection:
        return any(item.path == path for item in connection.objects(repository, ref, path))


def brought_by(address: str, *, lake: LakeLike = None) -> str:
    """Return the newest commit on the branch, usually a merge, that changed the data at or below `address`.

    lakeFS's own log of a path leaves out merges if it follows first parents.

    Raises:
        NotFoundError: no commit changed it.
    """
    repository, ref, path = split(address)
    with opened(lake) as connection:
        for item in connection.log(repository, ref):
            if item.parents and any(connection.changed(repository, item.parents[0], item.id, prefix_of(path))):
                return item.id
    raise NotFoundError("no commit changed the data at this address", field="data", value=address)


def is_validated(repository: str, commit_id: str, *, lake: LakeLike = None) -> bool:
    """Tell whether `commit_id` is a merge that the gate accepted: its signed verdict says so."""
    with opened(lake) as connection:
        return connection.accepted(repository, commit_id)


def newest_validated(address: str, *, lake: LakeLike = None) -> str:
    """Return the newest commit of `REPOSITORY/BRANCH[/PATH]` that the gate accepted.

    With a path, later accepted commits that change nothing below it are ignored: the result changes only when the data
    changes.

    Raises:
        UnvalidatedError: the gate accepted no commit, or does not judge the data at the path.
    """
    repository, ref, path = split(address)
    with opened(lake) as connection:
        head = connection.head(repository, ref)
        found = newest_accepted(connection, repository, head.id)
        if found is None:
            hint = _hint(connection)
            raise UnvalidatedError("no commit passed the gate", field="data", value=address, hint=hint)
        if path:
            _require_covered(connection, repository, found.id, path)
        while path and (earlier := _earlier_accepted(connection, repository, found)) is not None:
            if next(connection.changed(repository, earlier.id, found.id, prefix_of(path)), None) is not None:
                break
            found = earlier
        return found.id


def branch(address: str, *, source: str = "main", lake: LakeLike = None) -> bool:
    """Create the branch `REPOSITORY/NAME` from `source`; return False if it already exists, unchanged."""
    repository, name, _ = split(address)
    with opened(lake) as connection:
        return connection.create_branch(repository, name, source)


def write(data: pd.DataFrame | pa.Table | Path, address: str, *, lake: LakeLike = None) -> ObjectInfo:
    """Write a data frame or table as Parquet, or a file unchanged, to `address`, whose REF is a branch.

    The frame's index is not written. Nothing is committed.
    """
    repository, name, path = split(address)
    if not path:
        raise ConfigError("the address has no path", field="data", value=address, hint="write REPOSITORY/BRANCH/PATH")
    with opened(lake) as connection, _as_file(data) as file:
        return connection.upload(repository, name, path, file)


def commit(address: str, message: str, *, metadata: Mapping[str, str] | None = None, lake: LakeLike = None) -> Pinned:
    """Commit the changes of the branch `REPOSITORY/NAME`; without changes, return its newest commit."""
    repository, name, _ = split(address)
    with opened(lake) as connection:
        made = connection.commit(repository, name, message, metadata or {}) or connection.head(repository, name)
    return Pinned(repository, name, made.id, "")


def publish(
    address: str,
    *,
    into: str = "main",
    message: str | None = None,
    metadata: Mapping[str, str] | None = None,
    lake: LakeLike = None,
) -> Pinned:
    """Merge the branch `REPOSITORY/NAME` through the gate; a repeated call returns the newest commit.

    Raises:
        GateError: the gate refused the merge; the error has the reasons, and the branch is kept.
        UnreachableError: lakeFS or the gate does not answer; nothing was merged.
    """
    repository, name, _ = split(address)
    with opened(lake) as connection:
        merged = connection.merge(repository, name, into, message or f"Publish {name}", metadata or {})
        return Pinned(repository, into, merged or connection.head(repository, into).id, "")


def add(
    data: pd.DataFrame | pa.Table | Path,
    address: str,
    *,
    message: str,
    metadata: Mapping[str, str] | None = None,
    lake: LakeLike = None,
) -> Pinned:
    """Write, commit and publish one file at `REPOSITORY/BRANCH/PATH`, through a temporary branch.

    It is safe to call again after an interruption. If the gate refuses, the temporary branch is kept for inspection.

    Raises:
        GateError, UnreachableError: see `publish`.
    """
    repository, into, path = split(address)
    name = _branch_name(path)
    with opened(lake) as connection:
        connection.delete_branch(repository, name)
        connection.create_branch(repository, name, into)
        write(data, f"{repository}/{name}/{path}", lake=connection)
        commit(f"{repository}/{name}", message, metadata=metadata, lake=connection)
        made = publish(f"{repository}/{name}", into=into, message=message, metadata=metadata, lake=connection)
        connection.delete_branch(repository, name)
    return Pinned(repository, into, made.commit, path)


def newest_accepted(lake: Lake, repository: str, start: str) -> Commit | None:
    """Return the newest commit, from the ref `start` along first parents, that the gate accepted."""
    return next((item for item in lake.log(repository, start) if lake.accepted(repository, item.id)), None)


def _earlier_accepted(lake: Lake, repository: str, found: Commit) -> Commit | None:
    return newest_accepted(lake, repository, found.parents[0]) if found.parents else None


def _require_covered(lake: Lake, repository: str, commit_id: str, path: str) -> None:
    """Check that the verdict on an accepted commit covers `path`: the gate does not look at other paths."""
    verdict = lake.verdict(repository, commit_id)
    if verdict is None or not verdict.covers(path):
        judged = verdict.path if verdict else ""
        raise UnvalidatedError(
            f"the gate judges only data below {judged}",
            field="data",
            value=f"{repository}/{commit_id}/{path}".rstrip("/"),
            hint="read data below that path, or set meta.tidemill.path of the suite to a folder that includes it",
        )


def _hint(lake: Lake) -> str:
    """Return how to get validated data, or why no commit counts as validated."""
    if not lake.settings.verdict_keys:
        return "set verdict_keys in the settings of the lake; `tidemill env` prints such settings"
    return "publish through a branch, or read a commit that passed"


def _parquet_files(lake: Lake, pinned: Pinned) -> list[ObjectInfo]:
    return [
        item
        for item in lake.objects(pinned.repository, pinned.commit, prefix_of(pinned.path))
        if item.path.endswith(".parquet")
    ]


def prefix_of(path: str) -> str:
    """Return the common prefix of all objects at or below `path`.

    >>> prefix_of("departures"), prefix_of("a/b.parquet"), prefix_of("")
    ('departures/', 'a/b.parquet', '')
    """
    return path if not path or path.endswith(".parquet") else f"{path}/"


def _branch_name(path: str) -> str:
    """Return a readable branch name that is unique to `path`.

    >>> _branch_name("departures/2013-01.parquet")
    'add-departures-2013-01-parquet-a49dce3e'
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "-", path).strip("-")[-80:].strip("-")
    return f"add-{readable}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"


def split(address: str) -> tuple[str, str, str]:
    """Split an address into repository, ref and path; the path may be empty.

    Raises:
        ConfigError: the address has no repository or no ref.
    """
    repository, _, rest = address.strip("/").partition("/")
    ref, _, path = rest.partition("/")
    if not repository or not ref:
        raise ConfigError("not an address", field="data", value=address, hint="write REPOSITORY/REF/PATH")
    return repository, ref, path


@contextlib.contextmanager
def opened(lake: LakeLike) -> Generator[Lake]:
    """Yield a connection; close it afterwards if this function opened it."""
    if isinstance(lake, Lake):
        yield lake
        return
    with Lake(lake if lake is not None else runtime_settings().lake) as opened:
        yield opened


@contextlib.contextmanager
def _as_file(data: pd.DataFrame | pa.Table | Path) -> Generator[Path]:
    if isinstance(data, Path):
        yield data
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = data if isinstance(data, pa.Table) else pa.Table.from_pandas(data, preserve_index=False)
    with tempfile.TemporaryDirectory(prefix="tidemill-write-") as folder:
        file = Path(folder, "part.parquet")
        pq.write_table(table, file, compression="zstd")
        yield file
