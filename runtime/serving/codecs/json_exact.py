"""Reads rows from any accepted JSON layout, and names each invalid value in the error."""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import numpy as np

from ..codecs.params import read_params
from ..contract.columns import Column, InvalidValueError
from ..contract.field_errors import invalid_field, join_path, printable, raise_field_errors, show_value
from ..contract.model_contract import Contract
from ..http.errors import FieldError, Problem
from ..inference.batch import Batch
from ..settings import LimitSettings
from .checks import (
    EVENT_TIME,
    MAX_ERRORS,
    Rows,
    absent_columns,
    check_tensor_shapes,
    is_default_index,
    read_event_times,
    too_many_columns,
    too_many_rows,
)

LAYOUTS = ("dataframe_records", "dataframe_split", "instances", "inputs")
_EXTRA_KEYS = (EVENT_TIME, "params")


def read_document(contract: Contract, document: dict[str, Any], limits: LimitSettings) -> Batch:
    """Return the rows of `document`, the body of a request to `/invocations`; ignore unknown columns, as MLflow does.

    Raises:
        Problem: 413: too many rows or columns; 422: invalid fields, which are named.
    """
    send = f"send one of {', '.join(LAYOUTS)}"
    unknown = [key for key in document if key not in LAYOUTS and key not in _EXTRA_KEYS]
    errors = [FieldError(printable(key), f"unknown key; {send}") for key in unknown[:MAX_ERRORS]]
    given = [layout for layout in LAYOUTS if layout in document]
    if len(given) != 1:
        errors.append(FieldError(given[-1] if given else LAYOUTS[0], send))
    raise_field_errors(errors)
    params = read_params(contract, document.get("params"))
    layout = given[0]
    value = document[layout]
    if layout == "inputs" and _is_only_value(contract, value):
        value = [value]
    if contract.is_tensor and layout.startswith("dataframe"):
        layout, value = "instances", _tensor_records(contract, layout, value, limits)
    if layout == "dataframe_split":
        batch = _read_split(contract, value, limits)
    elif layout == "inputs" and isinstance(value, dict) and not contract.hinted:
        batch = _read_object(contract, cast("dict[str, Any]", value), layout, limits)
    elif layout == "dataframe_records":
        batch = read_records(contract, value, layout, limits, extra=True)
    else:
        batch = _read_list(contract, value, layout, limits)
    times = read_event_times(document.get(EVENT_TIME), batch.rows)
    return replace(batch, event_times=times, params=params, arrays=layout == "inputs" and contract.has_arrays)


def _is_only_value(contract: Contract, value: Any) -> bool:
    """Return whether `inputs` is the value of the only column, which has no name, as MLflow accepts it."""
    is_single = len(contract.columns) == 1 and not (contract.named or contract.is_tensor or contract.hinted)
    return is_single and value is not None and not isinstance(value, list | dict)


def read_records(contract: Contract, records: Any, at: str, limits: LimitSettings, *, extra: bool = False) -> Batch:
    """Return the rows of `records`, a list of objects.

    Args:
        contract: of the model.
        records: the list.
        at: its path in the request.
        limits: of the request.
        extra: ignore unknown columns instead of refusing them.

    Raises:
        Problem: 413 or 422.
    """
    given = _row_list(records, at, limits)
    positions = contract.positions
    rows: Rows = []
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, record in enumerate(given):
        if len(errors) >= MAX_ERRORS:
            break
        where = f"{at}[{index}]"
        if not isinstance(record, dict):
            errors.append(FieldError(where, f"expected an object, got {show_value(record)}"))
            continue
        members = cast("dict[str, Any]", record)
        if len(members) > limits.columns:
            raise too_many_columns(len(members), limits)
        seen.update(members)
        if not extra:
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
    return _batch(contract, check_tensor_shapes(contract, rows, at), seen)


def _batch(contract: Contract, rows: Rows, names: Container[str], index: Sequence[Any] | None = None) -> Batch:
    return Batch(len(rows), rows, absent=absent_columns(contract, names), index=index)


def _read_object(contract: Contract, columns: dict[str, Any], at: str, limits: LimitSettings) -> Batch:
    """Return the rows of `columns`: one row, or a list of values for each column.

    It is one row if no value is a list, or if the signature has arrays or objects, as in MLflow.
    """
    nested = any((column.spec or {}).get("type") in ("array", "object") for column in contract.columns)
    if not contract.is_tensor and columns and not any(isinstance(value, list) for value in columns.values()):
        return read_records(contract, [columns], at, limits, extra=True)
    if nested:
        # Lists of arrays for each column are accepted too.
        with suppress(Problem):
            return read_records(contract, [columns], at, limits, extra=True)
    return _read_columns(contract, columns, at, limits, repeat=not (nested or contract.is_tensor))


