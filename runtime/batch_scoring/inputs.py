"""Reads the rows to score, in batches: Parquet files of a lake path, or local files, folders and globs.

A batch never has more rows than requested. In addition, memory holds only what the format requires: pages of a Parquet
row group, a block of CSV, or one Arrow record batch.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import io
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as pq

from .. import data
from ..common.errors import ConfigError, NotFoundError
from ..data import LakeLike

pc: Any = pyarrow.compute  # its functions are created at import, so type checkers do not see them
LAKE_SCHEME = "lakefs://"

_PARQUET = (".parquet", ".pq")
_TEXT = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
_ARROW = (".arrow", ".arrows", ".feather", ".ipc")
_KNOWN = (*_PARQUET, *_TEXT, *_ARROW)
_ARROW_FILE, _FEATHER_1 = b"ARROW1", b"FEA1"
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class InputFile:
    """One file to score.

    Attributes:
        name: for error messages.
        schema: its columns, without metadata.
        batches: yields batches, given the column names and the maximum number of rows.
        is_text: all values are unparsed text.
    """

    name: str
    schema: pa.Schema
    batches: Callable[[Sequence[str], int], Iterator[pa.RecordBatch]]
    is_text: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self.schema.names)


class Input(Protocol):
    """The source of the rows.

    Attributes:
        address: its name; for lake data, pinned to a commit.
        lineage: lineage tags for the result.
    """

    address: str
    lineage: dict[str, str]

    @property
    def files(self) -> int:
        """The number of files."""
        ...

    def open_files(self) -> Iterator[InputFile]:
        """Yield the files in order; each is open until the next one is requested."""
        ...


def open_input(text: str, *, validated: bool = False, lake: LakeLike = None) -> Input:
    """Return the input at `text`: a lake address, or local files.

    Existing files take precedence; `lakefs://` always means the lake.

    Raises:
        NotFoundError: nothing was found.
        ConfigError: `validated` was set for files, which the gate does not validate.
    """
    if not text.startswith(LAKE_SCHEME):
        found = _files(text)
        if found:
            if validated:
                raise ConfigError("only lake data is validated by the gate", field="--validated", value=text)
            return _Files(text, found)
        if not _is_address(text):
            raise NotFoundError("no such file or folder", field="input", value=text)
    address = text.removeprefix(LAKE_SCHEME)
    try:
        return _Dataset(data.read(address, validated=validated, lake=lake), lake)
    except NotFoundError as error:
        if text.startswith(LAKE_SCHEME) or error.field not in ("TIDEMILL_RUNTIME", "lake"):
            raise
        why = "no platform with a lake is configured" if error.field == "TIDEMILL_RUNTIME" else error.message
        raise NotFoundError(f"no such file, and {why}", field="input", value=text, hint=error.hint) from None


@dataclass
class _Files:
    address: str
    paths: Sequence[Path]
    lineage: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def files(self) -> int:
        return len(self.paths)

    def open_files(self) -> Iterator[InputFile]:
        for path in self.paths:
            with _open_file(path, str(path)) as opened:
                yield opened


class _Dataset:
    def __init__(self, dataset: data.Dataset, lake: LakeLike) -> None:
        self._dataset = dataset
        self._lake = lake
        self.address = dataset.pinned.address
        self.lineage = {"tidemill.input.ref": dataset.pinned.ref, "tidemill.input.commit": dataset.commit}

    @property
    def files(self) -> int:
        return len(self._dataset.files)

    def open_files(self) -> Iterator[InputFile]:
        for item, file in self._dataset.downloaded():
            with _open_file(file, item.path) as opened:
                yield opened


def _is_address(text: str) -> bool:
    """Return whether `text` can be REPOSITORY/REF/PATH.

    >>> _is_address("flights/main/departures"), _is_address("./flights/main/departures"), _is_address("a/b")
    (True, False, False)
    """
    parts = text.strip("/").split("/")
    return len(parts) >= 3 and all(parts) and not text.startswith(("/", "~")) and parts[0] not in (".", "..")


def _files(text: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if _suffix(file) and file.is_file() and _is_visible(file, path))
        if not found:
            raise NotFoundError(
                "the folder has no files that can be scored", field="input", value=text, hint=f"use {_known_suffixes()}"
            )
        return found
    if path.exists():
        return [path]
    if glob.has_magic(text):
        found = [Path(item) for item in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - may be absolute
        files = [item for item in found if item.is_file()]
        if not files:
            raise NotFoundError("no file matches the pattern", field="input", value=text)
        return files
    return []


def _is_visible(file: Path, folder: Path) -> bool:
    """Return whether no part of the path below `folder` is hidden, as metadata files of other tools are."""
    return not any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)


def _suffix(path: Path) -> str | None:
    name = path.name.lower()
    return next((suffix for suffix in _KNOWN if name.endswith(suffix)), None)


def _known_suffixes() -> str:
    return f"{', '.join(_KNOWN[:-1])} or {_KNOWN[-1]}"


@contextlib.contextmanager
def _open_file(path: Path, name: str) -> Generator[InputFile]:
    """Open one file; errors name the file, also while it is read."""
    suffix = _suffix(path)
    if suffix is None:
        raise ConfigError("unsupported file type", field="input", value=name, hint=f"use {_known_suffixes()}")
    opener = _parquet if suffix in _PARQUET else _text if suffix in _TEXT else _arrow
    with contextlib.ExitStack() as stack:
        with _read_errors(name):
            file = stack.enter_context(opener(path, name))
            _check_unique_columns(file)

        def batches(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
            with _read_errors(name):
                yield from file.batches(columns, rows)

        yield replace(file, batches=batches)


@contextlib.contextmanager
def _read_errors(name: str) -> Generator[None]:
    """Raise read errors as ConfigError with the name of the file."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ConfigError(f"cannot be read ({first})", field="input", value=name) from None


