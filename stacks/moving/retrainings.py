"""The retraining service's database, prepared for another stack."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from ...runtime.retraining.retrainings import COPY_FILE, FILE, OLD_FILE, RetrainingStore

__all__ = ["COPY_FILE", "FILE", "OLD_FILE", "settled"]

_CLOSED = "the platform was moved while this retraining was open; the next alert queues another one"


@contextmanager
def settled(source: BinaryIO, *, name: str = FILE) -> Generator[tuple[BinaryIO, int]]:
    """Yield the database `source` with all open retrainings closed, since their jobs run on the old platform.

    Args:
        source: the database as it was exported.
        name: its file name; `OLD_FILE` in archives of earlier releases.
    """
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        path = Path(folder) / FILE
        with path.with_name(name).open("wb") as file:
            while chunk := source.read(1 << 20):
                file.write(chunk)
        with closing(RetrainingStore(path)) as store:
            for retraining in store.open_retrainings():
                store.save(retraining.closed("failed", _CLOSED))
        # Closing the last connection has merged the journal into the file.
        with path.open("rb") as file:
            yield file, path.stat().st_size
