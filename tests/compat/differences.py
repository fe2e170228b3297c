"""The differences between tidemill's answers and MLflow's that are meant, each with its reason and an example.

A difference that is not listed here fails the tests. A listed one whose example no longer differs fails too.
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.types.schema import Map

from . import values
from .models import Signature
from .oracle import CSV, JSON, Answer


@dataclass(frozen=True)
class Case:
    """One request and both answers.

    Attributes:
        signature: of the model.
        body: a JSON value or a text.
        content_type: of the body.
        theirs: MLflow's answer.
        ours: tidemill's answer.
    """

    signature: Signature
    body: Any
    content_type: str
    theirs: Answer
    ours: Answer

    def __str__(self) -> str:
        """Return the case as a report."""
        return (
            f"{self.signature}\n  {self.content_type}: {self.body!r}\n"
            f"  MLflow:   {self.theirs}\n  tidemill: {self.ours}"
        )


@dataclass(frozen=True)
class Example:
    """A request that shows a difference.

    Attributes:
        answer: the expression that the model answers; None: the model describes what it received.
    """

    signature: Signature
    body: Any
    content_type: str = JSON
    answer: str | None = None


@dataclass(frozen=True)
class Difference:
    """One difference that is meant.

    Attributes:
        id: a short name.
        theirs: what MLflow does.
        ours: what tidemill does.
        why: the reason.
        recognises: tells whether a case is this difference, as narrowly as possible.
        example: a request that shows it.
    """

    id: str
    theirs: str
    ours: str
    why: str
    recognises: Callable[[Case], bool]
    example: Example


def _stricter(case: Case) -> bool:
    """Return whether only tidemill refuses the request."""
    return case.theirs.ok and case.ours.status == 422


def _more(case: Case) -> bool:
    """Return whether only MLflow refuses the request."""
    return case.ours.ok and not case.theirs.ok


def _tensors(case: Case) -> bool:
    return case.signature.inputs is not None and case.signature.inputs.is_tensor_spec()


def _cells(case: Case) -> list[tuple[Any, Any]]:
    return [] if _tensors(case) else list(values.cells(case.signature, case.body))


def _json(case: Case) -> bool:
    return isinstance(case.body, dict)


def _wrong_type(case: Case) -> bool:
    return (
        _stricter(case)
        and _json(case)
        and any(value is not None and not values.fits(spec.type, value) for spec, value in _cells(case))
    )


def _wrong_tensor(case: Case) -> bool:
    if not (_stricter(case) and _tensors(case)):
        return False
    given = case.body.get(values.form_of(case.body))
    specs = list(case.signature.inputs.inputs)
    if isinstance(given, list) and all(isinstance(row, dict) for row in given):
        given = {name: [row.get(name) for row in given] for name in given[0]}
    if not isinstance(given, dict):
        return len(specs) == 1 and not values.fits_tensor(specs[0], given)
    return any(spec.name in given and not values.fits_tensor(spec, given[spec.name]) for spec in specs)


def _null_in_required(case: Case) -> bool:
    # An empty cell of CSV is null, as pandas reads it.
    missing = (None,) if _json(case) else ("", *_PANDAS_NULLS)
    return _stricter(case) and any(spec.required and value in missing for spec, value in _cells(case))


_PANDAS_NULLS = ("NaN", "nan", "null", "NA", "None")


def _column(case: Case, kind: str) -> list[Any]:
    """Return the values of the columns of a scalar type."""
    return [value for spec, value in _cells(case) if getattr(spec.type, "name", "") == kind]


def _nulls_of_booleans(case: Case) -> bool:
    if not (case.theirs.ok and case.ours.ok and None in _column(case, "boolean")):
        return False
    theirs, ours = _frames(case)
    # The rest is the same, and only null became false.
    return theirs.keys() == ours.keys() and all(
        ours[name] == cells or (cells[0] == "bool" and _null_is_false(ours[name][1], cells[1]))
        for name, cells in theirs.items()
    )


def _null_is_false(ours: list[str], theirs: list[str]) -> bool:
    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(
        mine == other or (mine, other) == ("None", "False") for mine, other in pairs
    )


def _frames(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns that the describing model received from MLflow and from tidemill."""
    found: list[dict[str, Any]] = []
    for answer in (case.theirs, case.ours):
        described = json.loads(answer.value[0])[0]
        found.append({name: (dtype, shown) for name, dtype, shown in described.get("frame", [])})
    return found[0], found[1]


