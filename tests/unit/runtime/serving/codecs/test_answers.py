"""Each form of answer in each encoding: MLflow's JSON, named JSON, Arrow, CSV, tensors in JSON and binary."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tidemill.runtime.serving.codecs.tensors import output_tensors, to_tensor
from tidemill.runtime.serving.engines.outputs import Answer, as_request, binary_scores, normalise
from tidemill.runtime.serving.engines.prepared import Prepared, output_type
from tidemill.runtime.serving.http.content_negotiation import ARROW, CSV
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.protocols import mlflow, open_inference, predict
from tidemill.runtime.serving.protocols.base import EncodedResponse, InferenceRequest, InferenceResult
from tidemill.runtime.serving.versions.model import ServedModel, VersionInfo

from tests.support.protocols import LIMITS, NUMBERS, Present

NAN, INF = math.nan, math.inf
BIG = 2**53 + 1
ID = "0198c0de-0000-7000-8000-000000000001"
BODY = json.dumps({"dataframe_records": [{"a": 1, "b": 2, "c": 3}]}).encode()


def model_for(
    outputs: Any, output: Any = "prediction", *, by_request: bool = False, answered: bool = True
) -> ServedModel:
    """Return a model as preparation makes it of a sample whose answer is `outputs`, or of no answer."""
    sample = as_request(outputs) if by_request else outputs
    form = outputs.form if isinstance(outputs, Answer) else ""
    prepared = Prepared(
        {},
        NUMBERS,
        output,
        output_type(output, sample if answered else None),
        {},
        "",
        [],
        by_request=by_request,
        form=form if answered else "",
        tensors=output_tensors(sample, output) if answered else [],
        answered=answered,
    )
    return ServedModel(VersionInfo("flights", "3", "champion", "s", "run", {}), prepared, Present(NUMBERS, outputs))


def result_of(outputs: Any, output: Any = "prediction", *, by_request: bool = False) -> InferenceResult:
    given = as_request(outputs) if by_request else outputs
    return InferenceResult(given, model_for(outputs, output, by_request=by_request), ID)


def invocations(result: InferenceResult, accept: str = "") -> EncodedResponse:
    return mlflow.decode(result.model, InferenceRequest(BODY, "application/json", accept), LIMITS).encode(result)


def named(result: InferenceResult) -> dict[str, Any]:
    request = InferenceRequest(json.dumps({"rows": [{"a": 1, "b": 2, "c": 3}]}).encode(), "application/json")
    return json.loads(predict.decode(result.model, request, LIMITS).encode(result).body)


def tensors(result: InferenceResult, **members: Any) -> EncodedResponse:
    body = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP64", "data": [1, 2, 3]}], **members}
    request = InferenceRequest(json.dumps(body).encode(), "application/json")
    return open_inference.decode(result.model, request, LIMITS).encode(result)


def arrow(result: InferenceResult) -> pa.Table:
    with pa.ipc.open_stream(invocations(result, ARROW).body) as reader:
        return reader.read_all().replace_schema_metadata()


def listed(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["name"]: (each["datatype"], each["shape"], each["data"]) for each in outputs}


FRAME = normalise(pd.DataFrame({"score": [2.0, 4.0], "label": ["Köln!", None], "n": [1, BIG]}), 2)
TARGETS = normalise([np.array([[0.25, 0.75], [1.0, 0.0]]), np.array([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]])], 2)
SCORE = binary_scores(np.array([[0.25, 0.75], [0.1, 0.9]]))
TIMES = normalise(pd.DataFrame({"at": pd.to_datetime(["2020-01-01T00:00:00.000000001"]).as_unit("ns")}), 1)


@pytest.mark.parametrize(
    ("result", "json_value", "rows", "table", "csv", "outputs"),
    [
        pytest.param(
            result_of(SCORE, "score"),
            [[0.25, 0.75], [0.1, 0.9]],
            [{"score": 0.75}, {"score": 0.9}],
            pa.table({"score": [0.75, 0.9]}),
            "score\n0.75\n0.9\n",
            {"score": ("FP64", [2], [0.75, 0.9])},
            id="score",
        ),
        pytest.param(
            result_of([0.75, 1.0], "score"),
            [[0.25, 0.75], [0.0, 1.0]],
            [{"score": 0.75}, {"score": 1.0}],
            pa.table({"score": [0.75, 1.0]}),
            "score\n0.75\n1.0\n",
            {"score": ("FP64", [2], [0.75, 1.0])},
            id="score of a compiled engine",
        ),
        pytest.param(
            result_of(FRAME),
            [{"score": 2.0, "label": "Köln!", "n": 1}, {"score": 4.0, "label": NAN, "n": BIG}],
            [
                {"prediction": {"score": 2.0, "label": "Köln!", "n": 1}},
                {"prediction": {"score": 4.0, "label": None, "n": BIG}},
            ],
            pa.table({"score": [2.0, 4.0], "label": ["Köln!", None], "n": [1, BIG]}),
            f"score,label,n\n2.0,Köln!,1\n4.0,,{BIG}\n",
            {
                "score": ("FP64", [2], [2.0, 4.0]),
                "label": ("BYTES", [2], ["Köln!", None]),
                "n": ("INT64", [2], [1, BIG]),
            },
            id="frame",
        ),
        pytest.param(
            result_of(normalise(pd.Series([1, BIG], name="n"), 2)),
            [{"n": 1}, {"n": BIG}],
            [{"prediction": 1}, {"prediction": BIG}],
            pa.table({"n": [1, BIG]}),
            f"n\n1\n{BIG}\n",
            {"n": ("INT64", [2], [1, BIG])},
            id="series",
        ),
        pytest.param(
            result_of(normalise(pd.Series([0.5]), 1)),
            [{"0": 0.5}],
            [{"prediction": 0.5}],
            pa.table({"prediction": [0.5]}),
            "prediction\n0.5\n",
            {"prediction": ("FP64", [1], [0.5])},
            id="series without a name",
        ),
        pytest.param(
            result_of(normalise({"p": np.array([[0.5, 0.5]]), "s": ["a"]}, 1)),
            {"p": [[0.5, 0.5]], "s": ["a"]},
            [{"prediction": {"p": [0.5, 0.5], "s": "a"}}],
            pa.table({"p": [[0.5, 0.5]], "s": ["a"]}),
            "p_0,p_1,s\n0.5,0.5,a\n",
            {"p": ("FP64", [1, 2], [0.5, 0.5]), "s": ("BYTES", [1], ["a"])},
            id="mapping",
        ),
        pytest.param(
            result_of(TARGETS),
            [[[0.25, 0.75], [1.0, 0.0]], [[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]],
            [{"prediction": [[0.25, 0.75], [0.5, 0.25, 0.25]]}, {"prediction": [[1.0, 0.0], [0.0, 0.0, 1.0]]}],
            pa.table({"scores_0": [[0.25, 0.75], [1.0, 0.0]], "scores_1": [[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]}),
            "scores_0_0,scores_0_1,scores_1_0,scores_1_1,scores_1_2\n0.25,0.75,0.5,0.25,0.25\n1.0,0.0,0.0,0.0,1.0\n",
            {
                "scores_0": ("FP64", [2, 2], [0.25, 0.75, 1.0, 0.0]),
                "scores_1": ("FP64", [2, 3], [0.5, 0.25, 0.25, 0.0, 0.0, 1.0]),
            },
            id="targets",
        ),
        pytest.param(
            result_of(normalise(np.array([[[1, BIG]], [[3, 4]]]), 2)),
            [[[1, BIG]], [[3, 4]]],
            [{"prediction": [[1, BIG]]}, {"prediction": [[3, 4]]}],
            pa.table({"prediction": [[[1, BIG]], [[3, 4]]]}),
            f'prediction_0\n"[1, {BIG}]"\n"[3, 4]"\n',
            {"prediction": ("INT64", [2, 1, 2], [1, BIG, 3, 4])},
            id="array of three dimensions",
        ),
        pytest.param(
            result_of(normalise(np.array([1.5, 2.5]), 2)),
            [1.5, 2.5],
            [{"prediction": 1.5}, {"prediction": 2.5}],
            pa.table({"prediction": [1.5, 2.5]}),
            "prediction\n1.5\n2.5\n",
            {"prediction": ("FP64", [2], [1.5, 2.5])},
            id="floats",
        ),
        pytest.param(
            result_of(normalise({"answer": "yes", "sources": [1, 2, 3]}, 1)),
            {"answer": "yes", "sources": [1, 2, 3]},
            [{"prediction": {"answer": "yes", "sources": [1, 2, 3]}}],
            pa.table({"prediction": [{"answer": "yes", "sources": [1, 2, 3]}]}),
            'prediction\n"{""answer"": ""yes"", ""sources"": [1, 2, 3]}"\n',
            {"prediction": ("BYTES", [1], ['{"answer": "yes", "sources": [1, 2, 3]}'])},
            id="object for the only row",
        ),
        pytest.param(
            result_of(TIMES),
            [{"at": "2020-01-01T00:00:00.000000001"}],
            [{"prediction": {"at": "2020-01-01T00:00:00.000000001"}}],
            pa.table({"at": pa.array([1577836800000000001], pa.timestamp("ns"))}),
            "at\n2020-01-01T00:00:00.000000001\n",
            {"at": ("BYTES", [1], ["2020-01-01T00:00:00.000000001"])},
            id="times",
        ),
    ],
)
def test_answers_by_row(
    result: InferenceResult, json_value: Any, rows: list[Any], table: pa.Table, csv: str, outputs: dict[str, Any]
) -> None:
    assert repr(json.loads(invocations(result).body)["predictions"]) == repr(json_value)
    assert named(result)["predictions"] == rows
    assert arrow(result).to_pylist() == table.to_pylist()
    assert arrow(result).schema == table.schema
    assert invocations(result, CSV).body.decode() == csv
    answer = json.loads(tensors(result).body)
    assert listed(answer["outputs"]) == outputs
    described = {
        each["name"]: (each["datatype"], each["shape"]) for each in open_inference.output_tensors(result.model)
    }
    assert described == {name: (kind, [-1, *shape[1:]]) for name, (kind, shape, _) in outputs.items()}


@pytest.mark.parametrize(
    ("result", "json_value", "table", "csv", "outputs"),
    [
        pytest.param(
            result_of(normalise(pd.Series([0.0, 1.0, 2.0]), 1), by_request=True),
            [{"0": 0.0}, {"0": 1.0}, {"0": 2.0}],
            [{"prediction": 0.0}, {"prediction": 1.0}, {"prediction": 2.0}],
            "prediction\n0.0\n1.0\n2.0\n",
            {"prediction": ("FP64", [3], [0.0, 1.0, 2.0])},
            id="forecast",
        ),
        pytest.param(
            result_of(normalise(pd.DataFrame({"day": ["mo", "tu"], "n": [1, BIG]}), 1), by_request=True),
            [{"day": "mo", "n": 1}, {"day": "tu", "n": BIG}],
            [{"day": "mo", "n": 1}, {"day": "tu", "n": BIG}],
            f"day,n\nmo,1\ntu,{BIG}\n",
            {"day": ("BYTES", [2], ["mo", "tu"]), "n": ("INT64", [2], [1, BIG])},
            id="table",
        ),
        pytest.param(
            result_of(7, by_request=True),
            7,
            [{"prediction": 7}],
            "prediction\n7\n",
            {"prediction": ("INT64", [1], [7])},
            id="number",
        ),
        pytest.param(
            result_of(normalise({"low": [1.0, 2.0], "high": [3.0]}, 3), by_request=True),
            {"low": [1.0, 2.0], "high": [3.0]},
            [{"prediction": '{"low": [1.0, 2.0], "high": [3.0]}'}],
            'prediction\n"{""low"": [1.0, 2.0], ""high"": [3.0]}"\n',
            {"low": ("FP64", [2], [1.0, 2.0]), "high": ("FP64", [1], [3.0])},
            id="lists of different lengths",
        ),
        pytest.param(
            result_of(normalise([], 2), by_request=True),
            [],
            [],
            "prediction\n",
            {"prediction": ("BYTES", [0], [])},
            id="nothing",
        ),
        pytest.param(
            result_of([1.0], by_request=True),
            [1.0],
            [{"prediction": 1.0}],
            "prediction\n1.0\n",
            {"prediction": ("FP64", [1], [1.0])},
            id="the number of rows by chance",
        ),
    ],
)
def test_answers_of_the_whole_request(
    result: InferenceResult, json_value: Any, table: list[Any], csv: str, outputs: dict[str, Any]
) -> None:
    assert json.loads(invocations(result).body)["predictions"] == json_value
    document = named(result)
    assert (document["answer"], "predictions" in document) == (json_value, False)
    assert arrow(result).to_pylist() == table
    assert invocations(result, CSV).body.decode() == csv
    assert listed(json.loads(tensors(result).body)["outputs"]) == outputs


NOT_FINITE = [
    pytest.param(normalise(np.array([1.0, NAN, -INF]), 3), id="array"),
    pytest.param(normalise([1.0, NAN, -INF], 3), id="list"),
    pytest.param(normalise(pd.Series([1.0, NAN, -INF]), 3), id="series"),
    pytest.param(normalise(pd.DataFrame({"prediction": [1.0, NAN, -INF]}), 3), id="frame"),
    pytest.param(normalise({"prediction": [1.0, NAN, -INF]}, 3), id="mapping of lists"),
    pytest.param(normalise({"prediction": np.array([1.0, NAN, -INF])}, 3), id="mapping of arrays"),
    pytest.param(normalise(np.array([1.0, NAN, -INF], object), 3), id="array of objects"),
    pytest.param(normalise(np.array([1.0, NAN, -INF], np.float32), 3), id="float32"),
]


@pytest.mark.parametrize("outputs", NOT_FINITE)
def test_one_rule_for_nan_and_infinities_in_every_container(outputs: Any) -> None:
    result = result_of(outputs)
    text = invocations(result).body.decode()
    assert all(word in text for word in ("NaN", "-Infinity")) and "null" not in text
    document = named(result)
    assert json.dumps(document["predictions"]).count("null") == 2
    assert document["notes"] == [
        "row 1: not finite, returned as null",
        "row 2: not finite, returned as null",
    ]
    assert np.array_equal(arrow(result)["prediction"].to_numpy(), [1.0, NAN, -INF], equal_nan=True)
    assert arrow(result)["prediction"].null_count == 0
    assert invocations(result, CSV).body == b'prediction\n1.0\n""\n-inf\n'
    answer = json.loads(tensors(result).body)
    assert listed(answer["outputs"]) == {"prediction": ("FP64", [3], [1.0, None, None])}
    assert answer["parameters"]["note"] == "NaN and infinities are null in prediction; binary data has them"
    binary = tensors(result, parameters={"binary_data_output": True})
    head = int(binary.headers["Inference-Header-Content-Length"])
    assert np.array_equal(np.frombuffer(binary.body[head:], "<f8"), [1.0, NAN, -INF], equal_nan=True)
    assert "note" not in json.loads(binary.body[:head])["parameters"]


@pytest.mark.parametrize("by_request", [True, False])
def test_any_output_of_a_model_that_has_not_answered_can_be_chosen(by_request: bool) -> None:
    frame = normalise(pd.DataFrame({"a": [1.0], "b": [2]}), 1)
    model = model_for(frame, by_request=by_request, answered=False)
    result = InferenceResult(as_request(frame) if by_request else frame, model, ID)
    answer = json.loads(tensors(result, outputs=[{"name": "b"}]).body)
    assert listed(answer["outputs"]) == {"b": ("INT64", [1], [2])}
    with pytest.raises(Problem) as error:
        tensors(result, outputs=[{"name": "prediction"}])
    assert error.value.errors[0].message == "this answer has the outputs a, b"
    assert open_inference.model_metadata(model)["outputs"] == []


def test_probabilities_are_known_before_the_first_answer() -> None:
    model = model_for(None, "score", answered=False)
    assert open_inference.model_metadata(model)["outputs"] == [{"name": "score", "datatype": "FP64", "shape": [-1]}]


@pytest.mark.parametrize(
    ("outputs", "kind"),
    [
        ([0.5, NAN], pa.float64()),
        ([1, 2], pa.int64()),
        ([True, False], pa.bool_()),
        (np.array([0.5, NAN]), pa.float64()),
    ],
)
def test_the_first_answers_keep_their_types_in_arrow(outputs: Any, kind: pa.DataType) -> None:
    table = arrow(InferenceResult(outputs, model_for(outputs, answered=False), ID))
    assert table.schema.field("prediction").type == kind
    assert repr(table["prediction"].to_pylist()) == repr(np.array(outputs).tolist())


def test_numbers_of_a_model_of_many_types_are_json_texts() -> None:
    model = model_for([{"a": 1}, 2.5])
    table = arrow(InferenceResult([0.5, NAN, 2, None], model, ID))
    assert table["prediction"].to_pylist() == ["0.5", None, "2", None]
    assert arrow(InferenceResult(np.array([0.5, NAN]), model, ID))["prediction"].to_pylist() == ["0.5", None]


def test_a_number_in_a_column_of_texts_is_json_text() -> None:
    model = model_for(normalise(pd.DataFrame({"a": ["x"]}), 1))
    frame = normalise(pd.DataFrame({"a": pd.Series([1.5, None], dtype=object)}), 2)
    assert arrow(InferenceResult(frame, model, ID))["a"].to_pylist() == ["1.5", None]


def test_missing_text_is_not_noted() -> None:
    result = result_of(normalise(pd.Series(["a", None]), 2))
    document = named(result)
    assert document["predictions"] == [{"prediction": "a"}, {"prediction": None}]
    assert "notes" not in document
    # As MLflow writes it.
    assert b'[{"0": "a"}, {"0": NaN}]' in invocations(result).body


def test_a_compiled_score_that_is_not_finite() -> None:
    result = result_of([NAN, 0.5], "score")
    assert b"[[NaN, NaN], [0.5, 0.5]]" in invocations(result).body
    assert named(result)["predictions"] == [{"score": None}, {"score": 0.5}]


def test_real_nulls_are_not_taken_for_nan() -> None:
    result = result_of(normalise(["a", None], 2))
    assert json.loads(invocations(result).body)["predictions"] == ["a", None]
    assert "notes" not in named(result)


def test_an_answer_that_is_not_finite_as_a_whole_is_noted() -> None:
    document = named(result_of(normalise({"a": [NAN, 1.0]}, 3), by_request=True))
    assert (document["answer"], document["notes"]) == ({"a": [None, 1.0]}, ["answer: not finite, returned as null"])


def test_many_notes_are_shortened() -> None:
    notes = named(result_of(np.full(30, NAN)))["notes"]
    assert (len(notes), notes[-1]) == (21, "10 more rows are not finite")


def test_numbers_and_text_that_the_fast_encoder_cannot_write() -> None:
    result = result_of(normalise([10**30, "\ud800"], 2))
    assert json.loads(invocations(result).body)["predictions"] == [10**30, "\ud800"]
    assert named(result)["predictions"] == [{"prediction": 10**30}, {"prediction": "\ud800"}]


def test_outputs_are_chosen_by_name_in_the_order_of_the_request() -> None:
    result = result_of(FRAME)
    wanted = [{"name": "n", "parameters": {"binary_data": True}}, {"name": "score"}]
    encoded = tensors(result, outputs=wanted)
    head = int(encoded.headers["Inference-Header-Content-Length"])
    found = json.loads(encoded.body[:head])["outputs"]
    assert [each["name"] for each in found] == ["n", "score"]
    assert found[0]["parameters"] == {"binary_data_size": 16} and found[1]["data"] == [2.0, 4.0]
    assert np.frombuffer(encoded.body[head:], "<i8").tolist() == [1, BIG]


@pytest.mark.parametrize(
    ("outputs", "at"),
    [
        ([{"name": "other"}], "outputs[0]"),
        ([{"name": "n"}, {"name": "n"}], "outputs[1]"),
        ([1], "outputs[0]"),
        ({}, "outputs"),
    ],
)
def test_unknown_outputs_are_refused_with_the_known_ones(outputs: Any, at: str) -> None:
    with pytest.raises(Problem) as refused:
        tensors(result_of(FRAME), outputs=outputs)
    assert refused.value.status == 422
    assert refused.value.errors[0].field == at
    assert "score, label, n" in str(refused.value.errors[0]) or "duplicate" in str(refused.value.errors[0])


def test_an_answer_without_a_wanted_output_is_refused_with_those_it_has() -> None:
    result = result_of(normalise({"low": [1.0], "high": [2.0]}, 3), by_request=True)
    with pytest.raises(Problem, match=r"outputs\[0\].name: this answer has the outputs low, high"):
        tensors(result, outputs=[{"name": "middle"}])


@pytest.mark.parametrize(
    ("values", "datatype", "shape", "data"),
    [
        (np.array([1, 2], np.int8), "INT8", [2], [1, 2]),
        (np.array([[1], [2]], np.uint64), "UINT64", [2, 1], [1, 2]),
        (np.array([0.5], np.float32), "FP32", [1], [0.5]),
        ([2**64 - 1], "UINT64", [1], [2**64 - 1]),
        ([[1, 2], [3, BIG]], "INT64", [2, 2], [1, 2, 3, BIG]),
        ([[1, 2], [3]], "BYTES", [2], ["[1, 2]", "[3]"]),
        ([1, 2.5], "FP64", [2], [1.0, 2.5]),
        ([BIG, 2.5], "BYTES", [2], [str(BIG), "2.5"]),
        ([1, None], "FP64", [2], [1.0, NAN]),
        ([True, False], "BOOL", [2], [True, False]),
        ([True, 1], "BYTES", [2], ["true", "1"]),
        ([["a", "b"]], "BYTES", [1, 2], ["a", "b"]),
        (["a", None], "BYTES", [2], ["a", None]),
        ([{"a": NAN}], "BYTES", [1], ['{"a": null}']),
        (np.array([["2020-01-01"]], "datetime64[D]"), "BYTES", [1, 1], ["2020-01-01"]),
    ],
)
def test_the_type_of_a_tensor_keeps_every_digit(values: Any, datatype: str, shape: list[int], data: Any) -> None:
    found = to_tensor(values)
    assert found[:2] == (datatype, shape)
    flat = found[2].reshape(-1).tolist() if isinstance(found[2], np.ndarray) else found[2]
    assert repr(flat) == repr(data)
