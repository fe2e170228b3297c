"""Checks that all codecs share: row and column counts, column names, event times, tensor shapes."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

from ..contract.columns import InvalidValueError, parse_time
from ..contract.field_errors import invalid_field, invalid_fields, printable, raise_field_errors
from ..contract.model_contract import Contract
from ..http import limit_errors
from ..http.errors import FieldError, Problem
from ..settings import LimitSettings

EVENT_TIME = "event_time"
MAX_ERRORS = 1_000
"""A codec stops reading a body after this many errors."""

NULL_CELLS = frozenset(
    {
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
        *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    }
)
"""The cells of CSV that `pandas.read_csv` takes as missing."""
BOOLEAN_CELLS = {
    **dict.fromkeys(("True", "TRUE", "true", "1", "1.0"), True),
    **dict.fromkeys(("False", "FALSE", "false", "0", "0.0"), False),
}
"""The cells of CSV that `pandas.read_csv` takes as booleans."""

NUMBER_CELL = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,10})?"
"""The regular expression of the cells of CSV that are decimal numbers; others, such as 0x10, are text."""
_NUMBER = re.compile(NUMBER_CELL)
_DIGITS = 40

Rows = list[tuple[Any, ...]]


def is_number_cell(cell: str) -> bool:
    """Return whether a cell of CSV is a decimal number."""
    return _NUMBER.fullmatch(cell) is not None


def integer_of_cell(cell: str) -> int | None:
    """Return the integer that a cell of CSV has exactly, or None if it is none or has more than 40 digits.

    >>> integer_of_cell("9007199254740993.0"), integer_of_cell("1e3"), integer_of_cell("1.5"), integer_of_cell("0x10")
    (9007199254740993, 1000, None, None)
    """
    if not is_number_cell(cell):
        return None
    number = Decimal(cell)
    if number.adjusted() >= _DIGITS:
        return None
    whole = number.to_integral_value()
    return int(whole) if whole == number else None


def too_many_rows(rows: int, limits: LimitSettings) -> Problem:
    """Return the 413 for a request with `rows` rows."""
    return limit_errors.too_many_rows(rows, limits.rows)


def too_many_columns(columns: int, limits: LimitSettings) -> Problem:
    """Return the 413 for a request with `columns` columns or inputs."""
    return limit_errors.too_many_columns(columns, limits.columns)


def text_too_long(length: int, limits: LimitSettings) -> InvalidValueError:
    """Return the error for a string of `length` characters."""
    return InvalidValueError(limit_errors.text_too_long(length, limits.text))


def check_column_names(contract: Contract, names: Sequence[str]) -> bool:
    """Check the column names of a table; return whether it has an extra column `event_time`.

    Other columns are ignored, as MLflow does.

    Raises:
        Problem: 422: duplicate or missing columns.
    """
    positions = {name: at for at, name in enumerate(names)}
    has_times = EVENT_TIME in positions and EVENT_TIME not in contract.positions
    errors = [
        FieldError(printable(name), "duplicate column")
        for at, name in enumerate(names)
        if positions[name] != at and (name in contract.positions or name == EVENT_TIME)
    ]
    errors += [
        FieldError(printable(column.name), f"missing; expected {column.expected}")
        for column in contract.columns
        if column.required and column.name not in positions
    ]
    raise_field_errors(errors)
    return has_times


def absent_columns(contract: Contract, names: Container[str]) -> frozenset[int]:
    """Return the positions of the optional columns that are not in `names`."""
    return frozenset(
        at for at, column in enumerate(contract.columns) if not column.required and column.name not in names
    )


def is_default_index(labels: Sequence[Any]) -> bool:
    """Return whether `labels` are those that pandas gives by default: 0, 1, 2, ... Clients often send them."""
    return all(type(label) is int for label in labels) and list(labels) == list(range(len(labels)))


def check_tensor_shapes(contract: Contract, rows: Rows, at: str) -> Rows:
    """Return `rows` if the tensors of each column have one shape.

    Raises:
        Problem: 422: they have not; the error names the field `at`.
    """
    if contract.is_tensor:
        for column, values in zip(contract.columns, zip(*rows, strict=True), strict=True):
            name = printable(column.name)
            if column.shape[0] not in (-1, len(rows)):
                raise invalid_field(at, f"{name}: expected exactly {column.shape[0]} rows, got {len(rows)}")
            if len({value.shape for value in values}) != 1:
                raise invalid_field(at, f"{name}: all rows must have the same shape")
    return rows


def read_event_times(given: Any, rows: int) -> list[datetime] | None:
    """Return one time per row for `given`, one time or a list of them.

    Raises:
        Problem: 422: not a time, or another number of times than rows.
    """
    if given is None:
        return None
    try:
        if not isinstance(given, list):
            return [parse_time(given, EVENT_TIME)] * rows
        times = cast("list[Any]", given)
        if len(times) != rows:
            raise FieldError(EVENT_TIME, f"expected one time, or one for each of the {rows} rows")
        return [parse_time(value, f"{EVENT_TIME}[{index}]") for index, value in enumerate(times)]
    except FieldError as error:
        raise invalid_fields([error]) from None