def _fits(case: Case) -> bool:
    """Return whether only MLflow refuses the request, although each value has its type and all columns are there."""
    if not _more(case) or _tensors(case) or not case.signature.inputs:
        return False
    specs = list(case.signature.inputs.inputs)
    found = _cells(case)
    rows = max(1, values.row_count(case.body))
    complete = all(not spec.required or sum(each is spec for each, _ in found) == rows for spec in specs)
    return complete and all(
        not spec.required if value is None else values.fits(spec.type, value) for spec, value in found
    )


def _types(case: Case) -> list[Any]:
    return [] if _tensors(case) or not case.signature.inputs else [spec.type for spec in case.signature.inputs.inputs]


def _zone(case: Case) -> bool:
    return _json(case) and _fits(case) and any(map(values.has_zone, _column(case, "datetime")))


def _integer_names(case: Case) -> bool:
    names = [spec.name for spec in case.signature.inputs.inputs] if case.signature.inputs else []
    split = values.form_of(case.body) == "dataframe_split"
    return not split and _fits(case) and any(isinstance(name, int) for name in names)


def _csv_types(case: Case) -> bool:
    special = any(values.nested(kind) or kind.name == "datetime" for kind in _types(case))
    return _more(case) and not _json(case) and special


def _nested(case: Case) -> bool:
    return _json(case) and _fits(case) and any(map(values.nested, _types(case)))


def _null_integers(case: Case) -> bool:
    nulls = [*_column(case, "integer"), *_column(case, "long")]
    return _json(case) and _fits(case) and None in nulls


def _names_of_positions(case: Case) -> bool:
    """Return whether the columns have no names, and only their labels differ: 0 and "0"."""
    specs = list(case.signature.inputs.inputs) if case.signature.inputs else []
    if _tensors(case) or not (case.theirs.ok and case.ours.ok) or any(spec.name is not None for spec in specs):
        return False
    theirs, ours = _frames(case)
    return {name.strip("'"): cells for name, cells in theirs.items()} == ours


def _undecoded(case: Case) -> bool:
    """Return whether only binary columns differ: MLflow gives the base64 text itself."""
    if values.form_of(case.body) not in ("inputs", "instances", "csv") or not _column(case, "binary"):
        return False
    return _only_differs(case, lambda theirs, ours: ast.literal_eval(ours) == _decoded(ast.literal_eval(theirs)))


def _decoded(text: str | bytes) -> bytes:
    return base64.b64decode(text)


def _null_text(case: Case) -> bool:
    """Return whether only text columns differ: MLflow gives the texts "None" and "nan" instead of null."""
    return _only_differs(case, lambda theirs, ours: theirs == ours or (theirs in ("'None'", "'nan'") and ours in _NONE))


_NONE = ("None", "nan")


def _text_of_csv(case: Case) -> bool:
    """Return whether only the dtype of text columns from CSV differs."""
    return not _json(case) and _only_differs(case, lambda theirs, ours: theirs == ours)


def _only_differs(case: Case, equal: Callable[[str, str], bool]) -> bool:
    """Return whether both models got the same columns, except for values that are `equal`."""
    if not (case.theirs.ok and case.ours.ok) or _tensors(case):
        return False
    theirs, ours = _frames(case)
    return theirs.keys() == ours.keys() and all(
        cells == ours[name]
        or (
            cells[0] in _TEXT_DTYPES
            and len(cells[1]) == len(ours[name][1])
            and all(map(equal, cells[1], ours[name][1]))
        )
        for name, cells in theirs.items()
    )


_TEXT_DTYPES = ("object", "str")


