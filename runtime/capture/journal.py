"""Journals: rows on the disk before they are a segment, so that a killed writer loses almost nothing.

A journal is an Arrow IPC stream, written a batch at a time, for one segment, whose name it bears. When the segment is
there, the journal is removed; one whose segment is there is not needed any more. So recovery neither loses nor doubles
rows, wherever a writer died. Batches are not synced one by one: they survive the death of the process at once, and that
of the machine once the system has written them out.
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

__all__ = ["Journal", "Recovered", "journals", "read_journal", "recover"]

_log = logging.getLogger(__name__)
_FOLDER = "journal"
_SUFFIX = ".arrows"


class Journal:
    """The journal of the segment `identifier`, which belongs to this process until it is closed or ends.

    Args:
        directory: the capture folder.
        identifier: name of the segment.
        schema: its schema.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, directory: Path, identifier: UUID, schema: pa.Schema) -> None:
        folder = directory / _FOLDER
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / f"{identifier}{_SUFFIX}"
        self._descriptor = create_locked(self.path)
        self._good = 0
        self._torn = False
        try:
            self._put(schema.serialize())
        except BaseException:
            self.discard()
            raise

    def append(self, batch: pa.RecordBatch) -> None:
        """Add `batch`; when this returns, it survives the death of this process.

        Raises:
            OSError: it could not be written, or the journal was removed; what was in it before still is, if anything.
        """
        if os.fstat(self._descriptor).st_nlink == 0:
            raise FileNotFoundError(f"the journal {self.path.name} was removed")
        self._put(batch.serialize())

    def discard(self) -> None:
        """Remove it: its rows are in a segment, or are given up."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Leave it as it is, to be recovered."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _put(self, message: pa.Buffer) -> None:
        if self._torn:
            # Half a message would hide all that come after it.
            os.ftruncate(self._descriptor, self._good)
            os.lseek(self._descriptor, self._good, os.SEEK_SET)
        self._torn = True
        rest = memoryview(message)
        while rest.nbytes:
            rest = rest[os.write(self._descriptor, rest) :]
        self._good += message.size
        self._torn = False


def journals(directory: Path) -> list[Path]:
    """Return the journals below `directory`, those of living writers among them."""
    return sorted((directory / _FOLDER).glob(f"*{_SUFFIX}"))


def read_journal(path: Path) -> pa.Table | None:
    """Return the whole batches in a journal, which may be growing or torn; None where there are none or it is gone."""
    batches: list[pa.RecordBatch] = []
    with contextlib.suppress(pa.ArrowException, OSError), pa.OSFile(str(path), "rb") as file:
        reader = pa.ipc.open_stream(file)
        with contextlib.suppress(StopIteration):
            while True:
                batches.append(reader.read_next_batch())
    return pa.Table.from_batches(batches) if batches else None


@dataclass(frozen=True)
class Recovered:
    """What became of the journals of dead writers."""

    segments: int = 0
    rows: int = 0


def has_segment(directory: Path, name: str) -> bool:
    """Tell whether the segment `name` was written, on whatever day."""
    return any(segment_in(folder, day, name).path.exists() for day, folder in day_folders(directory, CAPTURE))


def recover(directory: Path) -> Recovered:
    """Make segments of the journals which dead writers left below `directory`; those of living ones are not touched.

    Raises:
        OSError: a segment could not be written; its journal and those after it are left for another time.
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
