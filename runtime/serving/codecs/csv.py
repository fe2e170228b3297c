"""Reads rows from CSV as `pandas.read_csv` does: a header with the column names, and the cells that it takes as null.

Times are in UTC if they have no zone. A column of JSON has JSON in its cells. Other columns are ignored.
"""

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
    BOOLEAN_CELLS,
    EVENT_TIME,
    MAX_ERRORS,
    NULL_CELLS,
    Rows,
    absent_columns,
    check_column_names,
    integer_of_cell,
    is_default_index,
    is_number_cell,
    read_event_times,
    text_too_long,
    too_many_columns,
    too_many_rows,
)
from .json_strict import parse_any

_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_LABEL_DIGITS = 19
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
    lines = lines[1:]
    if not lines:
        raise invalid_field("body", "expected a header and at least one row")
    index = None
    if len(lines[0]) == len(header) + 1:
        # A header without a name for the first column: pandas takes that as the labels of the rows.
        header = ["", *header]
        index = _labels([line[0] if line else "" for line in lines])
    return _read_rows(contract, header, lines, index, limits, has_times=has_times)


def _read_rows(
    contract: Contract,
    header: list[str],
    lines: list[list[str]],
    index: list[Any] | None,
    limits: LimitSettings,
    *,
    has_times: bool,
) -> Batch:
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        places.setdefault(name, place)
    order = [(column, places.get(column.name)) for column in contract.columns]
    tuples: Rows = []
    errors: list[FieldError] = []
    for position, line in enumerate(lines):
        if len(errors) >= MAX_ERRORS:
            break
        if len(line) != len(header):
            errors.append(FieldError(f"row[{position}]", f"expected {len(header)} values, got {len(line)}"))
            continue
        values: list[Any] = []
        for column, place in order:
            try:
                values.append(_convert(column, "" if place is None else line[place], limits))
            except InvalidValueError as error:
                errors.append(FieldError(f"row[{position}].{printable(column.name)}", str(error)))
        tuples.append(tuple(values))
    raise_field_errors(errors)
    times = [line[places[EVENT_TIME]] for line in lines] if has_times else None
    rows = len(lines)
    absent = absent_columns(contract, places)
    batch = Batch(rows, tuples, read_event_times(times, rows), absent, index, contract.default_params)
    return contract.columnar_if_large(batch)


def _labels(cells: list[str]) -> list[Any] | None:
    """Return the labels of the rows, integers if all are; None for those that pandas gives by default."""
    if all(_INTEGER.fullmatch(cell) and len(cell) < _LABEL_DIGITS for cell in cells):
        labels = [int(cell) for cell in cells]
        return None if is_default_index(labels) else labels
    return list(cells)


def _lines(text: str, limits: LimitSettings) -> list[list[str]]:
    lines: list[list[str]] = []
    try:
        for line in csv.reader(io.StringIO(text, newline=""), strict=True):
            if not line or (len(line) == 1 and line[0] and line[0].isspace()):
                continue  # pandas skips blank lines
            lines.append(line)
            if len(lines) > limits.rows + 1:
                raise too_many_rows(len(lines) - 1, limits)
    except csv.Error as error:
        raise Problem(400, f"the body is not CSV: {error}") from None
    return lines


def _convert(column: Column, cell: str, limits: LimitSettings) -> Any:
    kind = column.kind
    if len(cell) > limits.text:
        raise text_too_long(len(cell), limits)
    if kind not in ("string", "binary"):
        cell = cell.strip()
    if cell in NULL_CELLS:
        return column.convert(None)
    if kind in ("integer", "long"):
        # Not through a float, which cannot represent all integers.
        number = int(cell) if _INTEGER.fullmatch(cell) else integer_of_cell(cell)
        return column.convert(cell if number is None else number)
    if kind in ("float", "double"):
        return column.convert(float(cell) if is_number_cell(cell) else cell)
    if kind == "boolean":
        return column.convert(BOOLEAN_CELLS.get(cell, cell))
    if kind == "json":
        try:
            return column.convert(parse_any(cell, depth=limits.depth, text=limits.text))
        except Problem as problem:
            raise InvalidValueError(f"{printable(column.name)}: {problem.detail}") from None
    return column.convert(cell)
