"""Predicates that recognise the listed differences from a request and both answers, as narrowly as possible."""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from mlflow.types.schema import Map

from . import values
from .models import Signature
from .oracle import Answer


@dataclass(frozen=True)
class Case:
    """One request and both answers.

    Attributes:
        signature: of the model.
        body: a JSON value or a text.
        content_type: of the body.
        theirs: MLflow's answer.
        ours: tidemill's answer.
        answer: the expression that the model answers; None: the model describes what it received.
    """

    signature: Signature
    body: Any
    content_type: str
    theirs: Answer
    ours: Answer
    answer: str | None = None

    def __str__(self) -> str:
        """Return the case as a report."""
        return (
            f"{self.signature}\n  {self.content_type}: {self.body!r}\n"
            f"  MLflow:   {self.theirs}\n  tidemill: {self.ours}"
        )


def _specs(case: Case) -> list[Any]:
    return list(case.signature.inputs.inputs) if case.signature.inputs else []


def _described(case: Case) -> bool:
    """Return whether both models described columns that they received."""
    return case.answer is None and case.theirs.ok and case.ours.ok and not _tensors(case)


def only_tidemill_refuses(case: Case) -> bool:
    """Return whether only tidemill refuses the request."""
    return case.theirs.ok and case.ours.status == 422


def _more(case: Case) -> bool:
    """Return whether only MLflow refuses the request."""
    return case.ours.ok and not case.theirs.ok


def _tensors(case: Case) -> bool:
    return case.signature.inputs is not None and case.signature.inputs.is_tensor_spec()


def cells_of(case: Case) -> list[tuple[Any, Any]]:
    return [] if _tensors(case) else list(values.cells(case.signature, case.body))


def _json(case: Case) -> bool:
    return isinstance(case.body, dict)


def wrong_type(case: Case) -> bool:
    return (
        only_tidemill_refuses(case)
        and _json(case)
        and any(value is not None and not values.fits(spec.type, value) for spec, value in cells_of(case))
    )


def wrong_tensor(case: Case) -> bool:
    if not (only_tidemill_refuses(case) and _tensors(case)):
        return False
    given: Any = case.body.get(values.form_of(case.body))
    specs = _specs(case)
    if isinstance(given, dict) and values.form_of(case.body) == "dataframe_split":
        given = [dict(zip(given["columns"], row, strict=True)) for row in given["data"]]
        if specs[0].name is None:
            given = [next(iter(row.values())) if len(row) == 1 else [*row.values()] for row in given]
    if isinstance(given, list) and all(isinstance(row, dict) for row in given):
        given = {name: [row.get(name) for row in given] for name in given[0]}
    if not isinstance(given, dict):
        return len(specs) == 1 and not values.fits_tensor(specs[0], given)
    return any(spec.name in given and not values.fits_tensor(spec, given[spec.name]) for spec in specs)


def null_in_required(case: Case) -> bool:
    # An empty cell of CSV is null, as pandas reads it.
    missing = (None,) if _json(case) else ("", *_PANDAS_NULLS)
    return only_tidemill_refuses(case) and any(spec.required and value in missing for spec, value in cells_of(case))


_PANDAS_NULLS = ("NaN", "nan", "null", "NA", "None")


def _name(spec: Any) -> str:
    """Return the name of a scalar type, and an empty text for others."""
    return getattr(spec.type, "name", "")


def _column(case: Case, kind: str) -> list[Any]:
    """Return the values of the columns of a scalar type."""
    return [value for spec, value in cells_of(case) if _name(spec) == kind]


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
    specs = _specs(case)
    found = cells_of(case)
    rows = max(1, values.row_count(case.signature, case.body))
    complete = all(not spec.required or sum(each is spec for each, _ in found) == rows for spec in specs)
    return complete and all(
        not spec.required if value is None else values.fits(spec.type, value) for spec, value in found
    )


def _types(case: Case) -> list[Any]:
    return [] if _tensors(case) or not case.signature.inputs else [spec.type for spec in case.signature.inputs.inputs]


def time_with_zone(case: Case) -> bool:
    return _json(case) and _fits(case) and any(map(values.has_zone, _column(case, "datetime")))


def times_of_several_forms(case: Case) -> bool:
    """Return whether only MLflow refuses a column whose times have different forms."""
    if not (_json(case) and _fits(case)):
        return False
    columns: dict[int, set[str]] = {}
    for spec, value in cells_of(case):
        if _name(spec) == "datetime" and value is not None:
            columns.setdefault(id(spec), set()).add(re.sub(r"\d", "0", value))
    return any(len(forms) > 1 for forms in columns.values())


