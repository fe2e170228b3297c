"""Whatever a body holds: it is read as what it says, or refused with 4xx; nothing else ever comes of it."""

from __future__ import annotations

import io
import json
import struct
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill.runtime.serving.codecs.decompression import decompress
from tidemill.runtime.serving.codecs.json_strict import parse_json
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.content_negotiation import ARROW, CSV, JSON
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.protocols import mlflow, open_inference, predict
from tidemill.runtime.serving.protocols.base import Decoder, InferenceRequest

from tests.support.protocols import LIMITS, MIXED, NUMBERS, ROW, damaged, documents, rows_of, served, texts

THOROUGH = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
LENGTH = "inference-header-content-length"
ANY = Contract(
    (
        Column("j", "json", required=False, spec={"type": "any"}),
        Column("l", "json", required=False, spec={"type": "array", "items": {"type": "string"}}),
        Column("a", "double", required=False),
        Column("s", "string", required=False),
        Column("t", "datetime", required=False),
    )
)
TENSORS = Contract(
    (
        Column("x", "tensor", dtype="float32", shape=(-1, -1, 2)),
        Column("y", "tensor", dtype="str", shape=(-1, 1)),
        Column("z", "tensor", dtype="uint8", shape=(-1,)),
    )
)
CONTRACTS = [MIXED, NUMBERS, ANY, TENSORS]


def read(decoder: Decoder, contract: Contract, incoming: InferenceRequest) -> Batch | None:
    """Return what is read; None where it is refused, which must be said in a way that can be sent."""
    try:
        batch = decoder(_served(contract), incoming, LIMITS).batch
    except Problem as problem:
        assert 400 <= problem.status < 500
        document = problem.encoded("id", "mine")
        assert len(document) < 100_000, "the answer to a bad request is small"
        assert json.loads(document)["detail"]
        return None
    rows = contract.to_tuples(batch)
    assert 0 < batch.rows == len(rows) <= LIMITS.rows
    assert batch.event_times is None or len(batch.event_times) == batch.rows
    contract.to_record_batch(batch).validate(full=True)
    contract.to_pandas(batch)
    for row in rows:
        for column, value in zip(contract.columns, row, strict=True):
            check(column, value)
    return batch


@cache
def _model_of(at: int) -> Any:
    return served(CONTRACTS[at])


def _served(contract: Contract) -> Any:
    return _model_of(CONTRACTS.index(contract)) if contract in CONTRACTS else served(contract)


def check(column: Column, value: Any) -> None:
    """The value is one of those which the column's engine may be given."""
    if value is None:
        assert not column.required
        return
    kinds: dict[str, tuple[type, Callable[[Any], bool]]] = {
        "boolean": (bool, lambda _: True),
        "integer": (int, lambda number: -(2**31) <= number < 2**31),
        "long": (int, lambda number: -(2**63) <= number < 2**63),
        "float": (float, lambda number: abs(number) < 3.5e38),
        "double": (float, lambda number: abs(number) < float("inf")),
        "string": (str, lambda text: len(text.encode()) >= len(text) <= LIMITS.text),
        "binary": (bytes, lambda _: True),
        "datetime": (datetime, lambda moment: moment.utcoffset() is not None),
        "tensor": (np.generic, lambda array: len(array.shape) == len(column.shape) - 1),
    }
    if column.kind == "json":
        json.dumps(value, allow_nan=False).encode()
        return
    kind, fits = kinds[column.kind]
    assert type(value) is kind or (kind is np.generic and isinstance(value, (np.ndarray, np.generic)))
    assert fits(value), value


