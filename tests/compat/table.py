"""The rows of the compatibility table in docs/serving.md: the tests record them, `results.json` keeps them.

    record("scikit-learn", "3.17", "columns", served=True, engine="linear", same=True)

A row that differs from the file fails the test. `pytest tests/compat --update-compat` writes the rows, and
`python -m tests.support.documented` writes the page. A module that records rows lists their keys in `ROWS`, so that
`test_table.py` finds rows that no test records.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from filelock import FileLock

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
START, END = "<!-- compatibility: start -->\n", "<!-- compatibility: end -->\n"
_HEAD = "| flavour | MLflow | signature | served | engine | same answer as MLflow |\n|---|---|---|---|---|---|\n"
_OPTION = "--update-compat"
_update = False


class Key(NamedTuple):
    """What a row is about."""

    flavour: str
    mlflow_version: str
    signature_kind: str


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        served: whether `tidemill serve` serves the model.
        engine: the engine that answers, as `/readyz` names it; empty if the model is not served.
        same: whether the answers equal those of MLflow's scoring server.
        note: why the model is not served, how it is served, or what differs. Shown below the answer.
    """

    flavour: str
    mlflow_version: str
    signature_kind: str
    served: bool
    engine: str
    same: bool
    note: str = ""

    @property
    def key(self) -> Key:
        """What the row is about."""
        return Key(self.flavour, self.mlflow_version, self.signature_kind)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_OPTION, action="store_true", help="write tests/compat/results.json instead of comparing it")


def pytest_configure(config: pytest.Config) -> None:
    global _update
    _update = bool(config.getoption(_OPTION))


def read() -> dict[Key, Row]:
    """Return the committed rows."""
    if not RESULTS.exists():
        return {}
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return {row.key: row for row in (Row(**each) for each in rows)}


def write(rows: dict[Key, Row]) -> None:
    """Write the rows, sorted."""
    documents = ",\n".join(f"  {json.dumps(asdict(rows[key]), ensure_ascii=False)}" for key in sorted(rows, key=_order))
    RESULTS.write_text(f"[\n{documents}\n]\n", encoding="utf-8")


def _order(key: Key) -> tuple[str, list[int], str]:
    return key.flavour.lower(), [int(part) for part in re.findall(r"\d+", key.mlflow_version)], key.signature_kind


def record(
    flavour: str,
    mlflow_version: str,
    signature_kind: str,
    served: bool,
    engine: str,
    same: bool,
    note: str = "",
) -> None:
    """Compare a row with the committed one; with `--update-compat`, write it.

    Raises:
        AssertionError: the committed row differs, or there is none; or an answer differs from MLflow's and no reason
            is given.
    """
    row = Row(flavour, mlflow_version, signature_kind, served, engine, same, note)
    assert same or note, f"the answer differs from MLflow's, and no reason is given: {row}"
    if _update:
        with _lock():
            write(read() | {row.key: row})
        return
    committed = read().get(row.key)
    assert row == committed, f"run `pytest tests/compat {_OPTION}` if the row is right: {row}, committed: {committed}"


def drop_all_but(keys: set[Key]) -> None:
    """With `--update-compat`, remove the rows that no test records; otherwise fail if there are such rows."""
    stale = read().keys() - keys
    if stale and _update:
        with _lock():
            write({key: row for key, row in read().items() if key in keys})
        return
    assert not stale, f"no test records these rows; run `pytest tests/compat {_OPTION}`: {sorted(stale)}"


def _lock() -> FileLock:
    return FileLock(Path(tempfile.gettempdir(), "tidemill-compat.lock"))


def markdown() -> str:
    """Return the table."""
    rows = read()
    return _HEAD + "".join(f"{_line(rows[key])}\n" for key in sorted(rows, key=_order))


def _line(row: Row) -> str:
    served = "yes" if row.served else "no"
    same = ("yes" if row.same else "no") if row.served else ""
    if row.note:
        same = f"{same}: {row.note}" if same else row.note
    cells = [row.flavour, row.mlflow_version, row.signature_kind, served, row.engine, same]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def renewed(text: str) -> str:
    """Return the page with its table updated."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{markdown()}{END}{after}"
