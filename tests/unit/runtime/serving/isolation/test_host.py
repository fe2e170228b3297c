"""The script that runs in a model's own environment gives what the server's code gives, here where both can run."""

from __future__ import annotations

import ast
import json
import math
import subprocess
import sys
import warnings
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.types import ColSpec, ParamSpec
from tidemill.runtime.serving.contract import frames
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.engines import outputs
from tidemill.runtime.serving.engines.outputs import AnswerError, normalise
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.isolation import host as isolated_host
from tidemill.runtime.serving.isolation.engine import _call_options, _encode, decode

from tests.support.oracle import contract_of, pyfunc_of, signature

HOST = Path(isolated_host.__file__)
OUTPUTS = Path(outputs.__file__)
FRAMES = Path(frames.__file__)
HOST_OUTPUTS = isolated_host.load_outputs()


def same(one: Any, other: Any) -> bool:
    if hasattr(one, "parts") or hasattr(other, "parts"):
        return (one.form, one.names, one.rows, len(one.parts)) == (
            other.form,
            other.names,
            other.rows,
            len(other.parts),
        ) and all(map(same, one.parts, other.parts))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and one.dtype == other.dtype and np.array_equal(one, other, equal_nan=True)
    return repr(one) == repr(other)


GIVEN = [
    np.array([1.5, math.nan, -0.0]),
    np.array([1, 2, 3], np.float32),
    np.arange(6.0).reshape(3, 2),
    np.arange(12.0).reshape(3, 2, 2),
    np.array([1, 2, 3]),
    np.array([True, False, True]),
    np.array(["a", "b", "ü"]),
    np.array([b"a", b"b", b"\xff"]),
    np.array(["2020-01-01", "NaT", "2021-01-01"], "datetime64[D]"),
    np.array([1, None, "x"], object),
    np.float64(1.0),
    3,
    "abc",
    pd.Series([1.0, None, 3.0]),
    pd.Series([1, None, 3], dtype="Int64"),
    pd.Series(["a", None, "c"]),
    pd.Series(pd.to_datetime(["2020-01-01", None, "2021-01-01"])),
    pd.Index([1, 2, 3]),
    pd.DataFrame({"x": [1.0, 2.0, math.inf], "y": ["a", "b", None]}),
    pd.DataFrame({"x": [1.0, 2.0, 3.0]}),
    {"x": np.array([1.0, 2.0, 3.0]), "y": ["a", "b", "c"]},
    {"x": 1, "y": {"z": [1, 2]}},
    {"x": [1, 2], "y": [1, 2, 3]},
    {},
    [],
    [np.array([[0.25, 0.75]]), np.array([[0.5, 0.25, math.nan]])],
    [np.ones((3, 2)), np.zeros((3, 4))],
    {"forecast": np.arange(5.0), "low": [1, 2, 3, 4, 5]},
    np.array([1, 2**53 + 1, -(2**63)]),
    np.array([[1, 2**53 + 1], [3, 4], [5, 6]]),
    np.array([2**64 - 1, 0, 1], np.uint64),
    np.array(["2020-01-01T00:00:00.123456789", "NaT", "2021-01-01"], "datetime64[ns]"),
    pd.DataFrame({"n": [1, 2, 2**53 + 1], "when": pd.to_datetime(["2020-01-01", None, "2021-01-01"])}),
    pd.DataFrame({0: [1, 2, 3], "b": [{"c": 1}, [2, np.float32(0.5)], None]}),
    np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False]),
    [1j],
    {"a": {1, 2}},
    np.array([1j, 2, 3]),
    [1, 2.5, "x"],
    [math.inf, -math.inf, math.nan],
    [{"a": {1: np.int64(4)}}, (1, [2, "x"]), None],
    [Decimal("1.5"), timedelta(days=1), date(2020, 1, 1)],
    [datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1), pd.NaT],  # noqa: DTZ001
    [pd.NA, pd.Timestamp("2020-01-01", tz="UTC"), np.timedelta64(1, "s")],
    [object, b"bytes", np.bool_(True)],
]


