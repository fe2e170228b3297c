"""The records of the retraining service, made fit for another place."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from ...runtime.retraining.retrainings import TurnStore, now

__all__ = ["FILE", "settled"]

FILE = "turns.db"
"""Name of the records in their store."""

_CLOSED = "the platform was moved while this turn was open; the next alert queues another one"


@contextmanager
def settled(source: BinaryIO) -> Generator[tuple[BinaryIO, int]]:
    """Give the records in which no turn is open: its job runs at the old place, if it still does."""
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        path = Path(folder) / FILE
        with path.open("wb") as file:
            while chunk := source.read(1 << 20):
                file.write(chunk)
        with closing(TurnStore(path)) as store:
            for turn in store.open_turns():
                store.save(turn.model_copy(update={"state": "failed", "detail": _CLOSED, "finished_at": now()}))
        # Closing the last connection has put the journal into the file.
        with path.open("rb") as file:
            yield file, path.stat().st_size
