"""Bodies of each type become the same rows, and answers come in the form which was asked for."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import zlib
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tidemill.runtime.serving.codecs.decompression import decompress
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.content_negotiation import ARROW, CSV, JSON
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.protocols import mlflow, predict
from tidemill.runtime.serving.protocols.base import EncodedResponse, InferenceRequest, InferenceResult

from tests.support.protocols import LIMITS, MIXED, NUMBERS, ROW, served

SECOND = {**ROW, "temp": 2, "note": None, "night": None, "built": None, "blob": None, "half": None, "small": None}
ROWS = [ROW, SECOND]
VALUES = [
    (1.5, None, "UA", "so, it is", 3, -1, 0.5, True, datetime(2013, 7, 1, 12, tzinfo=UTC), b"\x00\x01\xff"),
    (1.5, 2.0, "UA", None, 3, None, None, None, None, None),
]


def read(body: bytes, content_type: str = JSON, contract: Contract = MIXED) -> Batch:
    return mlflow.decode(served(contract), InferenceRequest(body, content_type), LIMITS).batch


def refused(body: bytes, content_type: str = JSON, contract: Contract = MIXED) -> Problem:
    with pytest.raises(Problem) as caught:
        read(body, content_type, contract)
    return caught.value


def fields(problem: Problem) -> list[str]:
    return [error.field for error in problem.errors]


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow(["" if value is None else str(value) for value in row.values()])
    return sink.getvalue().encode()


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_arrow(rows: list[dict[str, Any]], **types: pa.DataType) -> bytes:
    given = [
        {**row, "built": VALUES[0][8] if row["built"] else None, "blob": VALUES[0][9] if row["blob"] else None}
        for row in rows
    ]
    schema = pa.schema([pa.field(field.name, types.get(field.name, field.type)) for field in MIXED.schema])
    return stream(pa.Table.from_pylist(given, schema=schema))


def test_all_types_of_bodies_say_the_same() -> None:
    for body, kind in (
        (json.dumps({"dataframe_records": ROWS}).encode(), JSON),
        (json.dumps({"dataframe_records": ROWS}).encode(), ""),
        (json.dumps({"dataframe_records": ROWS}).encode(), "Application/JSON; charset=UTF-8"),
        (as_csv(ROWS), CSV),
        (b"\xef\xbb\xbf" + as_csv(ROWS), "text/csv; charset=utf-8; header=present"),
        (as_csv([{key: row[key] for key in reversed(row)} for row in ROWS]), CSV),
        (as_arrow(ROWS), ARROW),
        (
            as_arrow(
                ROWS,
                carrier=pa.dictionary(pa.int8(), pa.string()),
                note=pa.large_string(),
                seats=pa.uint8(),
                small=pa.int64(),
                temp=pa.int16(),
                half=pa.float64(),
                built=pa.timestamp("ns", tz="America/New_York"),
                blob=pa.large_binary(),
            ),
            ARROW,
        ),
    ):
        assert read(body, kind).values == VALUES, kind


def test_times_of_events_may_be_a_column() -> None:
    times = [datetime(2013, 7, 1, 12, tzinfo=UTC), datetime(2013, 7, 2, tzinfo=UTC)]
    rows = [{**row, "event_time": time.isoformat()} for row, time in zip(ROWS, times, strict=True)]
    assert read(as_csv(rows), CSV).event_times == times
    table = pa.ipc.open_stream(as_arrow(ROWS)).read_all().append_column("event_time", pa.array(times))
    assert read(stream(table), ARROW).event_times == times


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seats": "3.5"}, "row[0].seats"),
        ({"seats": "1e19"}, "row[0].seats"),
        ({"seats": ""}, "row[0].seats"),
        ({"seats": "9223372036854775808"}, "row[0].seats"),
        ({"distance": "nan"}, "row[0].distance"),
        ({"distance": "inf"}, "row[0].distance"),
        ({"distance": "1e999"}, "row[0].distance"),
        ({"distance": "1 2"}, "row[0].distance"),
        ({"distance": "1_0"}, "row[0].distance"),
        ({"distance": "٣"}, "row[0].distance"),
        ({"half": "1e39"}, "row[0].half"),
        ({"carrier": ""}, "row[0].carrier"),
        ({"carrier": "x" * 1001}, "row[0].carrier"),
        ({"night": "yes"}, "row[0].night"),
        ({"built": "2013-07"}, "row[0].built"),
        ({"blob": "?"}, "row[0].blob"),
        ({"event_time": "today"}, "event_time[0]"),
    ],
)
def test_csv_is_read_strictly(change: dict[str, str], field: str) -> None:
    problem = refused(as_csv([{**ROW, **change}]), CSV)
    assert (problem.status, fields(problem)) == (422, [field])


def test_csv_which_is_none_is_refused() -> None:
    for body, status in (
        (b"", 422),
        (b"a,b,c\n", 422),
        (b"a,b,c\n1,2\n", 422),
        (b"a,b,c\n1,2,3,4,5\n", 422),
        (b"a,b,c\n1,2,3\n1,2,3,4\n", 422),
        (b"a,b,c\n\n  \n", 422),
        (b"a,b,b\n1,2,3\n", 422),
        (b"a,b\n1,2\n", 422),
        (b'a,b,c\n1,2,"3\n', 400),
        (b'a,b,c\n1,2,"3"4\n', 400),
        (b"a,b,c\n1,2,\xff\n", 400),
        (b"a,b,c\n" + b"1,2,3\n" * 1001, 413),
        (b"a" + b",x" * 51 + b"\n1\n", 413),
    ):
        assert refused(body, CSV, NUMBERS).status == status, body[:30]
    assert read(b'"a","b",c\r\n"1","2",3\r\n', CSV, NUMBERS).values == [(1.0, 2.0, 3.0)]
    text = Contract((Column("text", "string"),))
    assert read(b'text\n"a ""quoted""\nline"\n\x00\n', CSV, text).values == [('a "quoted"\nline',), ("\x00",)]
    listed = Contract((Column("list", "json", spec={"type": "array", "items": {"type": "long"}}),))
    assert read(b'list\n"[1, 2]"\n', CSV, listed).values == [([1, 2],)]
    assert fields(refused(b"list\n[1\n", CSV, listed)) == ["row[0].list"]


def arrow_columns(**columns: Any) -> bytes:
    return stream(pa.table({"a": [1.0], "b": [1.0], "c": [1.0], **columns}))


@pytest.mark.parametrize(
    ("columns", "status", "field"),
    [
        ({"a": pa.array([None], pa.float64())}, 422, "a"),
        ({"a": pa.array([float("nan")])}, 422, "a"),
        ({"a": pa.array([float("-inf")])}, 422, "a"),
        ({"a": pa.array(["1"])}, 422, "a"),
        ({"a": pa.array([True])}, 422, "a"),
        ({"a": pa.nulls(1)}, 422, "a"),
        ({"a": pa.array([[1.0]])}, 422, "a"),
        ({"a": pa.array(["1"], pa.string_view())}, 422, "a"),
        ({"a": pa.array([{}], pa.struct([]))}, 422, "a"),
        ({"a": pa.array([[None]], pa.list_(pa.null()))}, 422, "a"),
        ({"event_time": pa.array([0], pa.timestamp("us"))}, 422, "event_time"),
        ({f"c{at}": [1] for at in range(60)}, 413, None),
    ],
)
def test_arrow_is_read_strictly(columns: dict[str, Any], status: int, field: str | None) -> None:
    problem = refused(arrow_columns(**columns), ARROW, NUMBERS)
    assert problem.status == status
    assert field is None or fields(problem) == [field]


@pytest.mark.parametrize(
    ("column", "array"),
    [
        (Column("x", "integer"), pa.array([2**31])),
        (Column("x", "integer"), pa.array([1.5])),
        (Column("x", "long"), pa.array([1.0, float("nan")])),
        (Column("x", "datetime"), pa.array([1], pa.timestamp("ns", tz="UTC"))),
        (Column("x", "long"), pa.array([2**63], pa.uint64())),
        (Column("x", "float"), pa.array([1e39])),
        (Column("x", "float", required=False), pa.array([1e39, None])),
        (Column("x", "boolean"), pa.array([1])),
        (Column("x", "string"), pa.array(["x" * 1001])),
        (Column("x", "string"), pa.array([b"x"])),
        (Column("x", "binary"), pa.array(["x"])),
        (Column("x", "datetime"), pa.array([datetime(1600, 7, 1, tzinfo=UTC)])),
        (Column("x", "datetime"), pa.array([2**62], pa.timestamp("s", tz="UTC"))),
        (Column("x", "datetime"), pa.array(["2013-07-01T12:00:00Z"])),
        (Column("x", "json", spec={"type": "any"}), pa.array([[float("nan")]])),
        (Column("x", "json", spec={"type": "any"}), pa.array(["{"])),
        (Column("x", "json", spec={"type": "any"}), pa.array([datetime(2013, 7, 1, tzinfo=UTC)])),
        (Column("x", "tensor", dtype="float32", shape=(-1, 2)), pa.array([[1.0, 2.0]])),
        (Column("x", "tensor", dtype="float64", shape=(-1, 2)), pa.array([[1.0], [2.0]])),
        (Column("x", "tensor", dtype="float64", shape=(-1, 2)), pa.array([[1.0, None]])),
        (Column("x", "tensor", dtype="float64", shape=(-1, -1)), pa.array([[1.0], [2.0, 3.0]])),
        (Column("x", "tensor", dtype="float64", shape=(-1, -1)), pa.array([[1.0], None])),
        (Column("x", "tensor", dtype="float64", shape=(3, 1)), pa.array([[1.0], [2.0]])),
    ],
)
def test_arrow_values_must_fit_their_column(column: Column, array: pa.Array) -> None:
    assert refused(stream(pa.table({"x": array})), ARROW, Contract((column,))).status == 422


def test_arrow_lists_become_tensors_and_json() -> None:
    tensor = Contract((Column("x", "tensor", dtype="float64", shape=(-1, 2, 1)),))
    nested = [[[1.0], [2.0]], [[3.0], [4.0]]]
    for kind in (pa.list_(pa.list_(pa.float64())), pa.list_(pa.list_(pa.float32(), 1), 2)):
        batch = read(stream(pa.table({"x": pa.array(nested, kind)})), ARROW, tensor)
        assert tensor.to_pandas(batch)["x"].tolist() == nested
    anything = Contract((Column("x", "json", spec={"type": "any"}),))
    values: list[Any] = [{"a": [1, 2], "b": "x"}, {"a": [], "b": None}]
    batch = read(stream(pa.table({"x": values})), ARROW, anything)
    assert batch.values == [(value,) for value in values]
    texts = read(stream(pa.table({"x": ['{"a": 1}', "[1]"]})), ARROW, anything)
    assert texts.values == [({"a": 1},), ([1],)]


def test_nan_is_null_in_arrow_where_null_may_be() -> None:
    contract = Contract((Column("x", "double", required=False),))
    assert read(stream(pa.table({"x": [1.0, float("nan"), None]})), ARROW, contract).values == [
        (1.0,),
        (None,),
        (None,),
    ]
    assert read(stream(pa.table({"x": pa.nulls(2)})), ARROW, contract).values == [(None,), (None,)]


def test_large_arrow_bodies_are_not_copied_into_python() -> None:
    table = pa.table({name: np.arange(900.0) for name in "abc"})
    batch = read(stream(table, compression=None), ARROW, NUMBERS)
    assert isinstance(batch.values, pa.RecordBatch)
    assert batch.values.equals(table.combine_chunks().to_batches()[0])
    many = pa.concat_tables([table.slice(0, 5)] * 100)
    assert read(stream(many), ARROW, NUMBERS).values.num_rows == 500
    assert refused(stream(pa.concat_tables([table, table])), ARROW, NUMBERS).status == 413


def test_streams_which_hold_more_than_they_take_are_refused() -> None:
    table = pa.table({"a": [1.0], "b": [1.0], "c": [1.0]})
    assert refused(stream(table, compression="zstd"), ARROW, NUMBERS).status == 415
    assert refused(stream(table) + b"\x00", ARROW, NUMBERS).status == 400
    text = Contract((Column("x", "string"),))
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int16()), pa.array(["x" * 1000]))
    assert read(stream(pa.table({"x": words})), ARROW, text).rows == 1000
    words = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int16()), pa.array(["x" * 1001]))
    assert refused(stream(pa.table({"x": words})), ARROW, text).status == 413
    packed = pa.DictionaryArray.from_arrays(pa.array([0], pa.int16()), pa.array(["x" * 1000]))
    assert refused(stream(pa.table({"x": packed}), compression="lz4"), ARROW, text).status == 415
    anything = Contract((Column("x", "json", spec={"type": "any"}),))
    wide = pa.array([[False] * 1_000_001])
    assert refused(stream(pa.table({"x": wide})), ARROW, anything).status == 413


@pytest.mark.parametrize(
    ("content_type", "status"),
    [("text/plain", 415), ("application/json; charset=latin-1", 415), ("application/x-ndjson", 415), ("json", 415)],
)
def test_other_types_of_bodies_are_refused(content_type: str, status: int) -> None:
    assert refused(b"{}", content_type).status == status
    with pytest.raises(Problem) as caught:
        predict.decode(served(MIXED), InferenceRequest(b"{}", content_type), LIMITS)
    assert caught.value.status == status


def test_csv_has_no_tensors() -> None:
    assert refused(b"x\n1\n", CSV, Contract((Column("x", "tensor", dtype="int64", shape=(-1,)),))).status == 415


def answer(accept: str, outputs: Any, output: str = "prediction", kind: pa.DataType | None = None) -> EncodedResponse:
    model = served(NUMBERS, output=output, kind=kind)
    body = b'{"instances": [{"a": 1, "b": 2, "c": 3}]}'
    decoded = mlflow.decode(model, InferenceRequest(body, JSON, accept), LIMITS)
    return decoded.encode(InferenceResult(outputs, model, "0198c0de-0000-7000-8000-000000000001", "mine\\"))


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (np.array([0.1, 1e-300, 1e300, -0.0, 3.0]), [0.1, 1e-300, 1e300, -0.0, 3.0]),
        (np.array([[0.25, 0.75]]), [[0.25, 0.75]]),
        (np.array([1, 2**62]), [1, 2**62]),
        (np.array([0.1], np.float32), [float(np.float32(0.1))]),
        (["a", 'b"\n', None], ["a", 'b"\n', None]),
        ([{"label": "x", "score": 0.5}, [1]], [{"label": "x", "score": 0.5}, [1]]),
    ],
)
def test_json_answers_say_the_numbers_themselves(outputs: Any, said: list[Any]) -> None:
    encoded = answer("", outputs)
    assert (encoded.media_type, encoded.headers) == (JSON, {})
    document = json.loads(encoded.body)
    assert repr(document.pop("predictions")) == repr(said)
    assert document == {
        "model": "flights",
        "version": "3",
        "request_id": "0198c0de-0000-7000-8000-000000000001",
        "client_request_id": "mine\\",
    }


def test_every_float_comes_back_from_json() -> None:
    bits = np.random.default_rng(1).integers(0, 2**64, 20_000, dtype=np.uint64)
    numbers = bits.view(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    assert json.loads(answer("*/*", numbers).body)["predictions"] == numbers.tolist()


@pytest.mark.parametrize(
    ("outputs", "output", "kind"),
    [
        (np.array([0.5, 0.25]), "score", pa.float64()),
        (np.array([[0.5, 0.25], [1.0, 0.0]]), "scores", pa.list_(pa.float64())),
        (["a", None], "prediction", pa.string()),
        ([{"x": 1.5}, {"x": 2.5}], "prediction", pa.struct([("x", pa.float64())])),
        (["a", "b"], "prediction", pa.float64()),
    ],
)
def test_arrow_answers_have_a_column_and_their_lineage(outputs: Any, output: str, kind: pa.DataType) -> None:
    encoded = answer(f"text/html;q=0.9, {ARROW}", outputs, output, kind)
    assert encoded.media_type == ARROW
    table = pa.ipc.open_stream(encoded.body).read_all()
    wanted = outputs.tolist() if isinstance(outputs, np.ndarray) else outputs
    assert table.column(output).to_pylist() == wanted
    assert {key.decode(): value.decode() for key, value in table.schema.metadata.items()} == {
        "tidemill.model": "flights",
        "tidemill.version": "3",
        "tidemill.request_id": "0198c0de-0000-7000-8000-000000000001",
        "tidemill.client_request_id": "mine\\",
        "tidemill.git.commit": "decade",
        "tidemill.lake.commit": "c0ffee",
    }


def test_outputs_of_no_one_type_are_text_in_arrow() -> None:
    table = pa.ipc.open_stream(answer(ARROW, [{"a": 1}, [2], None], kind=pa.string()).body).read_all()
    assert [None if text is None else json.loads(text) for text in table.column(0).to_pylist()] == [{"a": 1}, [2], None]


@pytest.mark.parametrize(
    ("outputs", "output", "text"),
    [
        (np.array([0.5, 1e-7]), "score", "score\n0.5\n1e-07\n"),
        (np.array([[0.5, 0.25]]), "scores", "scores_0,scores_1\n0.5,0.25\n"),
        (["a,b", None, 'c"'], "prediction", 'prediction\n"a,b"\n""\n"c"""\n'),
        ([{"a": 1}, [1]], "prediction", 'prediction\n"{""a"": 1}"\n[1]\n'),
    ],
)
def test_csv_answers(outputs: Any, output: str, text: str) -> None:
    encoded = answer("text/csv", outputs, output)
    assert (encoded.media_type, encoded.body.decode()) == ("text/csv; charset=utf-8", text)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", JSON),
        ("application/*", JSON),
        ("text/*", "text/csv; charset=utf-8"),
        ("text/csv;q=0.5, application/json;q=0.9", JSON),
        ("text/csv;q=0.9, application/json;q=0.5", "text/csv; charset=utf-8"),
        ("application/json;q=0, */*", ARROW),
        ("TEXT/CSV", "text/csv; charset=utf-8"),
        ("text/html", None),
        ("application/json;q=0", None),
        ("application/json;q=x", None),
        (",;,", JSON),
    ],
)
def test_the_answer_has_the_type_which_is_liked_best(accept: str, media_type: str | None) -> None:
    if media_type is None:
        with pytest.raises(Problem) as caught:
            answer(accept, [1.0])
        assert caught.value.status == 406
    else:
        assert answer(accept, [1.0]).media_type == media_type