def _read_columns(
    contract: Contract, columns: dict[str, Any], at: str, limits: LimitSettings, *, repeat: bool
) -> Batch:
    """Return the rows of `columns`, an object with a list of values for each column.

    If `repeat` is set, a value that is no list is the value of all rows.
    """
    if len(columns) > limits.columns:
        raise too_many_columns(len(columns), limits)
    errors: list[FieldError] = []
    rows = -1
    for column in contract.columns:
        where = join_path(at, column.name)
        if column.name not in columns:
            if column.required:
                errors.append(FieldError(where, "missing column"))
            continue
        values = columns[column.name]
        if repeat and not isinstance(values, list | dict):
            continue
        if not isinstance(values, list) or not values:
            errors.append(FieldError(where, "expected a list with one value per row"))
            continue
        size = len(_row_list(values, where, limits))
        if rows >= 0 and size != rows:
            errors.append(FieldError(where, f"has {size} values; another column has {rows}"))
        rows = size
    if errors and contract.is_tensor and all(isinstance(columns.get(name), list) for name in contract.names):
        return _whole_tensors(contract, columns, at, limits)
    if rows < 0 and not errors:
        errors.append(FieldError(at, "expected a list of values for each column"))
    raise_field_errors(errors)
    converted: list[Sequence[Any]] = []
    for column in contract.columns:
        where = join_path(at, column.name)
        values = columns.get(column.name)
        if not isinstance(values, list):
            one = _convert_column(contract, column.name, [values], where, errors)
            converted.append(one * rows)
            continue
        converted.append(_convert_column(contract, column.name, cast("list[Any]", values), where, errors))
    raise_field_errors(errors)
    return _batch(contract, check_tensor_shapes(contract, list(zip(*converted, strict=True)), at), columns)


def _whole_tensors(contract: Contract, given: dict[str, Any], at: str, limits: LimitSettings) -> Batch:
    """Return tensors that differ in length: together they are one request."""
    errors: list[FieldError] = []
    tensors: dict[str, Any] = {}
    for column in contract.columns:
        where = join_path(at, column.name)
        values = _row_list(given[column.name], where, limits)
        rows = _convert_column(contract, column.name, values, where, errors)
        raise_field_errors(errors)
        one = Contract((column,))
        tensors[column.name] = np.stack([value for (value,) in check_tensor_shapes(one, [(row,) for row in rows], at)])
    return Batch(1, [(None,) * len(contract.columns)], tensors=tensors)


def _tensor_records(contract: Contract, layout: str, value: Any, limits: LimitSettings) -> list[dict[str, Any]]:
    """Return the rows of a data frame for a model that takes tensors, as objects with one value for each tensor.

    As in MLflow, the columns of a matrix can come one by one, and the values of a row as a flat list.
    """
    if layout == "dataframe_split":
        split = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        data = _row_list(split.get("data"), "dataframe_split.data", limits)
        width = len(data[0]) if isinstance(data[0], list) else 0
        names = split.get("columns")
        names = list(range(width)) if not isinstance(names, list) else names
        for index, row in enumerate(data):
            if not isinstance(row, list) or len(cast("list[Any]", row)) != len(names):
                raise invalid_field(f"dataframe_split.data[{index}]", f"expected a list of {len(names)} values")
        rows = [dict(zip(map(str, names), row, strict=True)) for row in data]
    else:
        rows = _row_list(value, layout, limits)
        for index, row in enumerate(rows):
            if not isinstance(row, dict):
                raise invalid_field(f"{layout}[{index}]", f"expected an object, got {show_value(row)}")
    width = max(map(len, rows))
    if width > limits.columns:
        raise too_many_columns(width, limits)
    first = contract.columns[0]
    if not contract.named:
        if first.shape[0] != -1 or -1 in first.shape[1:]:
            hint = "send `inputs` or `instances`"
            raise invalid_field(layout, f"a data frame does not fit a tensor of shape {list(first.shape)}; {hint}")
        if width > 1 and len(first.shape) != 2:
            raise invalid_field(layout, f"expected one column with {first.expected}; {width} columns are one matrix")
        # The only tensor has no name: it gets the only column, or all of them.
        rows = [{first.name: next(iter(row.values())) if len(row) == 1 else list(row.values())} for row in rows]
    return [
        {column.name: _nested_cell(column, row[column.name]) for column in contract.columns if column.name in row}
        for row in rows
    ]


def _nested_cell(column: Column, value: Any) -> Any:
    """Return a flat list as lists nested like a row of the tensor; a single value as a list of one."""
    shape = column.shape[1:]
    if shape == (1,) and not isinstance(value, list):
        return [value]
    if len(shape) < 2 or -1 in shape or not isinstance(value, list):
        return value
    flat = cast("list[Any]", value)
    if len(flat) != math.prod(shape) or any(isinstance(item, list) for item in flat):
        return flat
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat


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


