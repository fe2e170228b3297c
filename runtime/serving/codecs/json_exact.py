"""Reads rows from any accepted JSON layout, and names each invalid value in the error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from ..contract.columns import InvalidValueError
from ..contract.field_errors import invalid_field, join_path, printable, raise_field_errors, type_name
from ..contract.model_contract import Contract
from ..http.errors import FieldError
from ..inference.batch import Batch
from ..settings import LimitSettings
from .checks import EVENT_TIME, MAX_ERRORS, Rows, check_tensor_shapes, read_event_times, too_many_columns, too_many_rows

LAYOUTS = ("dataframe_records", "dataframe_split", "instances", "inputs")
_EXTRA_KEYS = (EVENT_TIME, "params")


def read_document(contract: Contract, document: dict[str, Any], limits: LimitSettings) -> Batch:
    """Return the rows of `document`, the body of a request to `/invocations`.

    Raises:
        Problem: 413: too many rows or columns; 422: invalid fields, which are named.
    """
    send = f"send one of {', '.join(LAYOUTS)}"
    unknown = [key for key in document if key not in LAYOUTS and key not in _EXTRA_KEYS]
    errors = [FieldError(printable(key), f"unknown key; {send}") for key in unknown[:MAX_ERRORS]]
    given = [layout for layout in LAYOUTS if layout in document]
    if len(given) != 1:
        errors.append(FieldError(given[-1] if given else LAYOUTS[0], send))
    if document.get("params") not in (None, {}):
        errors.append(FieldError("params", "not supported; the model runs with the parameters of its signature"))
    raise_field_errors(errors)
    layout = given[0]
    value = document[layout]
    if layout == "dataframe_split":
        rows = _read_split(contract, value, limits)
    elif layout == "inputs" and isinstance(value, dict):
        rows = _read_columns(contract, cast("dict[str, Any]", value), layout, limits)
    elif layout == "dataframe_records":
        rows = read_records(contract, value, layout, limits)
    else:
        rows = _read_list(contract, value, layout, limits)
    return Batch(len(rows), rows, read_event_times(document.get(EVENT_TIME), len(rows)))


def read_records(contract: Contract, records: Any, at: str, limits: LimitSettings) -> Rows:
    """Return the rows of `records`, a list of objects.

    Raises:
        Problem: 413 or 422.
    """
    given = _row_list(records, at, limits)
    positions = contract.positions
    rows: Rows = []
    errors: list[FieldError] = []
    for index, record in enumerate(given):
        if len(errors) >= MAX_ERRORS:
            break
        where = f"{at}[{index}]"
        if not isinstance(record, dict):
            errors.append(FieldError(where, f"expected an object, got {type_name(record)}"))
            continue
        members = cast("dict[str, Any]", record)
        if len(members) > limits.columns:
            raise too_many_columns(len(members), limits)
        errors += [FieldError(join_path(where, key), "unknown column") for key in members if key not in positions]
        row: list[Any] = []
        for column in contract.columns:
            try:
                if column.name not in members and column.required:
                    raise InvalidValueError(f"missing; expected {column.expected}")
                row.append(column.convert(members.get(column.name)))
            except InvalidValueError as error:
                errors.append(FieldError(join_path(where, column.name), str(error)))
        rows.append(tuple(row))
    raise_field_errors(errors)
    return check_tensor_shapes(contract, rows, at)


def _read_columns(contract: Contract, columns: dict[str, Any], at: str, limits: LimitSettings) -> Rows:
    """Return the rows of `columns`, an object with a list of values for each column."""
    if len(columns) > limits.columns:
        raise too_many_columns(len(columns), limits)
    errors = [FieldError(join_path(at, key), "unknown column") for key in columns if key not in contract.positions]
    rows = -1
    for column in contract.columns:
        where = join_path(at, column.name)
        if column.name not in columns:
            if column.required:
                errors.append(FieldError(where, "missing column"))
            continue
        values = columns[column.name]
        if not isinstance(values, list) or not values:
            errors.append(FieldError(where, "expected a list with one value per row"))
            continue
        size = len(_row_list(values, where, limits))
        if rows >= 0 and size != rows:
            errors.append(FieldError(where, f"has {size} values; another column has {rows}"))
        rows = size
    if rows < 0 and not errors:
        errors.append(FieldError(at, "expected a list of values for each column"))
    raise_field_errors(errors)
    converted: list[Sequence[Any]] = []
    for column in contract.columns:
        where = join_path(at, column.name)
        converted.append(_convert_column(contract, column.name, columns.get(column.name, [None] * rows), where, errors))
    raise_field_errors(errors)
    return check_tensor_shapes(contract, list(zip(*converted, strict=True)), at)


def _convert_column(
    contract: Contract, name: str, values: Sequence[Any], at: str, errors: list[FieldError]
) -> list[Any]:
    column = contract.columns[contract.positions[name]]
    converted: list[Any] = []
    for index, value in enumerate(values):
        try:
            converted.append(column.convert(value))
        except InvalidValueError as error:
            errors.append(FieldError(f"{at}[{index}]", str(error)))
            if len(errors) >= MAX_ERRORS:
                break
    return converted


def _read_split(contract: Contract, split: Any, limits: LimitSettings) -> Rows:
    at = "dataframe_split"
    if not isinstance(split, dict):
        raise invalid_field(at, f"expected an object, got {type_name(split)}")
    members = cast("dict[str, Any]", split)
    unknown = [key for key in members if key not in ("columns", "data", "index")]
    raise_field_errors([FieldError(join_path(at, key), "unknown key") for key in unknown])
    names = _split_columns(contract, members, limits)
    places: dict[str, int] = {}
    errors: list[FieldError] = []
    for index, name in enumerate(names):
        if name not in contract.positions or name in places:
            text = "duplicate column" if name in places else f"unknown column {printable(name)!r}"
            errors.append(FieldError(f"{at}.columns[{index}]", text))
        places.setdefault(name, index)
    missing = [column for column in contract.columns if column.name not in places and column.required]
    errors += [FieldError(join_path(f"{at}.columns", column.name), "missing column") for column in missing]
    return _read_row_lists(contract, _row_list(members.get("data"), f"{at}.data", limits), names, f"{at}.data", errors)


def _read_row_lists(
    contract: Contract, given: list[Any], names: Sequence[str], at: str, errors: Sequence[FieldError] = ()
) -> Rows:
    """Return the rows of `given`, lists of values in the order of `names`; raise `errors` with any new ones."""
    places = {name: place for place, name in enumerate(names)}
    errors = [
        *errors,
        *(
            FieldError(f"{at}[{index}]", f"expected a list of {len(names)} values")
            for index, row in enumerate(given)
            if not isinstance(row, list) or len(cast("list[Any]", row)) != len(names)
        ),
    ]
    raise_field_errors(errors)
    order = [(column, places.get(column.name)) for column in contract.columns]
    rows: Rows = []
    for index, values in enumerate(given):
        row: list[Any] = []
        for column, place in order:
            try:
                row.append(column.convert(None if place is None else values[place]))
            except InvalidValueError as error:
                errors.append(FieldError(f"{at}[{index}][{place}]", str(error)))
        if len(errors) >= MAX_ERRORS:
            break
        rows.append(tuple(row))
    raise_field_errors(errors)
    return check_tensor_shapes(contract, rows, at)


def _split_columns(contract: Contract, split: dict[str, Any], limits: LimitSettings) -> list[str]:
    """Return the column names of `dataframe_split`; for an unnamed signature they may be numbers or be left out."""
    names = split.get("columns", None if contract.named else list(contract.names))
    if isinstance(names, list):
        given = cast("list[Any]", names)
        if len(given) > limits.columns:
            raise too_many_columns(len(given), limits)
        if not contract.named:
            given = [str(name) if type(name) is int and name.bit_length() < 64 else name for name in given]
        texts = [name for name in given if isinstance(name, str)]
        if len(texts) == len(given):
            return texts
    raise invalid_field("dataframe_split.columns", "expected a list of column names")


def _read_list(contract: Contract, value: Any, at: str, limits: LimitSettings) -> Rows:
    """Return the rows of a list of objects, of lists in the order of unnamed columns, or of single values."""
    given = _row_list(value, at, limits)
    single = len(contract.columns) == 1 and contract.columns[0].kind != "json"
    if all(isinstance(item, dict) for item in given):
        return read_records(contract, given, at, limits)
    if single and (contract.is_tensor or not any(isinstance(item, (dict, list)) for item in given)):
        errors: list[FieldError] = []
        values = _convert_column(contract, contract.names[0], given, at, errors)
        raise_field_errors(errors)
        return check_tensor_shapes(contract, [(item,) for item in values], at)
    if contract.named or contract.is_tensor:
        # Lists rely on the order of the columns, which may change with the next model version: refuse them.
        return read_records(contract, given, at, limits)
    return _read_row_lists(contract, given, contract.names, at)


def _row_list(rows: Any, field: str, limits: LimitSettings) -> list[Any]:
    if not isinstance(rows, list) or not rows:
        raise invalid_field(field, "expected a list of at least one row")
    given = cast("list[Any]", rows)
    if len(given) > limits.rows:
        raise too_many_rows(len(given), limits)
    return given