def test_predict_takes_rows_and_gives_named_outputs() -> None:
    model = served(MIXED, output="score")
    decoded = predict.decode(
        model, InferenceRequest(json.dumps({"rows": ROWS, "event_time": "2013-07-01T12:00:00Z"}).encode(), JSON), LIMITS
    )
    assert decoded.batch.values == VALUES
    assert decoded.batch.event_times == [datetime(2013, 7, 1, 12, tzinfo=UTC)] * 2
    encoded = decoded.encode(InferenceResult(model.predict(decoded.batch), model, "id"))
    assert json.loads(encoded.body) == {
        "predictions": [{"score": 9.0}, {"score": 4.0}],
        "model": "flights",
        "version": "3",
        "request_id": "id",
    }
    for body, status, where in (
        (b"{}", 422, ["rows"]),
        (b'{"rows": []}', 422, ["rows"]),
        (b'{"rows": [[1]]}', 422, ["rows[0]"]),
        (json.dumps({"rows": [{**ROW, "seats": "3"}]}).encode(), 422, ["rows[0].seats"]),
        (json.dumps({"rows": [ROW], "dataframe_records": [ROW]}).encode(), 422, ["dataframe_records"]),
        (json.dumps({"rows": [ROW] * 1001}).encode(), 413, []),
        (b"[", 400, []),
    ):
        with pytest.raises(Problem) as caught:
            predict.decode(model, InferenceRequest(body, JSON), LIMITS)
        assert (caught.value.status, fields(caught.value)) == (status, where)
    with pytest.raises(Problem) as caught:
        predict.decode(model, InferenceRequest(b"{}", JSON, "text/csv"), LIMITS)
    assert caught.value.status == 406


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def test_packed_bodies_are_unpacked() -> None:
    data = b'{"a": 1}' * 10
    for packed, encoding in (
        (data, ""),
        (data, "identity"),
        (gzip.compress(data), "gzip"),
        (gzip.compress(data[:40]) + gzip.compress(data[40:]), "X-GZip"),
        (zlib.compress(data), "deflate"),
        (raw_deflate(data), "deflate"),
        (gzip.compress(zlib.compress(data)), "deflate, gzip"),
    ):
        assert decompress(packed, encoding, len(data)) == data, encoding


