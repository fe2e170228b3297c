"""Rows as CSV: a header with the names, and values as JSON would have them, without the quotes; empty is null."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

from ..contract.columns import Column, UnfitValueError
from ..contract.model_contract import Contract
from ..http.errors import FieldError, Problem
from ..inference.batch import Batch
from ..settings import LimitSettings
from .json_exact import read_event_times
from .json_strict import named, parse_any, refuse, wrong

__all__ = ["read_csv"]

_EVENT_TIME = "event_time"
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,10})?")
_BOOLEANS = {"true": True, "false": False}
_ERRORS = 1_000
# The module's own limit holds for the whole process; ours is on the body, and on each text.
csv.field_size_limit((1 << 31) - 1)


def read_csv(contract: Contract, body: bytes, limits: LimitSettings) -> Batch:
    """Return the rows of `body`; `event_time` may be among the columns.

    Raises:
        Problem: 400, it is no CSV; 413, it has too many rows or columns; 422, a value does not fit.
    """
    if contract.is_tensor:
        raise Problem(415, "this model takes tensors, which CSV does not have")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8: {error.reason} at {error.start}") from None
    rows, lines = _lines(text, limits)
    header = lines[0] if lines else []
    if len(header) > limits.columns:
        raise Problem(413, f"{len(header)} columns are more than the {limits.columns} which one request may have")
    with_times = _EVENT_TIME not in contract.positions
    places = {name: place for place, name in enumerate(header)}
    errors = [FieldError(named(name), "twice") for place, name in enumerate(header) if places[name] != place]
    errors += [
        FieldError(named(name), "unknown column")
        for name in header
        if name not in contract.positions and not (with_times and name == _EVENT_TIME)
    ]
    errors += [
        FieldError(named(column.name), f"missing; wants {column.wants}")
        for column in contract.columns
        if column.required and column.name not in places
    ]
    refuse(errors)
    if rows < 1:
        raise wrong("body", "wants a header and at least one row")
    tuples: list[tuple[Any, ...]] = []
    order = [(column, places.get(column.name)) for column in contract.columns]
    for index, line in enumerate(lines[1:]):
        if len(errors) >= _ERRORS:
            break
        if len(line) != len(header):
            errors.append(FieldError(f"row[{index}]", f"wants {len(header)} values, got {len(line)}"))
            continue
        values: list[Any] = []
        for column, place in order:
            try:
                values.append(_value(column, "" if place is None else line[place], limits))
            except UnfitValueError as error:
                errors.append(FieldError(f"row[{index}].{named(column.name)}", str(error)))
        tuples.append(tuple(values))
    refuse(errors)
    times = [line[places[_EVENT_TIME]] for line in lines[1:]] if with_times and _EVENT_TIME in places else None
    return contract.packed(Batch(rows, tuples, read_event_times(times, rows)))


def _lines(text: str, limits: LimitSettings) -> tuple[int, list[list[str]]]:
    lines: list[list[str]] = []
    try:
        for line in csv.reader(io.StringIO(text, newline=""), strict=True):
            lines.append(line)
            if len(lines) > limits.rows + 1:
                raise Problem(413, f"there are more rows than the {limits.rows} which one request may have")
    except csv.Error as error:
        raise Problem(400, f"the body is not CSV: {error}") from None
    return len(lines) - 1, lines


def _value(column: Column, cell: str, limits: LimitSettings) -> Any:
    if cell == "":
        return column.convert(None)
    kind, value = column.kind, cell
    if len(cell) > limits.text:
        raise UnfitValueError(f"a string may have {limits.text} characters, this one has {len(cell)}")
    if kind in ("integer", "long"):
        if _INTEGER.fullmatch(cell):
            return column.convert(int(cell))
    elif kind in ("float", "double"):
        if _NUMBER.fullmatch(cell):
            return column.convert(float(cell))
    elif kind == "boolean":
        # Python and pandas write them with a capital.
        return column.convert(_BOOLEANS.get(cell.lower(), value))
    elif kind == "json":
        try:
            return column.convert(parse_any(cell, depth=limits.depth, text=limits.text))
        except Problem as problem:
            raise UnfitValueError(f"{named(column.name)}: {problem.detail}") from None
    return column.convert(value)
