"""Writes the scores to a file, or to a path on a lake branch: complete or not at all, in constant memory."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import tempfile
from collections import Counter
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from .. import data
from ..common.errors import ConfigError, NotFoundError, UserError
from ..common.files import sync
from ..common.settings import ENVIRONMENT_VARIABLE, runtime_settings
from ..data import Lake, LakeLike
from .inputs import LAKE_SCHEME

# Its functions are created on import; a type checker does not see them.
_compute: Any = pc

Format = Literal["parquet", "csv", "arrow"]

_FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    "": "parquet",
}
# Errors of file systems without hard links.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})


class Sink(Protocol):
    """An open file for scores."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Append `batch`."""


class Output(Protocol):
    """The destination of the scores.

    Attributes:
        address: its name.
        format: the file format.
    """

    address: str
    format: Format

    def work(self) -> contextlib.AbstractContextManager[Path]:
        """Return a context with a temporary path to write to; the file is deleted at the end."""
        ...

    def publish(self, work: Path, metadata: Mapping[str, str]) -> str | None:
        """Make the file `work` the result; return the lake commit, or None."""


def open_output(text: str, *, overwrite: bool = False, lake: LakeLike = None) -> Output:
    """Return the output at `text`, a file or REPOSITORY/BRANCH/PATH.

    A path whose folder exists is a file; `lakefs://` always means the lake.

    Raises:
        UserError: the output exists, or cannot be written.
    """
    if text.startswith(LAKE_SCHEME):
        return _LakeOutput(text.removeprefix(LAKE_SCHEME), overwrite, lake)
    path = Path(text).expanduser()
    folder = path.parent
    if not folder.is_dir():
        has_lake = lake is not None or bool(os.environ.get(ENVIRONMENT_VARIABLE))
        if has_lake and not text.startswith(("/", ".", "~")) and len(text.strip("/").split("/")) >= 3:
            return _LakeOutput(text, overwrite, lake)
        raise NotFoundError("the folder does not exist", field="output", value=str(folder), hint="create it")
    if path.is_dir():
        raise UserError("this is a folder; scores go into one file", field="output", value=text, hint="add a file name")
    if path.exists() and not overwrite:
        raise _exists_error(text)
    return _FileOutput(path, text, overwrite)


def _exists_error(text: str) -> UserError:
    return UserError("already exists", field="output", value=text, hint="add --overwrite, or choose another name")


def _format(text: str) -> Format:
    suffix = Path(text).suffix.lower()
    if suffix not in _FORMATS:
        known = ", ".join(name for name in _FORMATS if name)
        raise ConfigError("unsupported file type", field="output", value=text, hint=f"use one of {known}")
    return _FORMATS[suffix]


class _FileOutput:
    def __init__(self, path: Path, text: str, overwrite: bool) -> None:
        self.address = text
        self.format: Format = _format(text)
        self._path = path
        self._overwrite = overwrite

    @contextlib.contextmanager
    def work(self) -> Generator[Path]:
        # In the same folder, so that one rename is enough; hidden, so that readers of the folder skip it.
        work = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.partial")
        try:
            yield work
        finally:
            work.unlink(missing_ok=True)

    def publish(self, work: Path, metadata: Mapping[str, str]) -> None:  # noqa: ARG002 - the file contains it
        sync(work)
        if self._overwrite:
            work.replace(self._path)
        else:
            self._link(work)
        sync(self._path.parent)

    def _link(self, work: Path) -> None:
        """Rename `work` to the output, unless that was created meanwhile; a plain rename would replace it silently."""
        try:
            os.link(work, self._path)
        except FileExistsError:
            raise _exists_error(self.address) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if self._path.exists():
                raise _exists_error(self.address) from None
            work.replace(self._path)