def integer_names(case: Case) -> bool:
    names = [spec.name for spec in _specs(case)]
    split = values.form_of(case.body) == "dataframe_split"
    return not split and _fits(case) and any(isinstance(name, int) for name in names)


def csv_types(case: Case) -> bool:
    special = any(values.nested(kind) or kind.name == "datetime" for kind in _types(case))
    return _more(case) and not _json(case) and special


def nested_fits(case: Case) -> bool:
    return _json(case) and _fits(case) and any(map(values.nested, _types(case)))


def null_integers(case: Case) -> bool:
    nulls = [*_column(case, "integer"), *_column(case, "long")]
    return _json(case) and _fits(case) and None in nulls


def null_integers_in_csv(case: Case) -> bool:
    """Return whether only MLflow refuses a CSV with null in an optional integer column."""
    nulls = [spec for spec, value in cells_of(case) if value in ("", *_PANDAS_NULLS) and not spec.required]
    return not _json(case) and _more(case) and any(_name(spec) in ("integer", "long") for spec in nulls)


def map_in_object(case: Case) -> bool:
    """Return whether `inputs` is an object with maps, and MLflow refuses it or took the keys of a map as labels."""
    given = case.body.get("inputs") if _json(case) else None
    maps = [spec for spec in _specs(case) if not _tensors(case) and isinstance(spec.type, Map)]
    if not (isinstance(given, dict) and maps):
        return False
    if not _described(case):
        return _fits(case)
    keys = [repr(key) for spec in maps if isinstance(given.get(spec.name), dict) for key in given[spec.name]]
    return set(json.loads(case.theirs.value[0])[0]["index"][1]) == set(keys)


def unnamed_object(case: Case) -> bool:
    """Return whether only MLflow refuses an object in `inputs` for columns without names."""
    given = case.body.get("inputs") if _json(case) else None
    return isinstance(given, dict) and all(spec.name is None for spec in _specs(case)) and _fits(case)


def whole_params(case: Case) -> bool:
    """Return whether only MLflow refuses whole floats for integer parameters."""
    if not (_more(case) and _json(case) and case.signature.params):
        return False
    given = case.body.get("params") or {}
    return any(
        getattr(spec.dtype, "name", "") in ("integer", "long")
        and isinstance(given.get(spec.name), float)
        and given[spec.name].is_integer()
        for spec in case.signature.params.params
    )


@dataclass(frozen=True)
class _Column:
    """A column that both models received: its type, and dtype and values as the describing model shows them."""

    kind: str
    form: str
    theirs: tuple[str, list[str]]
    ours: tuple[str, list[str]]

    def pairs(self) -> list[tuple[str, str]]:
        """Return the values of both; none if their numbers differ."""
        theirs, ours = self.theirs[1], self.ours[1]
        return list(zip(theirs, ours, strict=True)) if len(theirs) == len(ours) else []


_NULLS = ("None", "nan")


def null_is_false(column: _Column) -> bool:
    found = [pair for pair in column.pairs() if pair[0] != pair[1]]
    return column.kind == "boolean" and column.theirs[0] == "bool" and set(found) == {("False", "None")}


def base64_is_text(column: _Column) -> bool:
    if column.kind != "binary" or column.form not in ("inputs", "instances", "csv"):
        return False
    return any(column.pairs()) and all(_decodes(*pair) for pair in column.pairs())


def _decodes(theirs: str, ours: str) -> bool:
    try:
        # A single value is numpy's.
        return ours == repr(base64.b64decode(ast.literal_eval(theirs.removeprefix("np.bytes_(").removesuffix(")"))))
    except (ValueError, SyntaxError, TypeError):
        return theirs in _NULLS and ours in _NULLS


def null_is_text(column: _Column) -> bool:
    found = [pair for pair in column.pairs() if pair[0] != pair[1]]
    texts = ("'None'", "'nan'")
    return column.kind == "string" and bool(found) and all(a in texts and b in _NULLS for a, b in found)


def dtype_of_csv(column: _Column) -> bool:
    same = all(a == b or (a in _NULLS and b in _NULLS) for a, b in column.pairs())
    return (column.kind, column.form) == ("string", "csv") and column.theirs[0] == "object" and same


_RULES: list[Callable[[_Column], bool]] = [null_is_false, base64_is_text, null_is_text, dtype_of_csv]


