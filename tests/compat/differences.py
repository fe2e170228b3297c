"""The differences between tidemill's answers and MLflow's that are meant, each with its reason and an example.

A difference that is not listed here fails the tests. A listed one whose example no longer differs fails too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Map

from . import recognition as r
from .models import Signature
from .oracle import CSV, JSON
from .recognition import Case


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


_YEAR: Any = ColSpec("double", cast("Any", 2019))
_DOUBLE = Signature(Schema([ColSpec("double", "x")]))
_TIME = Signature(Schema([ColSpec("datetime", "t")]))

DIFFERENCES = [
    Difference(
        "wrong type",
        "converts values of another type: true becomes 1.0, a number in a text column stays a number, 2**31 becomes "
        "-2**31, and text that is not base64 becomes bytes",
        "refuses the request with 422 and names the value",
        "the model would compute with a value that the client did not send",
        r.wrong_type,
        Example(_DOUBLE, {"dataframe_split": {"columns": ["x"], "data": [[True]]}}),
    ),
    Difference(
        "wrong type in a tensor",
        "converts values of another type and null (NaN), and accepts some other shapes",
        "refuses the request with 422",
        "the model would compute with a value that the client did not send",
        r.wrong_tensor,
        Example(Signature(Schema([TensorSpec(np.dtype("int64"), (-1,))])), {"inputs": [1.5]}),
    ),
    Difference(
        "null in a required column",
        "gives the model null in some types (text, any, numbers in CSV) although the column is required",
        "refuses the request with 422",
        "the signature says that the value is required",
        r.null_in_required,
        Example(Signature(Schema([ColSpec("string", "s"), ColSpec("long", "n")])), "s,n\n,1\n", CSV),
    ),
    Difference(
        "null of an optional boolean",
        "turns null into false",
        "gives the model null (None)",
        "an unknown value is not false",
        r.by_column(r.null_is_false),
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
        r.unknown_params,
        Example(_DOUBLE, {"dataframe_records": [{"x": 1.0}], "params": {"temperature": 0.5}}),
    ),
    Difference(
        "time finer than a microsecond",
        "keeps nanoseconds",
        "refuses the request with 422",
        "values are captured in microseconds, and digits must not be lost",
        r.too_fine,
        Example(_TIME, {"dataframe_records": [{"t": "2024-05-01T10:00:00.123456789"}]}),
    ),
    Difference(
        "time with a zone",
        "refuses it in data frames",
        "converts it to UTC",
        "a client that names the zone leaves no doubt",
        r.time_with_zone,
        Example(_TIME, {"dataframe_records": [{"t": "2024-05-01T10:00:00Z"}]}),
    ),
    Difference(
        "times of several forms in a column",
        "refuses a column in which times have different forms, such as with T and with a blank",
        "reads each time",
        "each value fits the signature",
        r.times_of_several_forms,
        Example(_TIME, {"dataframe_records": [{"t": "2024-05-01T10:00:00"}, {"t": "2024-05-01 10:00:00"}]}),
    ),
    Difference(
        "integer names as JSON keys",
        "refuses records and inputs for integer column names, because JSON keys are texts",
        'accepts the key "2019" for the column 2019',
        "JSON has no other keys",
        r.integer_names,
        Example(Signature(Schema([_YEAR])), {"dataframe_records": [{"2019": 1.5}]}),
    ),
    Difference(
        "times and nested columns in CSV",
        "refuses CSV if the signature has a datetime, array, object, map or any column",
        "reads times and JSON texts",
        "the value in the cell is clear",
        r.csv_types,
        Example(_TIME, "t\n2024-05-01T10:00:00\n", CSV),
    ),
    Difference(
        "nested values that fit",
        "refuses integers, floats and times inside objects and maps, and nested lists of unequal length in inputs and "
        "instances",
        "accepts what fits the signature, in each form",
        "the request fits the signature",
        r.nested_fits,
        Example(Signature(Schema([ColSpec(Map("integer"), "m")])), {"dataframe_records": [{"m": {"k": 3}}]}),
    ),
    Difference(
        "null in an optional integer",
        "refuses null, also if the column has other values",
        "gives the model <NA>",
        "the signature allows null",
        r.null_integers,
        Example(Signature(Schema([ColSpec("long", "n", required=False)])), {"dataframe_records": [{"n": None}]}),
    ),
    Difference(
        "null in an optional integer in CSV",
        "refuses an empty cell or another word for null, because pandas then reads the column as floats",
        "gives the model <NA>",
        "the signature allows null",
        r.null_integers_in_csv,
        Example(Signature(Schema([ColSpec("long", "n", required=False)])), "n\n1\nNA\n", CSV),
    ),
    Difference(
        "map in an object",
        "takes the keys of a map in an object of inputs as labels of rows, so it refuses most; refuses lists of maps",
        "accepts it as one row, and lists of maps, as in the other forms",
        "the request fits the signature",
        r.map_in_object,
        Example(Signature(Schema([ColSpec(Map("double"), "m")])), {"inputs": {"m": {"a": 1.0}}}),
    ),
    Difference(
        "object for unnamed columns",
        "refuses an object in inputs if the columns have no names",
        'accepts the keys "0", "1", as in records',
        "the position of each value is clear",
        r.unnamed_object,
        Example(Signature(Schema([ColSpec("double"), ColSpec("double")])), {"inputs": {"0": [1.5], "1": [2.5]}}),
    ),
    Difference(
        "whole float for an integer parameter",
        "refuses 2.0 for a parameter of the type long or integer",
        "accepts it as 2, as in columns",
        "JavaScript and pandas write whole numbers in this form too",
        r.whole_params,
        Example(
            Signature(Schema([ColSpec("double", "x")]), ParamSchema([ParamSpec("k", "long", 1)])),
            {"dataframe_records": [{"x": 1.0}], "params": {"k": 2.0}},
        ),
    ),
    Difference(
        "names of unnamed columns",
        'names them "0", "1" in records and CSV, and 0, 1 in dataframe_split',
        "names them 0, 1 in each form",
        "the model should not depend on the form of the request",
        r.by_column(None),
        Example(Signature(Schema([ColSpec("double")])), {"dataframe_records": [{"0": 1.5}]}),
    ),
    Difference(
        "binary in inputs, instances and CSV",
        "gives the model the base64 text; decodes it in dataframe_split and dataframe_records",
        "decodes it in each form",
        "the model should not depend on the form of the request",
        r.by_column(r.base64_is_text),
        Example(Signature(Schema([ColSpec("binary", "b")])), {"instances": [{"b": "eHg="}]}),
    ),
    Difference(
        "null text in inputs and instances",
        'turns null into the text "None", because numpy does',
        "gives the model null",
        "an unknown value is not a text",
        r.by_column(r.null_is_text),
        Example(Signature(Schema([ColSpec("string", "s", required=False)])), {"inputs": {"s": [None]}}),
    ),
    Difference(
        "dtype of text in CSV",
        "gives text columns the dtype object",
        "gives them pandas' dtype str, as both do for JSON",
        "the model should not depend on the form of the request",
        r.by_column(r.dtype_of_csv),
        Example(Signature(Schema([ColSpec("string", "s")])), "s\nx\n", CSV),
    ),
    Difference(
        "NaN in JSON",
        "accepts NaN, which is not JSON",
        "refuses the body with 400; null is the unknown value",
        "parsers differ in what they read",
        r.nan_in_json,
        Example(_DOUBLE, {"dataframe_records": [{"x": float("nan")}]}),
    ),
    Difference(
        "infinity in JSON",
        "accepts Infinity, which is not JSON",
        "refuses the body with 400",
        "parsers differ in what they read",
        r.infinity_in_json,
        Example(_DOUBLE, {"dataframe_records": [{"x": float("inf")}]}),
    ),
    Difference(
        "request without rows",
        "calls the model with an empty frame",
        "refuses the request with 422",
        "a request has at least one row",
        r.no_rows,
        Example(Signature(Schema([ColSpec("float", "x", required=False)])), {"inputs": {}}),
    ),
    Difference(
        "small numbers in inputs and instances",
        "refuses numbers that fit, because numpy reads them as int64 or float64 and they are not converted safely",
        "accepts what fits the signature, in each form",
        "the request fits the signature",
        r.numbers_fit,
        Example(Signature(Schema([ColSpec("integer"), ColSpec("long")])), {"instances": [{"0": -(2**31), "1": 0}]}),
    ),
    Difference(
        "index column in CSV for unnamed columns",
        "takes the index for the first column",
        "leaves the index out",
        "the model would compute with the numbers of the rows",
        r.index_of_csv,
        Example(Signature(Schema([ColSpec("string")])), ",0\n0,x\n", CSV),
    ),
    Difference(
        "empty parameters",
        "passes params={} of a request to a model without parameters",
        "passes none",
        "the model defines no parameters",
        r.empty_params,
        Example(_DOUBLE, {"dataframe_records": [{"x": 1.0}], "params": {}}),
    ),
    Difference(
        "array of datetime64[ns]",
        "answers the nanoseconds since 1970; answers ISO 8601 for series, frames, lists and other units",
        "answers ISO 8601 with all nanoseconds",
        "one form for each container",
        r.same_moments_differ,
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
        r.more_answers,
        Example(_DOUBLE, {"dataframe_records": [{"x": 1.0}]}, answer="[decimal.Decimal('1.10')] * n"),
    ),
]


def find(case: Case) -> Difference | None:
    """Return the listed difference that explains `case`, or None."""
    return next((difference for difference in DIFFERENCES if difference.recognises(case)), None)