def _read_split(contract: Contract, split: Any, limits: LimitSettings) -> Batch:
    at = "dataframe_split"
    if not isinstance(split, dict):
        raise invalid_field(at, f"expected an object, got {show_value(split)}")
    members = cast("dict[str, Any]", split)
    unknown = [key for key in members if key not in ("columns", "data", "index")]
    raise_field_errors([FieldError(join_path(at, key), "unknown key") for key in unknown])
    names = _split_columns(contract, members, limits)
    places: dict[str, int] = {}
    errors: list[FieldError] = []
    for index, name in enumerate(names):
        if name in places and name in contract.positions:
            errors.append(FieldError(f"{at}.columns[{index}]", "duplicate column"))
        places.setdefault(name, index)
    missing = [column for column in contract.columns if column.name not in places and column.required]
    errors += [FieldError(join_path(f"{at}.columns", column.name), "missing column") for column in missing]
    data = _row_list(members.get("data"), f"{at}.data", limits)
    labels = _row_labels(members.get("index"), len(data), errors)
    rows = _read_row_lists(contract, data, names, f"{at}.data", errors)
    return _batch(contract, rows, places, labels)


def _row_labels(given: Any, rows: int, errors: list[FieldError]) -> list[Any] | None:
    """Return the labels of the rows; None for those that pandas gives by default."""
    at = "dataframe_split.index"
    if given is None:
        return None
    labels = cast("list[Any]", given) if isinstance(given, list) else None
    if labels is None or len(labels) != rows:
        errors.append(FieldError(at, f"expected a list with one label for each of the {rows} rows"))
        return None
    for position, label in enumerate(labels):
        if type(label) not in (str, int, float, bool) or (type(label) is not str and abs(label) >= 1 << 63):
            errors.append(
                FieldError(f"{at}[{position}]", f"expected text, a number or a boolean, got {show_value(label)}")
            )
            return None
    return None if is_default_index(labels) else labels


def _read_row_lists(
    contract: Contract, given: list[Any], names: Sequence[str], at: str, errors: Sequence[FieldError] = ()
) -> Rows:
    """Return the rows of `given`, lists of values in the order of `names`; raise `errors` with any new ones."""
    places: dict[str, int] = {}
    for place, name in enumerate(names):
        places.setdefault(name, place)
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
    """Return the column names of `dataframe_split`; for an unnamed signature they may be left out."""
    names = split.get("columns", None if contract.named else list(contract.names))
    if isinstance(names, list):
        given = cast("list[Any]", names)
        if len(given) > limits.columns:
            raise too_many_columns(len(given), limits)
        texts = [_column_name(contract, name) for name in given if type(name) in (str, int)]
        if len(texts) == len(given):
            return texts
    raise invalid_field("dataframe_split.columns", "expected a list of column names")


def _column_name(contract: Contract, name: str | int) -> str:
    """Return the name of a column in the contract; an integer is the name of a column whose name is one."""
    if isinstance(name, str):
        return name
    text = str(name) if name.bit_length() < 64 else ""
    at = contract.positions.get(text)
    is_known = at is not None and (not contract.named or contract.columns[at].integer_name)
    return text if is_known else f"{text} (an integer)"


def _read_list(contract: Contract, value: Any, at: str, limits: LimitSettings) -> Batch:
    """Return the rows of a list of objects, of lists in the order of unnamed columns, or of single values."""
    given = _row_list(value, at, limits)
    only = contract.columns[0] if len(contract.columns) == 1 else None
    if contract.hinted or (only is not None and _are_values(only, given)):
        errors: list[FieldError] = []
        values = _convert_column(contract, contract.names[0], given, at, errors)
        raise_field_errors(errors)
        return _batch(contract, check_tensor_shapes(contract, [(item,) for item in values], at), contract.positions)
    if contract.named or contract.is_tensor or all(isinstance(item, dict) for item in given):
        # Lists rely on the order of the columns, which may change with the next model version: refuse them.
        return read_records(contract, given, at, limits, extra=True)
    return _batch(contract, _read_row_lists(contract, given, contract.names, at), contract.positions)


def _are_values(column: Column, given: list[Any]) -> bool:
    """Return whether the items of `given` are values of the only column, not rows."""
    if column.dtype == "object" and not all(isinstance(item, dict) and column.name in item for item in given):
        return True
    if any(isinstance(item, dict) for item in given):
        return False
    if column.kind == "json":
        return (column.spec or {}).get("type") == "array"
    return column.kind == "tensor" or not any(isinstance(item, list) for item in given)


def _row_list(rows: Any, field: str, limits: LimitSettings) -> list[Any]:
    if not isinstance(rows, list) or not rows:
        raise invalid_field(field, "expected a list of at least one row")
    given = cast("list[Any]", rows)
    if len(given) > limits.rows:
        raise too_many_rows(len(given), limits)
    return given
