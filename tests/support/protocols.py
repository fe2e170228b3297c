"""A served model for tests of the protocols, and contracts and bodies as hypothesis draws them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.engines.prepared import Prepared
from tidemill.runtime.serving.inference.batch import Batch, Outputs
from tidemill.runtime.serving.settings import LimitSettings
from tidemill.runtime.serving.versions.model import ServedModel, VersionInfo

LIMITS = LimitSettings(body_bytes=1_000_000, rows=1_000, columns=50, depth=16, text=1_000)
SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
MIXED = Contract(
    (
        Column("distance", "double"),
        Column("temp", "double", required=False),
        Column("carrier", "string"),
        Column("note", "string", required=False),
        Column("seats", "long"),
        Column("small", "integer", required=False),
        Column("half", "float", required=False),
        Column("night", "boolean", required=False),
        Column("built", "datetime", required=False),
        Column("blob", "binary", required=False),
    )
)
ROW: dict[str, Any] = {
    "distance": 1.5,
    "temp": None,
    "carrier": "UA",
    "note": "so, it is",
    "seats": 3,
    "small": -1,
    "half": 0.5,
    "night": True,
    "built": "2013-07-01T12:00:00Z",
    "blob": "AAH/",
}
NUMBERS = Contract(tuple(Column(name, "double") for name in "abc"))


class Present:
    """Gives, for each row, how many of its values are not null."""

    name = "present"
    mergeable = True

    def __init__(self, contract: Contract, outputs: Outputs | None = None) -> None:
        self._contract = contract
        self._outputs = outputs

    def predict(self, batch: Batch) -> Outputs:
        if self._outputs is not None:
            return self._outputs
        rows = self._contract.to_tuples(batch)
        return np.array([sum(value is not None for value in row) for row in rows], dtype=np.float64)

    def close(self) -> None:
        pass


def served(
    contract: Contract,
    *,
    outputs: Outputs | None = None,
    output: Any = "prediction",
    kind: pa.DataType | None = None,
    example: list[dict[str, Any]] | None = None,
) -> ServedModel:
    """Return a real served model with a small engine."""
    tags = {"tidemill.git.commit": "decade", "tidemill.lake.commit": "c0ffee", "other": "x"}
    info = VersionInfo("flights", "3", "champion", "models:/m-3", "run", tags)
    prepared = Prepared({}, contract, output, pa.struct([(output, kind or pa.float64())]), {}, "", example or [])
    return ServedModel(info, prepared, Present(contract, outputs))


NAMES = st.one_of(
    st.sampled_from(["a", "b", "c", "distance", "0", "1", "é", "with space", 'quo"te', "back\\slash", ""]),
    st.text(st.characters(codec="utf-8"), max_size=6),
)


@st.composite
def contracts(draw: st.DrawFn, kinds: tuple[str, ...] = SCALARS) -> Contract:
    named = draw(st.booleans())
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    columns = [
        Column(name if named else str(at), draw(st.sampled_from(kinds)), draw(st.booleans()))  # type: ignore[arg-type]
        for at, name in enumerate(names)
    ]
    return Contract(tuple(columns), named)


TIMES = st.sampled_from(
    ["2013-07-01T12:00:00Z", "2013-07-01 12:00:00.123456+02:00", "2200-01-01t00:00:00z", "1700-01-01T00:00:00-05:30"]
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.one_of(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-1000, 1000)),
    "double": st.one_of(
        st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70), st.just(-0.0), st.just(0)
    ),
    "string": st.text(max_size=8),
    "binary": st.binary(max_size=8).map(lambda raw: base64.b64encode(raw).decode()),
    "datetime": TIMES,
}
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 2**64, 10**400, 1e39, 3.5e38, 1.0, float("nan"), float("inf")]
    ),
    st.text(max_size=3),
    st.sampled_from(["\ud800", "\x00", "2013-02-30T00:00:00Z", "1.5", "x" * 1_001, '"', "\\"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


@st.composite
def rows_of(draw: st.DrawFn, contract: Contract, odd: float) -> list[dict[str, Any]]:
    """Rows of `contract`, some of whose values do not fit."""
    rows: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        row: dict[str, Any] = {}
        for column in contract.columns:
            chance = draw(st.floats(0, 1))
            if chance < odd:
                row[column.name] = draw(ODD)
            elif not column.required and chance > 0.8:
                if chance > 0.9:
                    row[column.name] = None
            else:
                row[column.name] = draw(GOOD[column.kind])
        if odd and draw(st.floats(0, 1)) < odd:
            row[draw(NAMES)] = draw(ODD)
        rows.append(row)
    return rows


@st.composite
def documents(draw: st.DrawFn, contract: Contract, odd: float = 0.0) -> dict[str, Any]:
    """A body for `/invocations` in one of its forms."""
    rows = draw(rows_of(contract, odd))
    names = draw(st.permutations(contract.names))
    if odd and draw(st.booleans()):
        names = names[: draw(st.integers(0, len(names)))]
    lists = [[row.get(name) for name in names] for row in rows]
    form = draw(st.sampled_from(["dataframe_records", "dataframe_split", "instances", "inputs", "lists", "columns"]))
    document: dict[str, Any]
    if form == "dataframe_split":
        split: dict[str, Any] = {"columns": names, "data": lists}
        if not contract.named and draw(st.booleans()):
            split["columns"] = [int(name) for name in names]
        if draw(st.booleans()):
            split["index"] = list(range(len(rows)))
        document = {form: split}
    elif form == "lists":
        document = {"instances": [[row.get(name) for name in contract.names] for row in rows]}
    elif form == "columns":
        document = {"inputs": {name: [row.get(name) for row in rows] for name in contract.names}}
    else:
        document = {form: rows}
    if draw(st.floats(0, 1)) < 0.2:
        document["event_time"] = draw(st.one_of(TIMES, st.lists(TIMES, min_size=len(rows), max_size=len(rows))))
    if draw(st.floats(0, 1)) < odd:
        document["event_time"] = draw(ODD)
    if draw(st.floats(0, 1)) < odd:
        document[draw(st.sampled_from(["dataframe_records", "instances", "params", "colour"]))] = draw(ODD)
    return document


@st.composite
def texts(draw: st.DrawFn, document: Any) -> bytes:
    """`document` as JSON, in one of the ways in which that can be written."""
    spaced = draw(st.sampled_from([(", ", ": "), (",", ":"), (" ,\n", "\t: ")]))
    text = json.dumps(document, ensure_ascii=draw(st.booleans()), separators=spaced)
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn, body: bytes) -> bytes:
    """`body` with some bytes cut out, put in, doubled or replaced."""
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        to = min(len(body), at + draw(st.integers(0, 12)))
        put = draw(
            st.one_of(
                st.binary(max_size=4),
                st.sampled_from(
                    [b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"\x00", b"-0", b"1e999", b"NaN", b"\xff"]
                ),
                st.just(body[at:to] * 2),
                st.just(body[at:to] + b"," + body[at:to]),
            )
        )
        body = body[:at] + put + body[to:]
    return body


def doubled(text: str) -> list[str]:
    """`text`, a JSON object without nested ones in its keys, with each of its keys said twice in turn."""
    decoder = json.JSONDecoder()
    found: list[str] = []
    for at, character in enumerate(text):
        if character != '"':
            continue
        try:
            key, end = decoder.raw_decode(text, at)
        except ValueError:
            continue
        if isinstance(key, str) and text[end : end + 1] == ":":
            value_at = end + 1 + (text[end + 1] == " ")
            _, value_end = decoder.raw_decode(text, value_at)
            member = text[at:value_end]
            found.append(f"{text[:at]}{member}, {text[at:]}")
    return found
