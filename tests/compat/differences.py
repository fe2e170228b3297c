"""The differences between tidemill's answers and MLflow's that are meant, each with its reason and an example.

A difference that is not listed here fails the tests. A listed one whose example no longer differs fails too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from mlflow.types.schema import Array

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
    return all(mine == other or (mine, other) == ("None", "False") for mine, other in zip(ours, theirs, strict=True))


def _frames(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns that the describing model received from MLflow and from tidemill."""
    found: list[dict[str, Any]] = []
    for answer in (case.theirs, case.ours):
        described = json.loads(answer.value[0])[0]
        found.append({name: (dtype, shown) for name, dtype, shown in described.get("frame", [])})
    return found[0], found[1]


def _zone(case: Case) -> bool:
    moments = [value for _, value in _cells(case)]
    return _more(case) and bool(_column(case, "datetime")) and any(map(values.has_zone, moments))


def _integer_names(case: Case) -> bool:
    names = [spec.name for spec in case.signature.inputs.inputs] if case.signature.inputs else []
    return (
        _more(case) and any(isinstance(name, int) for name in names) and values.form_of(case.body) != "dataframe_split"
    )


def _csv_types(case: Case) -> bool:
    types = [spec.type for spec in case.signature.inputs.inputs] if case.signature.inputs and not _tensors(case) else []
    special = any(values.nested(kind) or kind.name == "datetime" for kind in types)
    return _more(case) and not _json(case) and special


def _arrays_of_numpy(case: Case) -> bool:
    return (
        _more(case)
        and values.form_of(case.body) in ("inputs", "instances")
        and all(value is None or values.fits(spec.type, value) for spec, value in _cells(case))
    )


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
        "nested values in inputs and instances",
        "converts nested lists to numpy arrays first, which fails if they differ in length",
        "gives the model the same values as for dataframe_split",
        "the request fits the signature",
        _arrays_of_numpy,
        Example(
            Signature(Schema([ColSpec(Array(DataType.binary), "a")])),
            {"instances": [{"a": ["eHg="]}, {"a": ["w7w=", ""]}, {"a": []}]},
        ),
    ),
]


def find(case: Case) -> Difference | None:
    """Return the listed difference that explains `case`, or None."""
    return next((difference for difference in DIFFERENCES if difference.recognises(case)), None)
