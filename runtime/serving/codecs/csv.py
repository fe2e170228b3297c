"""Reads rows from CSV: a header with the column names, JSON values without quotes, an empty cell for null."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from ..contract.columns import Column, InvalidValueError
from ..contract.field_errors import invalid_field, printable, raise_field_errors
from ..contract.model_contract import Contract
from ..http.errors import FieldError, Problem
from ..inference.batch import Batch
from ..settings import LimitSettings
from .checks import (
    EVENT_TIME,
    MAX_ERRORS,
    Rows,
    check_column_names,
    read_event_times,
    text_too_long,
    too_many_columns,
    too_many_rows,
)
from .json_strict import parse_any

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,10})?")
_BOOLEANS = {"true": True, "false": False}
# The csv module has one limit for the whole process; ours apply to each body and each string.
csv.field_size_limit((1 << 31) - 1)


def read_csv(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    """Return the rows of `body`; `event_time` may be an extra column.

    Raises:
        Problem: 400: not CSV; 413: too many rows or columns; 415: the model takes tensors; 422: invalid fields.
    """
    if contract.is_tensor:
        raise Problem(415, "this model takes tensors, which CSV cannot represent")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8: {error.reason} at {error.start}") from None
    lines = _lines(text, limits)
    header = lines[0] if lines else []
    if len(header) > limits.columns:
        raise too_many_columns(len(header), limits)
    has_times = check_column_names(contract, header)
    rows = len(lines) - 1
    if rows < 1:
        raise invalid_field("body", "expected a header and at least one row")
    places = {name: place for place, name in enumerate(header)}
    order = [(column, places.get(column.name)) for column in contract.columns]
    tuples: Rows = []
    errors: list[FieldError] = []
    for index, line in enumerate(lines[1:]):
        if len(errors) >= MAX_ERRORS:
            break
        if len(line) != len(header):
            errors.append(FieldError(f"row[{index}]", f"expected {len(header)} values, got {len(line)}"))
            continue
        values: list[Any] = []
        for column, place in order:
            try:
                values.append(_convert(column, "" if place is None else line[place], limits))
            except InvalidValueError as error:
                errors.append(FieldError(f"row[{index}].{printable(column.name)}", str(error)))
        tuples.append(tuple(values))
    raise_field_errors(errors)
    times = [line[places[EVENT_TIME]] for line in lines[1:]] if has_times else None
    return contract.columnar_if_large(Batch(rows, tuples, read_event_times(times, rows)))


def _lines(text: str, limits: LimitSettings) -> list[list[str]]:
    lines: list[list[str]] = []
    try:
        for line in csv.reader(io.StringIO(text, newline=""), strict=True):
            lines.append(line)
            if len(lines) > limits.rows + 1:
                raise too_many_rows(len(lines) - 1, limits)
    except csv.Error as error:
        raise Problem(400, f"the body is not CSV: {error}") from None
    return lines


def _convert(column: Column, cell: str, limits: LimitSettings) -> Any:
    if cell == "":
        return column.convert(None)
    kind = column.kind
    if len(cell) > limits.text:
        raise text_too_long(len(cell), limits)
    if kind in ("integer", "long"):
        if _INTEGER.fullmatch(cell):
            return column.convert(int(cell))
    elif kind in ("float", "double"):
        if _NUMBER.fullmatch(cell):
            return column.convert(float(cell))
    elif kind == "boolean":
        # Python and pandas write True and False.
        return column.convert(_BOOLEANS.get(cell.lower(), cell))
    elif kind == "json":
        try:
            return column.convert(parse_any(cell, depth=limits.depth, text=limits.text))
        except Problem as problem:
            raise InvalidValueError(f"{printable(column.name)}: {problem.detail}") from None
    return column.convert(cell)
