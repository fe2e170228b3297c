"""Labels in bulk: what became of the rows which a model server answered, sent to it when it is known."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..common.errors import ConfigError, PlatformError, TidemillError, UnreachableError
from ..common.secrets import is_loopback, read_secret

if TYPE_CHECKING:
    import httpx
    import pandas as pd
    import pyarrow as pa

__all__ = ["SentLabels", "send_labels"]

LabelsLike: TypeAlias = "pd.DataFrame | pa.Table"

_LATER = frozenset({429, 502, 503, 504})
_LONGEST_PAUSE = 30.0
_SHORTEST_PAUSE = 0.05
_TIMEOUT = 60.0


@dataclass(frozen=True)
class SentLabels:
    """What became of labels.

    Attributes:
        labels: those which the server acknowledged: they are on its disk.
        unlabelled: rows without a label yet, which were not sent.
        requests: how many requests it took.
        retries: how many more, because the server was busy or away.
    """

    labels: int
    unlabelled: int
    requests: int
    retries: int


def send_labels(
    labels: LabelsLike, url: str, *, key_file: Path, rows: int = 5_000, patience: float = 120.0
) -> SentLabels:
    """Send labels to the model server at `url`, in parts, each acknowledged before the next.

    A label is known by its `request_id` and `row`: to send one twice changes nothing, and a later one replaces it. So
    after an error everything may be sent again.

    For example, once the outcomes of requests are known:

        outcomes = pd.DataFrame({"request_id": ids, "row": [0] * len(ids), "label": delayed})
        sent = data.send_labels(outcomes, "https://flights.example.org", key_file=Path("flights.key"))
        print(f"{sent.labels} labels are kept, {sent.unlabelled} are not known yet")

    Args:
        labels: columns `request_id` (what the answer bore), `row` (position in its request; 0 where there is no such
            column) and `label` (a number; a row whose label is null or NaN is left out).
        url: where the server answers, without a path.
        key_file: file with an API key of the server.
        rows: labels in one request; no more than the server's limit.
        patience: seconds for which a part is tried while the server is busy or away.

    Raises:
        ConfigError: a column is missing or no such values; the key is wrong; the server does not take the labels.
        NotFoundError: the key cannot be read.
        UnreachableError: the server was busy or away for all of `patience`.
        PlatformError: it answered something else.
    """
    import httpx

    key = read_secret(key_file)
    table, unlabelled = _checked(labels)
    requests = retries = sent = 0
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    # On this machine a proxy has no part in it.
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT, trust_env=not is_loopback(url)) as client:
        for body, count in _bodies(table, rows):
            try:
                tries = _post(client, body, patience)
            except TidemillError as error:
                error.message += f"; {sent} of {table.num_rows} labels are kept, and to send them again does no harm"
                raise
            requests, retries, sent = requests + 1, retries + tries, sent + count
    return SentLabels(sent, unlabelled, requests, retries)


def _checked(labels: LabelsLike) -> tuple[pa.Table, int]:
    """Return the labels as a table of the three columns, and how many rows had none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    given = labels if isinstance(labels, pa.Table) else pa.Table.from_pandas(labels, preserve_index=False)
    for name in ("request_id", "label"):
        if name not in given.column_names:
            raise ConfigError("the labels have no such column", field="labels", value=name)
    if "row" not in given.column_names:
        given = given.append_column("row", pa.array([0] * given.num_rows, pa.int32()))
    columns: list[Any] = []
    for name, of in (("request_id", pa.string()), ("row", pa.int32()), ("label", pa.float64())):
        try:
            columns.append(given[name].cast(of))
        except pa.ArrowInvalid as error:
            raise ConfigError(f"not a column of {of} ({error})", field=f"labels.{name}") from None
    table = pa.table(columns, names=["request_id", "row", "label"])
    known = table.filter(pc.field("label").is_valid() & ~pc.field("label").is_nan())
    for name in ("request_id", "row"):
        if known[name].null_count:
            raise ConfigError("a label needs it", field=f"labels.{name}", value=None, hint="leave such rows out")
    return known, table.num_rows - known.num_rows


def _bodies(table: pa.Table, rows: int) -> Iterator[tuple[bytes, int]]:
    for start in range(0, table.num_rows, rows):
        part = table.slice(start, rows)
        yield json.dumps({"labels": part.to_pylist()}).encode(), part.num_rows


def _post(client: httpx.Client, body: bytes, patience: float) -> int:
    """Send one part until it is acknowledged; return how often it was tried again."""
    import httpx

    end = time.monotonic() + patience
    tries = 0
    while True:
        try:
            answer = client.post("/labels", content=body)
        except httpx.TransportError as error:
            problem, pause = f"the model server does not answer ({type(error).__name__})", 1.0
        else:
            if answer.is_success:
                return tries
            problem, pause = _refusal(answer), _pause(answer)
        if time.monotonic() + pause > end:
            raise UnreachableError(problem, field="url", value=str(client.base_url))
        time.sleep(pause)
        tries += 1


def _refusal(answer: httpx.Response) -> str:
    """Return why the server wants to be asked later.

    Raises:
        ConfigError, PlatformError: later it would say the same.
    """
    try:
        said: Any = answer.json()
        detail = str(said["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the server answered {answer.status_code}"
    if answer.status_code in _LATER:
        return detail
    if 400 <= answer.status_code < 500:
        raise ConfigError(detail, field="labels")
    raise PlatformError(detail, field="labels")


def _pause(answer: httpx.Response) -> float:
    try:
        wanted = float(answer.headers.get("retry-after", "1"))
    except ValueError:
        wanted = 1.0
    return min(max(wanted, _SHORTEST_PAUSE), _LONGEST_PAUSE)