def test_bombs_and_broken_packs_are_refused() -> None:
    bomb = zlib.compress(b"\x00" * 50_000_000, 9)
    double = gzip.compress(gzip.compress(b"\x00" * 50_000_000))
    for packed, encoding, status in (
        (bomb, "deflate", 413),
        (gzip.compress(b"\x00" * 1001), "gzip", 413),
        (double, "gzip, gzip", 413),
        (gzip.compress(b"x") * 17, "gzip", 400),
        (gzip.compress(b"x" * 100)[:-1], "gzip", 400),
        (gzip.compress(b"x" * 100)[:-9], "gzip", 400),
        (gzip.compress(b"x") + b"rest", "gzip", 400),
        (zlib.compress(b"x") + b"rest", "deflate", 400),
        (b"", "gzip", 400),
        (b"", "deflate", 400),
        (b"plain", "gzip", 400),
        (b"plain", "br", 415),
        (b"plain", "gzip, gzip, gzip", 415),
    ):
        with pytest.raises(Problem) as caught:
            decompress(packed, encoding, 1000)
        assert caught.value.status == status, (encoding, packed[:20])
    assert decompress(gzip.compress(b"x" * 1000), "gzip", 1000) == b"x" * 1000


def test_base64_is_what_python_says() -> None:
    for raw in (b"", b"a", b"ab", b"abc", bytes(range(256))):
        text = base64.b64encode(raw).decode()
        body = json.dumps({"instances": [{"x": text}]}).encode()
        assert read(body, JSON, Contract((Column("x", "binary"),))).values == [(raw,)]
