"""Journals store rows on disk before they are in a segment, so that a killed writer loses almost nothing.

A journal is an Arrow IPC stream for one segment, with the segment's name, written one batch at a time. It is removed
when its segment exists. A journal whose segment exists is ignored. So recovery neither loses nor duplicates rows,
wherever a writer died. Batches are not synced one by one: they survive the end of the process immediately, and a crash
of the machine once the system has written them to disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pyarrow as pa

from ..common.files import create_locked, left_behind
from .segments import CAPTURE, day_folders, segment_in, write_segment

_log = logging.getLogger(__name__)
_FOLDER = "journal"
_SUFFIX = ".arrows"


class Journal:
    """The journal of one segment, locked by this process until it is closed or the process ends.

    Args:
        directory: the capture folder.
        identifier: name of the segment.
        schema: of the segment.

    Raises:
        OSError: the file cannot be created.
    """

    def __init__(self, directory: Path, identifier: UUID, schema: pa.Schema) -> None:
        folder = directory / _FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / f"{identifier}{_SUFFIX}"
        self._descriptor = create_locked(self.path)
        self._complete_bytes = 0
        self._torn = False
        try:
            self._write(schema.serialize())
        except BaseException:
            self.discard()
            raise

    def append(self, batch: pa.RecordBatch) -> None:
        """Append `batch`; it then survives the end of this process.

        Raises:
            OSError: it could not be written, or the journal was removed; earlier batches are unchanged.
        """
        if os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(f"the journal {self.path.name} was removed")
        self._write(batch.serialize())

    def discard(self) -> None:
        """Remove the journal: its rows are in a segment, or are given up."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the journal and leave it for recovery."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, message: pa.Buffer) -> None:
        if self._torn:
            # Half a message would hide all messages after it.
            os.ftruncate(self._descriptor, self._complete_bytes)
            os.lseek(self._descriptor, self._complete_bytes, os.SEEK_SET)
        self._torn = True
        rest = memoryview(message)
        while rest.nbytes:
            rest = rest[os.write(self._descriptor, rest) :]
        self._complete_bytes += message.size
        self._torn = False


def journals(directory: Path) -> list[Path]:
    """Return the journals below `directory`, including those of living writers."""
    return sorted((directory / _FOLDER).glob(f"*{_SUFFIX}"))


def read_journal(path: Path) -> pa.Table | None:
    """Return the complete batches in a journal, which may be growing or damaged; None if there are none."""
    batches: list[pa.RecordBatch] = []
    with contextlib.suppress(pa.ArrowException, OSError), pa.OSFile(str(path), "rb") as file:
        reader = pa.ipc.open_stream(file)
        with contextlib.suppress(StopIteration):
            while True:
                batches.append(reader.read_next_batch())
    return pa.Table.from_batches(batches) if batches else None


@dataclass(frozen=True)
class Recovered:
    """The number of recovered segments and rows."""

    segments: int = 0
    rows: int = 0


def has_segment(directory: Path, name: str) -> bool:
    """Tell whether the segment `name` was written, on any day."""
    return any(segment_in(folder, day, name).path.exists() for day, folder in day_folders(directory, CAPTURE))


def recover(directory: Path) -> Recovered:
    """Turn the journals of dead writers below `directory` into segments; skip those of living writers.

    Raises:
        OSError: a segment could not be written; its journal and those after it stay for the next call.
    """
    segments = rows = 0
    for path in journals(directory):
        with left_behind(path) as descriptor:
            if descriptor is None:
                continue
            name = path.name.removesuffix(_SUFFIX)
            if not has_segment(directory, name):
                table = read_journal(path)
                if table is not None:
                    write_segment(table, directory, CAPTURE, identifier=UUID(name))
                    segments += 1
                    rows += table.num_rows
                    _log.warning("recovered captured rows of a killed server", extra={"rows": table.num_rows})
            path.unlink(missing_ok=True)
    return Recovered(segments, rows)