def _nan_in_json(case: Case) -> bool:
    return case.theirs.ok and case.ours.status == 400 and _json(case) and "NaN" in json.dumps(case.body)


def _infinity_in_json(case: Case) -> bool:
    return case.theirs.ok and case.ours.status == 400 and _json(case) and "Infinity" in json.dumps(case.body)


def _moments(case: Case) -> bool:
    return case.theirs.ok and case.ours.ok and _same_moments(case.theirs.value, case.ours.value)


def _same_moments(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_same_moments, theirs, ours))
    return isinstance(theirs, int) and isinstance(ours, str) and int(np.datetime64(ours, "ns")) == theirs


def _more_answers(case: Case) -> bool:
    kinds = ("timedelta", "Decimal", "Series", "Index")
    refusals = [f"TypeError: Object of type {kind} is not JSON serializable" for kind in kinds]
    return _more(case) and case.theirs.value in refusals


def _unknown_params(case: Case) -> bool:
    if not (_stricter(case) and _json(case)):
        return False
    known = {spec.name for spec in case.signature.params.params} if case.signature.params else set[str]()
    return bool((case.body.get("params") or {}).keys() - known)


_DOUBLE = Signature(Schema([ColSpec("double", "x")]))
_TIME = Signature(Schema([ColSpec("datetime", "t")]))