def _check_unique_columns(file: InputFile) -> None:
    duplicates = sorted({column for column in file.columns if file.columns.count(column) > 1})
    if duplicates:
        raise ConfigError(f"duplicate column {duplicates[0]!r}", field=file.name)


@contextlib.contextmanager
def _parquet(path: Path, name: str) -> Generator[InputFile]:
    # With a buffer size, column chunks are read in pieces.
    with pq.ParquetFile(path, buffer_size=_BLOCK_BYTES, pre_buffer=False, memory_map=False) as file:

        def batches(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
            for batch in file.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
                yield batch.select(list(columns))

        yield InputFile(name, file.schema_arrow.remove_metadata(), batches)


@contextlib.contextmanager
def _text(path: Path, name: str) -> Generator[InputFile]:
    """Read text as the model server does: it skips lines of blanks, and labels of rows without a name are no column."""
    delimiter = "\t" if ".tsv" in path.name.lower() else ","
    skipped, names = _header(path, delimiter)

    def opened(columns: Sequence[str] | None) -> pyarrow.csv.CSVStreamingReader:
        return pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(
                block_size=_BLOCK_BYTES, use_threads=False, skip_rows=skipped, column_names=names
            ),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter,
                newlines_in_values=True,
                invalid_row_handler=_handle_invalid_row,
            ),
            # Unparsed text: the contract defines the types, and an id such as 007 keeps its zeros.
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(columns or (), pa.string()),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )

    with opened(None) as first:
        present: list[str] = first.schema.names[1 if names else 0 :]
        schema = pa.schema([pa.field(column, pa.string()) for column in present])

    def batches(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        with opened(list(columns)) as reader:
            for batch in reader:
                yield from _sliced(_without_blank_lines(batch) if len(schema) == 1 else batch, rows)

    yield InputFile(name, schema, batches, is_text=True)


def _header(path: Path, delimiter: str) -> tuple[int, list[str] | None]:
    """Return how many lines to skip, and the names of the columns if the header has none for the labels of the rows.

    The first name is then one that no column has.
    """
    with pa.input_stream(str(path), compression="detect") as stream:
        start = stream.read(2 * _BLOCK_BYTES).decode("utf-8-sig", errors="replace")
    lines = csv.reader(io.StringIO(start, newline=""), delimiter=delimiter)
    header: list[str] = []
    skipped = skipped_with_header = 0
    try:
        for line in lines:
            if not line or (len(line) == 1 and _is_blank(line[0])):
                skipped += 0 if header else 1
            elif not header:
                header, skipped_with_header = line, lines.line_num
            elif len(line) == len(header) + 1:
                return skipped_with_header, [
                    next(label for number in count() if (label := f"label {number}") not in header),
                    *header,
                ]
            else:
                break
    except csv.Error:
        pass  # Arrow reports it
    return skipped, None


def _handle_invalid_row(row: Any) -> str:
    return "skip" if row.actual_columns == 1 and _is_blank(row.text) else "error"


def _is_blank(text: str) -> bool:
    return bool(text) and text.isspace()


def _without_blank_lines(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows of the only column of a file without those of blanks only."""
    return (
        batch.filter(pc.invert(pc.fill_null(pc.utf8_is_space(batch.column(0)), False))) if batch.num_columns else batch
    )


@contextlib.contextmanager
def _arrow(path: Path, name: str) -> Generator[InputFile]:
    with pa.OSFile(str(path)) as file:
        start = file.read(len(_ARROW_FILE))
        file.seek(0)
        if start.startswith(_FEATHER_1):
            raise ConfigError("Feather version 1 is not supported", field="input", value=name, hint="use version 2")
        if start == _ARROW_FILE:
            reader = pyarrow.ipc.open_file(file)
            found = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            reader = pyarrow.ipc.open_stream(file)
            found = iter(reader)

        def batches(columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
            for batch in found:
                yield from _sliced(batch.select(list(columns)), rows)

        yield InputFile(name, reader.schema.remove_metadata(), batches)


def _sliced(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
