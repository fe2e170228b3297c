"""Columns of files against a contract: what is taken, as which value, and how what does not fit is named."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tidemill.runtime.batch_scoring.column_conversion import ColumnConverter
from tidemill.runtime.batch_scoring.inputs import InputFile
from tidemill.runtime.common.errors import UserError
from tidemill.runtime.serving.codecs.csv import read_csv
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.settings import LimitSettings


def fitted(column: Column, values: Any, *, is_text: bool = False) -> pa.Array:
    array = values if isinstance(values, pa.Array) else pa.array(values)
    batch = pa.record_batch([array], names=[column.name])
    file = InputFile("a.parquet", batch.schema, lambda *_: iter(()), is_text=is_text)
    contract = Contract((column,))
    result = ColumnConverter(contract, file).convert(batch, 101)
    assert result.schema == contract.schema
    result.validate(full=True)
    return result.column(0)


def refused(column: Column, values: Any, *, is_text: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        fitted(column, values, is_text=is_text)
    return str(caught.value)


NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("double", pa.array([1, 2]), [1.0, 2.0]),
        ("double", pa.array([1.5], pa.float32()), [1.5]),
        ("double", pa.array([2**63 + 1], pa.uint64()), [float(2**63)]),
        ("double", pa.array(["1.50"]).cast(pa.decimal128(10, 2)), [1.5]),
        ("double", pa.array([0.1, 0.2]).dictionary_encode(), [0.1, 0.2]),
        ("float", pa.array([0.1]), [float(np.float32(0.1))]),
        ("long", pa.array([1.0, -3.0]), [1, -3]),
        ("long", pa.array([7], pa.uint8()), [7]),
        ("integer", pa.array([2**31 - 1]), [2**31 - 1]),
        ("boolean", pa.array([True, False]), [True, False]),
        ("string", pa.array(["a", ""], pa.large_string()), ["a", ""]),
        ("string", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("string", pa.array(["a"], pa.string_view()), ["a"]),
        ("binary", pa.array([b"\x00\xff"], pa.large_binary()), [b"\x00\xff"]),
        ("datetime", pa.array([NOON], pa.timestamp("ns", tz="America/New_York")), [NOON]),
        ("datetime", pa.array([datetime(2013, 7, 1, 12)]), [NOON]),  # noqa: DTZ001 - a column without a zone
        ("datetime", pa.array([date(2013, 7, 1)]), [NOON.replace(hour=0)]),
        ("datetime", pa.array([1372680000123456000], pa.timestamp("ns")), [NOON.replace(microsecond=123456)]),
    ],
)
def test_the_same_value_is_taken_however_arrow_says_it(kind: Any, given: pa.Array, taken: list[Any]) -> None:
    assert fitted(Column("x", kind), given).to_pylist() == taken


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("double", ["1", " 2.5 ", "-1e3"], [1.0, 2.5, -1000.0]),
        ("long", ["1", "-2"], [1, -2]),
        ("long", ["1.0", " 2 ", "9223372036854775807"], [1, 2, 2**63 - 1]),
        ("long", ["1e3", "2"], [1000, 2]),
        ("integer", ["3.00"], [3]),
        ("boolean", ["true", "False", "TRUE", "1", "0"], [True, False, True, True, False]),
        ("string", ["007", " x"], ["007", " x"]),
        ("datetime", ["2013-07-01T12:00", "2013-07-01"], [NOON, NOON.replace(hour=0)]),
        ("datetime", ["2013-07-01T14:00:00+02:00", "2013-07-01T12:00:00Z"], [NOON, NOON]),
        ("datetime", ["2013-07-01 12:00:00"], [NOON]),
        ("binary", ["AP8="], [b"\x00\xff"]),
        ("json", ['{"a": [1, 2]}'], ['{"a": [1, 2]}']),
    ],
)
def test_text_is_read_as_the_contract_means_it(kind: Any, given: list[str], taken: list[Any]) -> None:
    spec = {"type": "any"} if kind == "json" else None
    assert fitted(Column("x", kind, spec=spec), given, is_text=True).to_pylist() == taken


@pytest.mark.parametrize(
    ("kind", "given", "row", "what"),
    [
        ("double", pa.array([1.0, float("inf")]), 102, "out of range"),
        ("float", pa.array([1.0, 1e300]), 102, "out of range"),
        ("double", pa.array([1.0, None]), 102, "got null"),
        ("double", pa.array([1.0, float("nan")]), 102, "got null"),
        ("double", pa.array([None, "1"]), 102, "values of type string"),
        ("double", pa.array([True]), 101, "values of type bool"),
        ("long", pa.array([1.0, 2.0, 2.5, 1.0]), 103, "a number that is not whole"),
        ("long", pa.array([0, 2**63], pa.uint64()), 102, "out of range"),
        ("integer", pa.array([0, 0, 2**31]), 103, "out of range"),
        ("boolean", pa.array([0, 1]), 101, "values of type int64"),
        ("string", pa.array([1]), 101, "values of type int64"),
        ("datetime", pa.array([1372680000]), 101, "values of type int64"),
        ("datetime", pa.array([0, 1], pa.timestamp("ns")), 102, "finer than a microsecond"),
        ("datetime", pa.array([0, 2**62], pa.timestamp("s")), 102, "out of range"),
        ("datetime", pa.array([0, 9_300_000_000], pa.timestamp("s")), 102, "1678 to 2261"),
    ],
)
def test_what_does_not_fit_is_named_by_file_row_and_column(kind: Any, given: pa.Array, row: int, what: str) -> None:
    text = refused(Column("speed", kind), given)
    assert text.startswith(f"a.parquet, row {row}, column speed: expected "), text
    assert what in text


@pytest.mark.parametrize(
    ("kind", "given", "row"),
    [
        ("double", ["1", "2", "fast", "4"], 103),
        ("long", ["1", "2.5"], 102),
        ("long", ["1.0", "9223372036854775808"], 102),
        ("boolean", ["true", "maybe"], 102),
        ("datetime", ["2013-07-01", "soon"], 102),
        ("binary", ["AP8=", "?"], 102),
        ("json", ["1", "{"], 102),
        ("double", ["1", None], 102),
    ],
)
def test_text_which_means_nothing_is_named_and_not_repeated(kind: Any, given: list[str], row: int) -> None:
    text = refused(Column("x", kind, spec={"type": "any"} if kind == "json" else None), given, is_text=True)
    assert text.startswith(f"a.parquet, row {row}, column x: ")
    assert "fast" not in text
    assert "soon" not in text


@pytest.mark.parametrize("kind", ["double", "long", "boolean", "string", "datetime", "binary", "json"])
def test_null_is_taken_where_the_contract_takes_it(kind: Any) -> None:
    column = Column("x", kind, required=False, spec={"type": "any"} if kind == "json" else None)
    assert fitted(column, pa.nulls(2)).to_pylist() == [None, None]
    batch = pa.record_batch([pa.array([1])], names=["y"])
    converter = ColumnConverter(
        Contract((column, Column("y", "long"))), InputFile("a.csv", batch.schema, lambda *_: iter(()))
    )
    assert converter.columns == ("y",)
    assert converter.convert(batch, 1).to_pylist() == [{"x": None, "y": 1}]


@pytest.mark.parametrize("kind", ["double", "long", "boolean", "string", "datetime", "binary", "json"])
@pytest.mark.parametrize("cell", ["", "NA", "NaN", "null", "None", "#N/A"])
def test_the_cells_that_pandas_takes_as_null_are_null(kind: Any, cell: str) -> None:
    column = Column("x", kind, required=False, spec={"type": "any"} if kind == "json" else None)
    assert fitted(column, [cell, None], is_text=True).to_pylist() == [None, None]


def test_further_columns_are_ignored_and_absent_ones_stay_absent() -> None:
    batch = pa.record_batch({"": pa.array(["0"]), "y": pa.array(["1.0"]), "z": pa.array(["?"])})
    file = InputFile("a.csv", batch.schema, lambda *_: iter(()), is_text=True)
    converter = ColumnConverter(Contract((Column("x", "double", required=False), Column("y", "long"))), file)
    assert (converter.columns, converter.absent) == (("y",), {0})
    assert converter.convert(batch, 1).to_pylist() == [{"x": None, "y": 1}]


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        *(
            ("7", 7),
            ("+7", 7),
            ("-0", 0),
            ("007", 7),
            ("3.0", 3),
            ("5.", 5),
            (".0", 0),
            ("1e3", 1000),
            ("12.50e1", 125),
        ),
        *(
            ("9007199254740993.0", 2**53 + 1),
            ("9223372036854775807", 2**63 - 1),
            ("-9.223372036854775808e18", -(2**63)),
        ),
        *(("9007199254740993.5", None), ("0x10", None), ("-0xF", None), ("1.5", None), ("9223372036854775808", None)),
        *(("1e19", None), ("1e9999999999", None), ("1e-9999999999", None), ("1_000", None), ("\u0661", None)),
    ],
)
def test_integers_of_csv_are_exact_in_files_and_requests(cell: str, number: int | None) -> None:
    column = Column("n", "long")
    body = f"n\n{cell}\n".encode()
    if number is None:
        refused(column, pa.array([cell]), is_text=True)
        with pytest.raises(Problem) as caught:
            read_csv(Contract((column,)), body, LimitSettings())
        assert caught.value.status == 422
    else:
        assert fitted(column, pa.array([cell]), is_text=True).to_pylist() == [number]
        assert read_csv(Contract((column,)), body, LimitSettings()).values == [(number,)]


def test_a_bad_value_is_found_wherever_it_is() -> None:
    for at in (0, 1, 499, 998, 999):
        values = ["1"] * 1000
        values[at] = "x"
        assert f"row {101 + at}," in refused(Column("x", "long"), values, is_text=True)


def test_nested_columns_are_json() -> None:
    spec = {"type": "array", "items": {"type": "double"}}
    column = Column("x", "json", spec=spec)
    assert fitted(column, pa.array([[1.5, 2.0], []])).to_pylist() == ["[1.5, 2.0]", "[]"]
    assert fitted(column, pa.array(["[1, 2]"])).to_pylist() == ["[1.0, 2.0]"]
    text = refused(column, pa.array([[1.0], [float("nan")]]))
    assert text.startswith("a.parquet, row 102, column x: ")


def test_tensors_come_as_lists() -> None:
    column = Column("x", "tensor", dtype="float32", shape=(-1, 2, 2))
    rows = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
    assert fitted(column, pa.array(rows)).to_pylist() == rows
    fixed = pa.array(rows, pa.list_(pa.list_(pa.float64(), 2), 2))
    assert fitted(column, fixed).to_pylist() == rows
    assert "row 102" in refused(column, pa.array([rows[0], [[1.0, 2.0]]]))
    assert "row 102" in refused(column, pa.array([rows[0], [[1.0, 2.0], [3.0]]]))
    assert "row 102" in refused(column, pa.array([rows[0], [[1.0, 2.0], [3.0, None]]]))
    assert "row 102" in refused(column, pa.array([rows[0], [[1.0, 2.0], [3.0, float("inf")]]]))
    assert "row 102" in refused(column, pa.array([rows[0], None]))
    assert "values of type" in refused(column, pa.array([[1.0, 2.0]]))


def test_a_matrix_and_columns_without_names_are_told_by_position() -> None:
    batch = pa.record_batch({"id": pa.array(["a", "b"]), "p": pa.array([1, 2]), "q": pa.array([0.5, 0.25])})
    file = InputFile("a.parquet", batch.schema, lambda *_: iter(()))
    matrix = Contract((Column("input", "tensor", dtype="float64", shape=(-1, 2)),))
    converter = ColumnConverter(matrix, file, kept=("id",))
    assert converter.columns == ("p", "q")
    assert converter.convert(batch, 1).to_pydict() == {"input": [[1.0, 0.5], [2.0, 0.25]]}
    unnamed = Contract((Column("0", "long"), Column("1", "double")), named=False)
    assert ColumnConverter(unnamed, file, kept=("id",)).convert(batch, 1).to_pydict() == {"0": [1, 2], "1": [0.5, 0.25]}
    text = pa.record_batch({name: batch.column(name).cast(pa.string()) for name in batch.schema.names})
    as_text = InputFile("a.csv", text.schema, lambda *_: iter(()), is_text=True)
    assert ColumnConverter(matrix, as_text, kept=("id",)).convert(text, 1) == converter.convert(batch, 1)
    nameless = Contract(matrix.columns, named=False)
    assert ColumnConverter(nameless, file, kept=("id",)).convert(batch, 1) == converter.convert(batch, 1)
    for contract in (matrix, nameless, unnamed):
        with pytest.raises(UserError, match="lacks the column"):
            ColumnConverter(contract, file)


def test_a_missing_column_is_named_with_the_one_it_may_be() -> None:
    batch = pa.record_batch([pa.array([1])], names=["Distance"])
    file = InputFile("flights.csv", batch.schema, lambda *_: iter(()))
    with pytest.raises(UserError, match=r"flights.csv: lacks the column distance.*is it Distance\?"):
        ColumnConverter(Contract((Column("distance", "long"),)), file)
    with pytest.raises(UserError, match=r"lacks the column a and 1 more.*it has Distance"):
        ColumnConverter(Contract((Column("a", "long"), Column("b", "long"))), file)