JSON_VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from([10**400, 2**63, "\ud800", "", "x" * 2_000, *MIXED.names]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(
                st.text(max_size=3),
                st.sampled_from(
                    [
                        "dataframe_records", "dataframe_split", "instances", "inputs", "columns", "data", "rows",
                        "index", "params", "event_time", "name", "shape", "datatype", "parameters", "outputs",
                        *MIXED.names,
                    ]
                ),
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=25,
)  # fmt: skip


@THOROUGH
@given(st.sampled_from([mlflow.decode, predict.decode, open_inference.decode]), st.sampled_from(CONTRACTS), JSON_VALUES)
def test_any_json(decoder: Decoder, contract: Contract, document: Any) -> None:
    read(decoder, contract, InferenceRequest(json.dumps(document).encode("utf-8", "surrogatepass"), JSON))


@THOROUGH
@given(
    st.sampled_from([mlflow.decode, predict.decode, open_inference.decode]),
    st.sampled_from(CONTRACTS),
    st.binary(max_size=100),
    st.sampled_from([JSON, CSV, ARROW, "application/octet-stream", "", "x/y", ";;=", "\x00"]),
    st.text(max_size=10),
)
def test_any_bytes(decoder: Decoder, contract: Contract, body: bytes, content_type: str, accept: str) -> None:
    read(decoder, contract, InferenceRequest(body, content_type, accept))


def reference(body: bytes, form: str) -> list[tuple[Any, ...]]:
    """What the standard library makes of records, each key once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert max(Counter(key for key, _ in pairs).values(), default=1) == 1, "a key came twice and was taken"
        return dict(pairs)

    records = json.loads(body.decode(), object_pairs_hook=once)[form]
    rows: list[tuple[Any, ...]] = []
    for record in records:
        row: list[Any] = []
        for column in MIXED.columns:
            value = record.get(column.name)
            if value is not None and column.kind in ("float", "double"):
                assert type(value) in (int, float)
                value = float(value)
            if value is not None and column.kind in ("integer", "long"):
                assert value == int(value)
                value = int(value)
            row.append(value)
        rows.append(tuple(row))
    return rows


@THOROUGH
@given(st.data())
def test_records_which_are_taken_are_what_they_say(data: st.DataObject) -> None:
    rows = data.draw(rows_of(MIXED, 0.03))
    form = data.draw(st.sampled_from(["dataframe_records", "instances"]))
    body = data.draw(texts({form: rows}))
    if data.draw(st.booleans()):
        body = data.draw(damaged(body))
    batch = read(mlflow.decode, MIXED, InferenceRequest(body, JSON))
    if batch is None or b"dataframe_split" in body:
        return
    form = next((each for each in ("dataframe_records", "instances") if each.encode() in body), form)
    plain = [at for at, column in enumerate(MIXED.columns) if column.kind not in ("datetime", "binary")]
    assert [[repr(row[at]) for at in plain] for row in batch.values] == [
        [repr(row[at]) for at in plain] for row in reference(body, form)
    ]


@THOROUGH
@given(st.data())
def test_damaged_documents(data: st.DataObject) -> None:
    contract = data.draw(st.sampled_from([MIXED, NUMBERS]))
    body = data.draw(documents(contract, odd=0.05).flatmap(texts))
    if data.draw(st.booleans()):
        body = data.draw(damaged(body))
    read(mlflow.decode, contract, InferenceRequest(body, JSON))


def a_request(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


V2_JSON = json.dumps(
    {
        "id": "1",
        "inputs": [
            a_request("distance", "FP64", [2], [1.5, 2]),
            a_request("carrier", "BYTES", [2, 1], ["UA", "B6"]),
            a_request("seats", "INT64", [2], [3, 4]),
            a_request("temp", "FP32", [2], [None, 1]),
        ],
        "outputs": [{"name": "prediction", "parameters": {"binary_data": True}}],
    }
).encode()


def v2_binary() -> tuple[bytes, int]:
    texts_ = b"".join(struct.pack("<I", len(text)) + text for text in (b"UA", b"B6"))
    parts = [np.array([1.5, 2.0]).tobytes(), texts_, np.array([3, 4]).tobytes(), np.array([np.nan, 1], "f4").tobytes()]
    names = [("distance", "FP64"), ("carrier", "BYTES"), ("seats", "INT64"), ("temp", "FP32")]
    inputs = [
        {"name": name, "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(part)}}
        for (name, datatype), part in zip(names, parts, strict=True)
    ]
    head = json.dumps({"inputs": inputs}).encode()
    return head + b"".join(parts), len(head)


@THOROUGH
@given(st.data())
def test_damaged_requests_of_the_inference_protocol(data: st.DataObject) -> None:
    body, length = v2_binary()
    if data.draw(st.booleans()):
        read(open_inference.decode, MIXED, InferenceRequest(data.draw(damaged(V2_JSON)), JSON))
        return
    if data.draw(st.booleans()):
        length = data.draw(st.integers(0, len(body) + 1))
    changed = data.draw(damaged(body))
    said = data.draw(st.sampled_from([str(length), str(len(changed)), "0", "-1", "x", ""]))
    read(open_inference.decode, MIXED, InferenceRequest(changed, "application/octet-stream", "", {LENGTH: said}))


def test_the_undamaged_requests_are_taken() -> None:
    body, length = v2_binary()
    binary = read(open_inference.decode, MIXED, InferenceRequest(body, "", "", {LENGTH: str(length)}))
    plain = read(open_inference.decode, MIXED, InferenceRequest(V2_JSON, JSON))
    assert binary
    assert plain
    assert binary.values == plain.values
    for contract, body in arrow_bodies():
        assert read(mlflow.decode, contract, InferenceRequest(body, ARROW))


CSV_BODY = (
    b'distance,carrier,seats,note,built,night\n1.5,UA,3,"so, it is",2013-07-01T12:00:00Z,true\n-2,B6,4,"a ""b""\n",,\n'
)


@THOROUGH
@given(st.data())
def test_damaged_csv(data: st.DataObject) -> None:
    assert read(mlflow.decode, MIXED, InferenceRequest(CSV_BODY, CSV))
    put = st.sampled_from([b'"', b"\n", b"\r", b",", b"\x00", b"nan", b"1e999", b"\xff", b"\xef\xbb\xbf", b"\t"])
    body = CSV_BODY
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body = body[:at] + data.draw(put) + body[data.draw(st.integers(at, min(at + 5, len(body)))) :]
    read(mlflow.decode, MIXED, InferenceRequest(body, CSV))


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@cache
def arrow_bodies() -> list[tuple[Contract, bytes]]:
    mixed = pa.table(
        {
            "distance": [1.5, 2.0, 3.0],
            "carrier": pa.array(["UA", "B6", "UA"]).dictionary_encode(),
            "seats": pa.array([1, 2, 3], pa.int16()),
            "note": ["x", None, "é"],
            "built": pa.array([datetime(2013, 7, 1, tzinfo=UTC)] * 3),
            "night": [True, None, False],
            "blob": [b"1", None, b""],
        }
    )
    anything = pa.table({"j": [[{"a": 1, "b": [True]}], None, []], "l": [["a"], [], None]})
    tensors = pa.table(
        {
            "x": pa.array([[[1.0, 2.0]], [[3.0, 4.0]]], pa.list_(pa.list_(pa.float32(), 2))),
            "y": [["a"], ["b"]],
            "z": pa.array([1, 2], pa.uint8()),
        }
    )
    return [
        (MIXED, stream(mixed)),
        (MIXED, stream(pa.concat_tables([mixed, mixed]).slice(1, 4))),
        (ANY, stream(anything)),
        (TENSORS, stream(tensors)),
    ]


@settings(THOROUGH, max_examples=1_500)
@given(st.data())
def test_damaged_arrow_streams(data: st.DataObject) -> None:
    contract, body = data.draw(st.sampled_from(arrow_bodies()))
    damage = st.one_of(
        st.sampled_from(
            [b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00" * 4, b"\x01\x00\x00\x00", b"\xff" * 7 + b"\x7f", b"\x00" * 8]
        ),
        st.binary(min_size=1, max_size=2),
        st.integers(8, 62).map(lambda bits: (1 << bits).to_bytes(8, "little")),
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        put = data.draw(damage)
        body = body[:at] + put + body[at + data.draw(st.sampled_from([len(put), len(put), 0, 8])) :]
    read(mlflow.decode, contract, InferenceRequest(body, ARROW))


def _schema(of: pa.Schema | bytes) -> bytes:
    """The first message of a stream."""
    schema = of if isinstance(of, pa.Schema) else pa.ipc.open_stream(of).schema
    return schema.serialize().to_pybytes()


def test_arrow_bodies_which_lie() -> None:
    contract, body = arrow_bodies()[0]
    table = pa.ipc.open_stream(body).read_all()
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    text = stream(pa.table({"distance": [1.0] * 2, "seats": [1] * 2, "carrier": ["x" * 77, "y"]}))
    offsets = struct.pack("<iii", 0, 77, 78)
    assert text.count(offsets) == 1
    assert read(mlflow.decode, contract, InferenceRequest(text, ARROW))
    lies = [(0, 77, 2**31 - 1), (0, 77, 7), (-1, 77, 78), (0, -77, 78), (77, 0, 78), (0, 78, 2**20)]
    lying = [text.replace(offsets, struct.pack("<iii", *lie)) for lie in lies]
    lying.append(text.replace(b"x" * 77, b"x" * 76 + b"\xff"))
    beyond = pa.DictionaryArray.from_arrays(pa.array([7], pa.int8()), pa.array(["a"]), safe=False)
    columns = {"distance": [1.0], "seats": [1], "carrier": ["UA"]}
    # By way of the schema alone: Arrow itself divides by the size of such lists.
    no_lists, no_bytes = pa.schema([("j", pa.list_(pa.int64(), 0))]), pa.schema([("j", pa.binary(0))])
    one_list = stream(pa.table({"j": pa.array([[1]], pa.list_(pa.int64(), 1))}))
    bodies = [
        (contract, sink.getvalue()),
        (contract, body[:-1]),
        (contract, body[: len(body) // 2]),
        (contract, body * 2),
        (contract, b""),
        (contract, b"\xff\xff\xff\xff\x00\x00\x00\x00"),
        (contract, b"\xff\xff\xff\xff\xff\xff\xff\x7f"),
        (ANY, stream(pa.table({"j": pa.array([], pa.int64())}))),
        *((ANY, _schema(schema) + one_list[len(_schema(one_list)) :]) for schema in (no_lists, no_bytes)),
        (ANY, stream(pa.table({"j": pa.nulls(1_001)}))),
        (ANY, stream(pa.table([pa.array([1.0]), pa.array([2.0])], names=["a", "a"]))),
    ]
    bodies += [(contract, each) for each in lying]
    bodies.append((contract, stream(pa.table({**columns, "carrier": beyond}))))
    for at, (of, hostile) in enumerate(bodies):
        assert read(mlflow.decode, of, InferenceRequest(hostile, ARROW)) is None, at


def one(**changes: str) -> bytes:
    """A record whose values are the JSON texts given."""
    row = {key: json.dumps(value) for key, value in ROW.items() if value is not None} | changes
    return ('{"dataframe_records": [{' + ", ".join(f'"{key}": {value}' for key, value in row.items()) + "}]}").encode()


GOOD_BODY = one()


@pytest.mark.parametrize(
    "body",
    [
        *(
            one(distance=text)
            for text in (
                "NaN", "Infinity", "-Infinity", "nan", "1e999", "-1e999", "9" * 400, "9" * 5000, "0x10", "01", "+1",
                ".5", "1.", "1e", "--1", "1_0", '"1"', "true", "null", "[]", "{}", "1,", "\u0661", "1 2", "-",
            )
        ),
        *(one(seats=text) for text in ("1.5", "1e-2", "1e19", "9223372036854775808", "-9223372036854775809", "true")),
        *(one(small=text) for text in ("2147483648", "-2147483649", "0.1", "2147483648.0")),
        *(one(half=text) for text in ("3.5e38", "-1e39")),
        *(
            one(carrier=text)
            for text in (
                '"\\ud800"', '"\\udc00\\ud800"', '"\\u12"', '"\\x"', '"\x01"', '"\x00"', '"\n"',
                '"' + "x" * 1_001 + '"', "'a'", '"a', "1", "null",
            )
        ),
        *(one(night=text) for text in ("0", "1", '"true"', "True")),
        *(
            one(built=text)
            for text in (
                '"2013-02-29T00:00:00Z"', '"2013-07-01T24:00:00Z"', '"2013-07-01T23:59:60Z"', '"0001-01-01T00:00:00Z"',
                '"2013-07-01T00:00:00+24:00"', '"2013-07-01T00:00:00.1234567890Z"', '"\u0662013-07-01T00:00:00Z"', "0",
            )
        ),
        *(one(blob=text) for text in ('"a"', '"AA=A"', '"AAA\\n="', '"AA AA"', '"\u00e9AAA"')),
        one(carrier='"a", "carrier": "b"'),
        one(carrier='"a", "c\\u0061rrier": "b"'),
        GOOD_BODY.replace(b'"UA"', b'"\xff"'),
        GOOD_BODY.replace(b'"UA"', b'"\xc0\x80"'),
        GOOD_BODY.replace(b'"UA"', b'"\xed\xa0\x80"'),
        GOOD_BODY.replace(b'"UA"', b'"\xf4\x90\x80\x80"'),
        b"\xef\xbb\xbf" + GOOD_BODY,
        GOOD_BODY.decode().encode("utf-16"),
        GOOD_BODY.decode().encode("utf-32"),
        GOOD_BODY + b"x",
        GOOD_BODY + b"\x00",
        GOOD_BODY + GOOD_BODY,
        b"\x00" + GOOD_BODY,
        b"\xa0" + GOOD_BODY,
        *(GOOD_BODY[:at] for at in range(0, len(GOOD_BODY), 7)),
        b"",
        b" ",
        b"null",
        b"1",
        b'""',
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"dataframe_records": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"dataframe_records": [' + b'{"distance":' * 17 + b"1" + b"}" * 17 + b"]}",
        json.dumps({"dataframe_records": [{f"c{at}": at for at in range(2_000)}]}).encode(),
        json.dumps({"dataframe_records": [{"x" * 1_000_000: 1}]}).encode(),
        json.dumps({f"k{at}": 1 for at in range(20_000)}).encode(),
        json.dumps({"dataframe_records": [{}] * 1_001}).encode(),
        json.dumps({"dataframe_records": [1] * 1_000}).encode(),
        json.dumps({"dataframe_split": {"columns": ["x"] * 1_000, "data": [[1] * 1_000]}}).encode(),
        json.dumps({"dataframe_split": {"columns": [["distance"]], "data": [[1]]}}).encode(),
        json.dumps({"dataframe_split": {"columns": list(ROW), "data": [[]]}}).encode(),
        json.dumps({"dataframe_split": {"columns": list(ROW), "data": [list(ROW.values())[:-1]]}}).encode(),
        json.dumps({"inputs": {"distance": [1], "carrier": ["a", "b"], "seats": [1]}}).encode(),
        json.dumps({"inputs": {"distance": [], "carrier": [], "seats": []}}).encode(),
        json.dumps({"inputs": {"distance": {"0": 1}}}).encode(),
        json.dumps({"instances": [[1, 2]], "signature_name": "x"}).encode(),
    ],
)  # fmt: skip
def test_the_corpus_is_refused(body: bytes) -> None:
    assert read(mlflow.decode, MIXED, InferenceRequest(body, JSON)) is None


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, {}),
        ({"distance": "-0"}, {"distance": 0.0}),
        ({"distance": "-0.0"}, {"distance": -0.0}),
        ({"distance": "1e-999"}, {"distance": 0.0}),
        ({"distance": "9007199254740993"}, {"distance": 9007199254740992.0}),
        ({"distance": "1" + "0" * 300}, {"distance": 1e300}),
        ({"seats": "9223372036854775807"}, {"seats": 2**63 - 1}),
        ({"seats": "-0"}, {"seats": 0}),
        ({"seats": "1.0"}, {"seats": 1}),
        ({"seats": "1e2"}, {"seats": 100}),
        ({"small": "-0.0"}, {"small": 0}),
        ({"colour": "1"}, {}),
        ({"distance\\u0000": "1"}, {"distance": 1.5}),
        ({"carrier": '"\\u0000"'}, {"carrier": "\x00"}),
        ({"carrier": '"\\ud83d\\ude00\\/\\""'}, {"carrier": '\U0001f600/"'}),
        ({"carrier": '"' + "\u00e9" * 1_000 + '"'}, {"carrier": "\u00e9" * 1_000}),
        ({"carrier": '""'}, {"carrier": ""}),
        ({"blob": '""'}, {"blob": b""}),
    ],
)
def test_the_unusual_which_is_right_is_taken(changes: dict[str, str], values: dict[str, Any]) -> None:
    batch = read(mlflow.decode, MIXED, InferenceRequest(one(**changes), JSON))
    assert batch
    assert isinstance(batch.values, list)
    for name, value in values.items():
        assert repr(batch.values[0][MIXED.positions[name]]) == repr(value)


@THOROUGH
@given(
    st.binary(max_size=200),
    st.sampled_from(["gzip", "deflate", "gzip, deflate", "br", "", "identity,identity", "\xff"]),
)
def test_any_packed_body(body: bytes, encoding: str) -> None:
    try:
        assert len(decompress(body, encoding, 100)) <= 200
    except Problem as problem:
        assert 400 <= problem.status < 500


@pytest.mark.parametrize("body", [b"", b"\n", b"x", b"x\n"])
def test_a_csv_without_rows_is_refused_where_every_column_may_be_left_out(body: bytes) -> None:
    contract = Contract((Column("x", "double", required=False),))
    assert read(mlflow.decode, contract, InferenceRequest(body, "text/csv")) is None


def test_more_lists_and_objects_than_a_body_can_need_are_refused_before_they_are_made() -> None:
    body = b'{"dataframe_records": [' + b"[]," * 500_000 + b"[]]}"
    with pytest.raises(Problem, match=r"has 500003 lists and objects; the limit is 500000; send Arrow") as caught:
        parse_json(body)
    assert caught.value.status == 413