DIFFERENCES = [
    Difference(
        "wrong type",
        "converts values of another type: true becomes 1.0, a number in a text column stays a number, 2**31 becomes "
        "-2**31, and text that is not base64 becomes bytes",
        "refuses the request with 422 and names the value",
        "the model would compute with a value that the client did not send",
        _wrong_type,
        Example(_DOUBLE, {"dataframe_split": {"columns": ["x"], "data": [[True]]}}),
    ),
    Difference(
        "wrong type in a tensor",
        "converts values of another type and null (NaN), and accepts some other shapes",
        "refuses the request with 422",
        "the model would compute with a value that the client did not send",
        _wrong_tensor,
        Example(Signature(Schema([TensorSpec(np.dtype("int64"), (-1,))])), {"inputs": [1.5]}),
    ),
    Difference(
        "null in a required column",
        "gives the model null in some types (text, any, numbers in CSV) although the column is required",
        "refuses the request with 422",
        "the signature says that the value is required",
        _null_in_required,
        Example(Signature(Schema([ColSpec("string", "s"), ColSpec("long", "n")])), "s,n\n,1\n", CSV),
    ),
    Difference(
        "null of an optional boolean",
        "turns null into false",
        "gives the model null (None)",
        "an unknown value is not false",
        _nulls_of_booleans,
        Example(
            Signature(Schema([ColSpec("boolean", "b", required=False)])),
            {"dataframe_records": [{"b": None}, {"b": True}]},
        ),
    ),
    Difference(
        "unknown parameters",
        "ignores parameters that the signature does not define",
        "refuses the request with 422",
        "a misspelt parameter would have no effect, without a sign",
        _unknown_params,
        Example(_DOUBLE, {"dataframe_records": [{"x": 1.0}], "params": {"temperature": 0.5}}),
    ),
    Difference(
        "time finer than a microsecond",
        "keeps nanoseconds",
        "refuses the request with 422",
        "values are captured in microseconds, and digits must not be lost",
        lambda case: _stricter(case) and any(map(values.has_nanoseconds, (value for _, value in _cells(case)))),
        Example(_TIME, {"dataframe_records": [{"t": "2024-05-01T10:00:00.123456789"}]}),
    ),
    Difference(
        "time with a zone",
        "refuses it in data frames",
        "converts it to UTC",
        "a client that names the zone leaves no doubt",
        _zone,
        Example(_TIME, {"dataframe_records": [{"t": "2024-05-01T10:00:00Z"}]}),
    ),
    Difference(
        "integer names as JSON keys",
        "refuses records and inputs for integer column names, because JSON keys are texts",
        'accepts the key "2019" for the column 2019',
        "JSON has no other keys",
        _integer_names,
        Example(Signature(Schema([ColSpec("double", 2019)])), {"dataframe_records": [{"2019": 1.5}]}),
    ),
    Difference(
        "times and nested columns in CSV",
        "refuses CSV if the signature has a datetime, array, object, map or any column",
        "reads times and JSON texts",
        "the value in the cell is clear",
        _csv_types,
        Example(_TIME, "t\n2024-05-01T10:00:00\n", CSV),
    ),
    Difference(
        "nested values that fit",
        "refuses integers, floats and times inside objects and maps, and nested lists of unequal length in inputs and "
        "instances",
        "accepts what fits the signature, in each form",
        "the request fits the signature",
        _nested,
        Example(Signature(Schema([ColSpec(Map("integer"), "m")])), {"dataframe_records": [{"m": {"k": 3}}]}),
    ),
    Difference(
        "null in an optional integer",
        "refuses null if the column has no other value",
        "gives the model <NA>, as MLflow does beside other values",
        "the signature allows null",
        _null_integers,
        Example(Signature(Schema([ColSpec("long", "n", required=False)])), {"dataframe_records": [{"n": None}]}),
    ),
    Difference(
        "names of unnamed columns",
        'names them "0", "1" in records and CSV, and 0, 1 in dataframe_split',
        "names them 0, 1 in each form",
        "the model should not depend on the form of the request",
        _names_of_positions,
        Example(Signature(Schema([ColSpec("double")])), {"dataframe_records": [{"0": 1.5}]}),
    ),
    Difference(
        "binary in inputs, instances and CSV",
        "gives the model the base64 text; decodes it in dataframe_split and dataframe_records",
        "decodes it in each form",
        "the model should not depend on the form of the request",
        _undecoded,
        Example(Signature(Schema([ColSpec("binary", "b")])), {"instances": [{"b": "eHg="}]}),
    ),
    Difference(
        "null text in inputs and instances",
        'turns null into the text "None", because numpy does',
        "gives the model null",
        "an unknown value is not a text",
        _null_text,
        Example(Signature(Schema([ColSpec("string", "s", required=False)])), {"inputs": {"s": [None]}}),
    ),
    Difference(
        "dtype of text in CSV",
        "gives text columns the dtype object",
        "gives them pandas' dtype str, as both do for JSON",
        "the model should not depend on the form of the request",
        _text_of_csv,
        Example(Signature(Schema([ColSpec("string", "s")])), "s\nx\n", CSV),
    ),
    Difference(
        "NaN in JSON",
        "accepts NaN, which is not JSON",
        "refuses the body with 400; null is the unknown value",
        "parsers differ in what they read",
        _nan_in_json,
        Example(_DOUBLE, {"dataframe_records": [{"x": float("nan")}]}),
    ),
    Difference(
        "infinity in JSON",
        "accepts Infinity, which is not JSON",
        "refuses the body with 400",
        "parsers differ in what they read",
        _infinity_in_json,
        Example(_DOUBLE, {"dataframe_records": [{"x": float("inf")}]}),
    ),
    Difference(
        "array of datetime64[ns]",
        "answers the nanoseconds since 1970; answers ISO 8601 for series, frames, lists and other units",
        "answers ISO 8601 with all nanoseconds",
        "one form for each container",
        _moments,
        Example(
            _DOUBLE,
            {"dataframe_records": [{"x": 1.0}]},
            answer="np.array(['2024-05-01T10:00:00.123456789'] * n, dtype='datetime64[ns]')",
        ),
    ),
    Difference(
        "more kinds of answers",
        "answers 500 for durations, decimals, an index, and series in a list",
        "answers seconds, numbers and lists",
        "the values have a clear form in JSON",
        _more_answers,
        Example(_DOUBLE, {"dataframe_records": [{"x": 1.0}]}, answer="[decimal.Decimal('1.10')] * n"),
    ),
]


def find(case: Case) -> Difference | None:
    """Return the listed difference that explains `case`, or None."""
    return next((difference for difference in DIFFERENCES if difference.recognises(case)), None)
