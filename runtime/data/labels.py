"""Sends labels in bulk to a model server: the true outcomes of requests that it answered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..common.errors import ConfigError, PlatformError, TidemillError, UnreachableError
from ..common.http import json_body, open_client, server_message
from ..common.secrets import read_secret

if TYPE_CHECKING:
    import httpx
    import pandas as pd
    import pyarrow as pa

LabelsLike: TypeAlias = "pd.DataFrame | pa.Table"

_TEMPORARY = frozenset({429, 502, 503, 504})
_LONGEST_PAUSE = 30.0
_SHORTEST_PAUSE = 0.05
_TIMEOUT = 60.0


@dataclass(frozen=True)
class SentLabels:
    """The result of sending labels.

    Attributes:
        labels: number of labels that the server acknowledged, which means they are on its disk.
        unlabelled: number of rows without a label, which were not sent.
        requests: number of successful requests.
        retries: number of repeated requests, because the server was busy or unreachable.
    """

    labels: int
    unlabelled: int
    requests: int
    retries: int


def send_labels(
    labels: LabelsLike, url: str, *, key_file: Path, rows: int = 5_000, patience: float = 120.0
) -> SentLabels:
    """Send labels to the model server at `url`, in parts; each is acknowledged before the next is sent.

    A label belongs to a `request_id` and `row`. A later label for the same row replaces it, so it is safe to send
    everything again after an error.

    For example, when the outcomes of requests are known:

        outcomes = pd.DataFrame({"request_id": ids, "row": [0] * len(ids), "label": delayed})
        sent = data.send_labels(outcomes, "https://flights.example.org", key_file=Path("flights.key"))
        print(f"{sent.labels} labels sent, {sent.unlabelled} not known yet")

    Args:
        labels: columns `request_id` (from the response), `row` (position in the request; 0 if the column is missing)
            and `label` (a number; rows with null or NaN are not sent).
        url: base URL of the server, without a path.
        key_file: file with an API key of the server.
        rows: labels in one request; not more than the server's limit.
        patience: seconds to retry a part while the server is busy or unreachable.

    Raises:
        ConfigError: a column is missing or has wrong values, or the server rejects the key or the labels.
        NotFoundError: the key file cannot be read.
        UnreachableError: the server was busy or unreachable for all of `patience`.
        PlatformError: the server failed.
    """
    key = read_secret(key_file)
    table, unlabelled = _checked(labels)
    requests = retries = sent = 0
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with open_client(url, headers=headers, timeout=_TIMEOUT) as client:
        for body, count in _bodies(table, rows):
            try:
                tries = _post(client, body, patience)
            except TidemillError as error:
                error.message += f"; {sent} of {table.num_rows} labels were accepted, and it is safe to send all again"
                raise
            requests, retries, sent = requests + 1, retries + tries, sent + count
    return SentLabels(sent, unlabelled, requests, retries)


def _checked(labels: LabelsLike) -> tuple[pa.Table, int]:
    """Return the labels as a table of the three columns, and the number of rows without a label."""
    import pyarrow as pa
    import pyarrow.compute as pc

    given = labels if isinstance(labels, pa.Table) else pa.Table.from_pandas(labels, preserve_index=False)
    for name in ("request_id", "label"):
        if name not in given.column_names:
            raise ConfigError("the labels lack this column", field="labels", value=name)
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
            raise ConfigError("a label lacks it", field=f"labels.{name}", value=None, hint="drop rows without it")
    return known, table.num_rows - known.num_rows


def _bodies(table: pa.Table, rows: int) -> Iterator[tuple[bytes, int]]:
    for start in range(0, table.num_rows, rows):
        part = table.slice(start, rows)
        yield json.dumps({"labels": part.to_pylist()}).encode(), part.num_rows


def _post(client: httpx.Client, body: bytes, patience: float) -> int:
    """Send one part until it is acknowledged; return the number of retries."""
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
    """Return the reason of a temporary refusal.

    Raises:
        ConfigError, PlatformError: the refusal is permanent.
    """
    detail = server_message(json_body(answer), f"the server answered {answer.status_code}", "detail")
    if answer.status_code in _TEMPORARY:
        return detail
    if 400 <= answer.status_code < 500:
        raise ConfigError(detail, field="labels")
    raise PlatformError(detail, field="labels")


def _pause(answer: httpx.Response) -> float:
    try:
        seconds = float(answer.headers.get("retry-after", "1"))
    except ValueError:
        seconds = 1.0
    return min(max(seconds, _SHORTEST_PAUSE), _LONGEST_PAUSE)