def _different_columns(case: Case) -> tuple[bool, list[_Column]]:
    """Return whether only the labels of columns without names differ, and the columns that differ."""
    theirs, ours = _frames(case)
    specs = _specs(case)
    unnamed = all(spec.name is None for spec in specs)
    labels = [repr(position if unnamed else spec.name) for position, spec in enumerate(specs)]
    renamed = {name.strip("'") if unnamed else name: cells for name, cells in theirs.items()}
    if list(renamed) != list(ours) or not set(ours) <= set(labels):
        return False, [_Column("", "", ("", []), ("", []))]
    form = values.form_of(case.body)
    different = [
        _Column(getattr(specs[labels.index(name)].type, "name", ""), form, cells, ours[name])
        for name, cells in renamed.items()
        if cells != ours[name]
    ]
    return list(theirs) != list(ours), different


def by_column(rule: Callable[[_Column], bool] | None) -> Callable[[Case], bool]:
    """Return a predicate: a column differs as `rule` says, and all others as some rule says.

    Without a rule: labels differ, and the columns as some rule says.
    """

    def recognises(case: Case) -> bool:
        if not _described(case) or not _same_but_columns(case):
            return False
        renamed, different = _different_columns(case)
        explained = all(any(each(column) for each in _RULES) for column in different)
        return explained and (renamed if rule is None else any(map(rule, different)))

    return recognises


def _same_but_columns(case: Case) -> bool:
    """Return whether both models got the same index and parameters."""
    theirs, ours = (json.loads(answer.value[0]) for answer in (case.theirs, case.ours))
    return theirs[0].get("index") == ours[0].get("index") and theirs[1] == ours[1]


def nan_in_json(case: Case) -> bool:
    return case.theirs.ok and case.ours.status == 400 and _json(case) and "NaN" in json.dumps(case.body)


def infinity_in_json(case: Case) -> bool:
    return case.theirs.ok and case.ours.status == 400 and _json(case) and "Infinity" in json.dumps(case.body)


def same_moments_differ(case: Case) -> bool:
    return (
        case.answer is not None
        and case.theirs.ok
        and case.ours.ok
        and _same_moments(case.theirs.value, case.ours.value)
    )


def _same_moments(theirs: Any, ours: Any) -> bool:
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(_same_moments, theirs, ours))
    return isinstance(theirs, int) and isinstance(ours, str) and int(np.datetime64(ours, "ns")) == theirs


def more_answers(case: Case) -> bool:
    kinds = ("timedelta", "Decimal", "Series", "Index")
    refusals = [f"TypeError: Object of type {kind} is not JSON serializable" for kind in kinds]
    return _more(case) and case.theirs.value in refusals


def unknown_params(case: Case) -> bool:
    if not (only_tidemill_refuses(case) and _json(case)):
        return False
    known = {spec.name for spec in case.signature.params.params} if case.signature.params else set[str]()
    return bool((case.body.get("params") or {}).keys() - known)


def too_fine(case: Case) -> bool:
    """Return whether a time is finer than a microsecond."""
    return only_tidemill_refuses(case) and any(values.has_nanoseconds(value) for _, value in cells_of(case))


def no_rows(case: Case) -> bool:
    """Return whether the request has no column, and so no row."""
    form = values.form_of(case.body)
    return only_tidemill_refuses(case) and form == "inputs" and case.body["inputs"] in ({}, [])


def numbers_fit(case: Case) -> bool:
    """Return whether only MLflow refuses numbers of a smaller type in `inputs` or `instances`."""
    smaller = [*_column(case, "integer"), *_column(case, "float")]
    return values.form_of(case.body) in ("inputs", "instances") and bool(smaller) and _fits(case)


def index_of_csv(case: Case) -> bool:
    """Return whether a CSV for columns without names has an index column."""
    specs = _specs(case)
    unnamed = all(spec.name is None for spec in specs)
    return not _json(case) and case.theirs.ok and unnamed and case.body.startswith((",", '"",'))


def empty_params(case: Case) -> bool:
    """Return whether the models differ only in that MLflow's got no parameters as `{}`."""
    if case.answer is not None or not (case.theirs.ok and case.ours.ok) or case.signature.params is not None:
        return False
    theirs, ours = (json.loads(answer.value[0]) for answer in (case.theirs, case.ours))
    return (
        _json(case) and case.body.get("params") == {} and theirs[0] == ours[0] and (theirs[1], ours[1]) == ("[]", None)
    )