@pytest.mark.parametrize("position", range(len(GIVEN)))
@pytest.mark.parametrize("rows", [1, 3])
def test_outputs_are_said_as_the_server_says_them(position: int, rows: int) -> None:
    given = GIVEN[position]
    try:
        expected: Any = normalise(given, rows)
    except AnswerError as error:
        with pytest.raises(HOST_OUTPUTS.AnswerError) as refused:
            HOST_OUTPUTS.normalise(given, rows)
        assert str(refused.value) == str(error)
        return
    found = HOST_OUTPUTS.normalise(given, rows)
    assert same(found, expected)
    header, body = isolated_host.encode(found)
    assert same(decode(header, memoryview(body)), expected)


def test_what_nests_without_end_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for module in (HOST_OUTPUTS, outputs):
        with pytest.raises(module.AnswerError, match="nested more than 32 levels deep"):
            module.normalise(endless, 1)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "integer": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "string": st.text(max_size=5),
    "binary": st.binary(max_size=5),
    "datetime": st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    "json": st.none()
    | st.integers(0, 5)
    | st.lists(st.integers(0, 3), max_size=3)
    | st.dictionaries(st.just("a"), st.text(max_size=2)),
}


def host_of(contract: Contract) -> isolated_host.Model:
    host = object.__new__(isolated_host.Model)
    host.contract = json.loads(json.dumps(contract.to_json()))
    host.frames = isolated_host.load_module("contract/frames.py")
    return host


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_frames_are_those_which_the_server_would_make(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4))
    required = [data.draw(st.booleans()) for _ in kinds]
    named = data.draw(st.booleans())
    columns = tuple(
        Column(
            f"column {position}" if named else str(position),
            kind,  # type: ignore[arg-type]
            needed,
            spec={"type": "any"} if kind == "json" else None,
        )
        for position, (kind, needed) in enumerate(zip(kinds, required, strict=True))
    )
    contract = Contract(columns, named)
    row = st.tuples(
        *[VALUES[kind] if needed else st.none() | VALUES[kind] for kind, needed in zip(kinds, required, strict=True)]
    )
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    optional = [at for at, needed in enumerate(required) if not needed]
    absent = frozenset(data.draw(st.sets(st.sampled_from(optional)))) if optional and named else frozenset[int]()
    rows = [tuple(None if at in absent else value for at, value in enumerate(each)) for each in rows]
    index = data.draw(st.none() | st.lists(st.integers(0, 9), min_size=len(rows), max_size=len(rows)))
    plain = Batch(len(rows), rows, absent=absent, index=index)
    batch = replace(plain, values=contract.to_record_batch(plain))
    found = host_of(contract).data(batch.values, json.loads(json.dumps(_call_options(batch))))
    for each in (batch, plain):
        pd.testing.assert_frame_equal(found, contract.to_pandas(each), check_column_type=True)


@pytest.mark.parametrize("arrays", [True, False])
def test_arrays_are_those_which_the_server_would_make(arrays: bool) -> None:
    spec = {"type": "array", "items": {"type": "double"}}
    contract = Contract((Column("a", "json", required=False, spec=spec), Column("b", "json", spec=spec)))
    plain = Batch(2, [([1.0, 2.0], []), (None, [3.0])], arrays=arrays)
    batch = replace(plain, values=contract.to_record_batch(plain))
    found = host_of(contract).data(batch.values, json.loads(json.dumps(_call_options(batch))))
    pd.testing.assert_frame_equal(found, contract.to_pandas(plain))
    assert repr(found["b"][1]) == ("array([3.])" if arrays else "[3.0]")


def test_a_call_has_its_parameters_and_may_have_null_in_whole_numbers() -> None:
    of = signature([ColSpec("long", "n", required=False), ColSpec("double", "x")], [ParamSpec("p", "long", 1)])
    contract = contract_of(of)
    batch = Batch(2, [(3, 1.0), (None, 2.0)], index=["a", "b"], params={"p": 5})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        host = host_of(contract)
        host.outputs = HOST_OUTPUTS
        host.predictor, recorder = pyfunc_of(of)
        recorder.answer = [1, 2]
        host.answer(memoryview(_encode(contract.to_record_batch(batch))), {"id": 1, **_call_options(batch)})
    assert recorder.params == {"p": 5}
    pd.testing.assert_frame_equal(recorder.data, contract.to_pandas(batch))
    assert str(recorder.data["n"].dtype) == "Int64"