class _LakeOutput:
    """A path on a branch. The scores are committed; `data.publish` can then merge them into a protected branch."""

    def __init__(self, address: str, overwrite: bool, lake: LakeLike) -> None:
        self._repository, self._branch, self._object = data.split(address)
        if not self._object:
            raise ConfigError("the address has no file path", field="output", value=address, hint="add a path")
        self.address = f"{self._repository}/{self._branch}/{self._object}"
        self.format: Format = _format(self._object)
        self._lake = lake
        with self._opened() as connection:
            self._check(connection, overwrite)

    @contextlib.contextmanager
    def _opened(self) -> Generator[Lake]:
        if isinstance(self._lake, Lake):
            yield self._lake
            return
        with Lake(self._lake if self._lake is not None else runtime_settings().lake) as connection:
            yield connection

    def _check(self, lake: Lake, overwrite: bool) -> None:
        if lake.protected(self._repository, self._branch):
            raise UserError(
                "the branch is protected",
                field="output",
                value=self.address,
                hint=f"write to another branch, which is created from main, then publish it: "
                f'data.publish("{self._repository}/BRANCH")',
            )
        if not lake.has_branch(self._repository, self._branch):
            return
        if not overwrite and data.exists(self.address, lake=lake):
            raise _exists_error(self.address)
        others = next((path for path in lake.staged(self._repository, self._branch) if path != self._object), None)
        if others is not None:
            raise UserError(
                f"the branch has uncommitted changes ({others}), which the commit of the scores would include",
                field="output",
                value=self.address,
                hint="commit them first, or write to another branch",
            )

    @contextlib.contextmanager
    def work(self) -> Generator[Path]:
        with tempfile.TemporaryDirectory(prefix="tidemill-score-") as folder:
            yield Path(folder, "scores")

    def publish(self, work: Path, metadata: Mapping[str, str]) -> str:
        with self._opened() as connection:
            connection.create_branch(self._repository, self._branch, "main")
            data.write(work, self.address, lake=connection)
            message = f"Score with {metadata['tidemill.model']} version {metadata['tidemill.model.version']}"
            branch = f"{self._repository}/{self._branch}"
            return data.commit(branch, message, metadata=metadata, lake=connection).commit


@contextlib.contextmanager
def open_sink(path: Path, kind: Format, schema: pa.Schema) -> Generator[Sink]:
    """Open the new file `path` for batches of `schema`; Parquet and Arrow store its metadata.

    Raises:
        ConfigError: CSV cannot represent the type of a column.
    """
    if kind == "parquet":
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            yield _ParquetSink(writer)
    elif kind == "arrow":
        with pyarrow.ipc.new_file(str(path), schema) as writer:
            yield writer
    else:
        flat = _csv_schema(schema)
        with pyarrow.csv.CSVWriter(str(path), flat) as writer:
            yield _CsvSink(writer, flat)


class _ParquetSink:
    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)


class _CsvSink:
    """Writes fixed-size lists as one column per position: `scores_0`, `scores_1`."""

    def __init__(self, writer: pyarrow.csv.CSVWriter, schema: pa.Schema) -> None:
        self._writer = writer
        self._schema = schema

    def write(self, batch: pa.RecordBatch) -> None:
        arrays: list[pa.Array] = []
        for column in batch.columns:
            if pa.types.is_fixed_size_list(column.type):
                width, flat = column.type.list_size, column.flatten()
                arrays += [flat.take(pa.array(range(start, len(flat), width))) for start in range(width)]
            else:
                arrays.append(column)
        arrays = [_without_nan(array) for array in arrays]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))


def _without_nan(array: pa.Array) -> pa.Array:
    """Return an array with null in the place of NaN: an empty cell, as pandas writes it."""
    if not pa.types.is_floating(array.type):
        return array
    return _compute.if_else(_compute.is_nan(array), pa.scalar(None, array.type), array)


def _csv_schema(schema: pa.Schema) -> pa.Schema:
    fields: list[pa.Field] = []
    for item in schema:
        kind = item.type
        if pa.types.is_fixed_size_list(kind) and not pa.types.is_nested(kind.value_type):
            fields += [pa.field(f"{item.name}_{position}", kind.value_type) for position in range(kind.list_size)]
        elif pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            raise ConfigError(
                f"CSV cannot represent values of type {kind}", field=item.name, hint="use Parquet or Arrow"
            )
        else:
            fields.append(pa.field(item.name, kind))
    names = [each.name for each in fields]
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ConfigError("two columns of the CSV file would have this name", field=twice, hint="use Parquet or Arrow")
    return pa.schema(fields)