@pytest.mark.parametrize("named", [True, False])
def test_tensors_are_those_which_the_server_would_make(named: bool) -> None:
    contract = Contract((Column("x", "tensor", True, "float32", (-1, 2, 2)),), named)
    rows = [(np.arange(4, dtype=np.float32).reshape(2, 2),), (np.ones((2, 2), np.float32),)]
    batch = contract.to_record_batch(Batch(2, rows))
    expected = contract.to_pandas(Batch(2, batch))
    found = host_of(contract).data(batch, {})
    if named:
        found, expected = found["x"], expected["x"]
    assert same(found, expected)
    assert found.shape == (2, 2, 2)


@pytest.mark.parametrize(
    ("path", "further"),
    [(HOST, set()), (OUTPUTS, {"numpy"}), (FRAMES, {"numpy"})],
    ids=["host", "outputs", "frames"],
)
def test_only_what_every_python_has_is_imported_at_its_start(path: Path, further: set[str]) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    names = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names) | further
    nested = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not any(name.startswith("tidemill") for name in nested)


def test_the_outputs_are_normalised_where_tidemill_is_not_installed() -> None:
    code = (
        "import runpy, sys\n"
        "sys.modules['tidemill'] = None\n"
        "host = runpy.run_path(sys.argv[1])\n"
        "print(host['load_outputs']().normalise({'x': [1, float('nan')], 'y': 'ab'}, 2).to_rows())\n"
    )
    argv = [sys.executable, "-I", "-B", "-c", code, str(HOST)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
    argv[4] = code.replace("'ab'", "['a', 'b']")
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "[{'x': 1, 'y': 'a'}, {'x': nan, 'y': 'b'}]\n"


def test_no_pickle_names_anything_while_a_model_is_loaded() -> None:
    code = (
        "import pickle, sys\n"
        "from collections import OrderedDict\n"
        "from tidemill.runtime.serving.isolation import host\n"
        "text = pickle.dumps(OrderedDict(a=1))\n"
        "host.forbid_pickle()\n"
        "try:\n    pickle.loads(text)\nexcept RuntimeError as error:\n    print(error)\n"
        "host.allow_pickle()\n"
        "print(pickle.loads(text)['a'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "the model holds a pickle (of collections.OrderedDict), which is not trusted",
        "1",
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.floats(), min_size=2, max_size=2), min_size=1, max_size=5))
def test_numbers_come_through_as_they_are(numbers: list[list[float]]) -> None:
    header, body = isolated_host.encode(np.array(numbers))
    assert same(decode(header, memoryview(body)), np.array(numbers))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["array", "json", "other"]), st.lists(st.integers(-2, 5), max_size=3))
def test_no_answer_of_a_strange_process_is_taken_for_one(body: bytes, form: str, shape: list[int]) -> None:
    try:
        decode({"form": form, "shape": shape}, memoryview(body))
    except ValueError:
        return
    assert form != "other"
    assert form == "json" or len(body) % 8 == 0


PART = st.fixed_dictionaries(
    {"size": st.integers(-2, 20)},
    optional={
        "dtype": st.sampled_from(["<f8", "<i8", "|b1", "<M8[ns]", "|O", "<c16", "|V8", "nonsense"]),
        "shape": st.lists(st.integers(-2, 5), max_size=2),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "form": st.just("answer"),
            "answer": st.sampled_from([*outputs.FORMS, "other"]),
            "names": st.lists(st.sampled_from(["a", "b", None]), max_size=2),
            "rows": st.sampled_from([None, 0, 1, 2, "1"]),
            "parts": st.lists(PART, max_size=2),
        }
    ),
    st.sampled_from([b"", b"[1,2]", b"[1][1]", b"12", b"\x00" * 16, b"\x01" * 40]),
)
def test_parts_of_a_strange_process_make_an_answer_or_are_refused(header: dict[str, Any], body: bytes) -> None:
    try:
        found = decode(header, memoryview(body))
    except ValueError:
        return
    assert isinstance(found, outputs.Answer)
    assert found.form in outputs.FORMS
    assert all(not isinstance(part, np.ndarray) or part.dtype.kind in "biufM" for part in found.parts)
    if found.rows is not None and found.form != "value":
        assert all(len(part) == found.rows for part in found.parts)
