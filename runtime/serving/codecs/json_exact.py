"""The forms of rows in JSON, read exactly: what is refused here is refused, and the error says which value it is.

Other readers may be faster for what is usual; they take a part of what is taken here, and get the same values from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from ..contract.columns import UnfitValueError, parse_time
from ..contract.model_contract import Contract
from ..http.errors import FieldError, Problem
from ..inference.batch import Batch
from ..settings import LimitSettings
from .json_strict import describe, join, named, refusal, refuse, wrong

__all__ = ["FORMS", "checked_rows", "read_columns", "read_document", "read_event_times", "read_records"]

FORMS = ("dataframe_records", "dataframe_split", "instances", "inputs")
_BESIDES = ("event_time", "params")
_ERRORS = 1_000

Rows = list[tuple[Any, ...]]


def read_document(contract: Contract, document: dict[str, Any], limits: LimitSettings) -> Batch:
    """Return the rows in `document`, the body of a request to `/invocations`.

    Raises:
        Problem: 413 for too many rows or columns, 422 for what is understood and wrong, naming the fields.
    """
    send = f"send one of {', '.join(FORMS)}"
    unknown = [key for key in document if key not in FORMS and key not in _BESIDES]
    errors = [FieldError(named(key), f"unknown key; {send}") for key in unknown[:_ERRORS]]
    given = [form for form in FORMS if form in document]
    if len(given) != 1:
        errors.append(FieldError(given[-1] if given else FORMS[0], send))
    if document.get("params") not in (None, {}):
        errors.append(FieldError("params", "parameters are not taken; the model runs with those of its signature"))
    refuse(errors)
    form = given[0]
    value = document[form]
    if form == "dataframe_split":
        rows = _split(contract, value, limits)
    elif form == "inputs" and isinstance(value, dict):
        rows = read_columns(contract, cast("dict[str, Any]", value), form, limits)
    elif form == "dataframe_records":
        rows = read_records(contract, value, form, limits)
    else:
        rows = _list(contract, value, form, limits)
    return Batch(len(rows), rows, read_event_times(document.get("event_time"), len(rows)))


def read_records(contract: Contract, records: Any, at: str, limits: LimitSettings) -> Rows:
    """Return the rows of `records`, a list of objects.

    Raises:
        Problem: 413 or 422.
    """
    given = _rows(records, at, limits)
    positions = contract.positions
    rows: Rows = []
    errors: list[FieldError] = []
    for index, record in enumerate(given):
        if len(errors) >= _ERRORS:
            break
        where = f"{at}[{index}]"
        if not isinstance(record, dict):
            errors.append(FieldError(where, f"wants an object, got {describe(record)}"))
            continue
        members = cast("dict[str, Any]", record)
        _few(len(members), limits)
        errors += [FieldError(join(where, key), "unknown column") for key in members if key not in positions]
        row: list[Any] = []
        for column in contract.columns:
            try:
                if column.name not in members and column.required:
                    raise UnfitValueError(f"missing; wants {column.wants}")
                row.append(column.convert(members.get(column.name)))
            except UnfitValueError as error:
                errors.append(FieldError(join(where, column.name), str(error)))
        rows.append(tuple(row))
    refuse(errors)
    return checked_rows(contract, rows, at)


def read_columns(contract: Contract, columns: dict[str, Any], at: str, limits: LimitSettings) -> Rows:
    """Return the rows of `columns`, an object with a list of values for each column.

    Raises:
        Problem: 413 or 422.
    """
    _few(len(columns), limits)
    errors = [FieldError(join(at, key), "unknown column") for key in columns if key not in contract.positions]
    rows = -1
    for column in contract.columns:
        where = join(at, column.name)
        if column.name not in columns:
            if column.required:
                errors.append(FieldError(where, "missing column"))
            continue
        values = columns[column.name]
        if not isinstance(values, list) or not values:
            errors.append(FieldError(where, "wants a list of at least one value, one a row"))
            continue
        size = len(_rows(values, where, limits))
        if rows >= 0 and size != rows:
            errors.append(FieldError(where, f"has {size} values where another column has {rows}"))
        rows = size
    if rows < 0 and not errors:
        errors.append(FieldError(at, "wants a list of values for each column"))
    refuse(errors)
    held: list[Sequence[Any]] = []
    for column in contract.columns:
        where = join(at, column.name)
        held.append(_column(contract, column.name, columns.get(column.name, [None] * rows), where, errors))
    refuse(errors)
    return checked_rows(contract, list(zip(*held, strict=True)), at)


def _column(contract: Contract, name: str, values: Sequence[Any], at: str, errors: list[FieldError]) -> list[Any]:
    column = contract.columns[contract.positions[name]]
    kept: list[Any] = []
    for index, value in enumerate(values):
        try:
            kept.append(column.convert(value))
        except UnfitValueError as error:
            errors.append(FieldError(f"{at}[{index}]", str(error)))
            if len(errors) >= _ERRORS:
                break
    return kept


def _split(contract: Contract, split: Any, limits: LimitSettings) -> Rows:
    at = "dataframe_split"
    if not isinstance(split, dict):
        raise wrong(at, f"wants an object, got {describe(split)}")
    members = cast("dict[str, Any]", split)
    refuse([FieldError(join(at, key), "unknown key") for key in members if key not in ("columns", "data", "index")])
    names = _names(contract, members, limits)
    places: dict[str, int] = {}
    errors: list[FieldError] = []
    for index, name in enumerate(names):
        if name not in contract.positions or name in places:
            text = "twice" if name in places else f"unknown column {named(name)!r}"
            errors.append(FieldError(f"{at}.columns[{index}]", text))
        places.setdefault(name, index)
    missing = [column for column in contract.columns if column.name not in places and column.required]
    errors += [FieldError(join(f"{at}.columns", column.name), "missing column") for column in missing]
    return _lists(contract, _rows(members.get("data"), f"{at}.data", limits), names, f"{at}.data", errors)


def _lists(
    contract: Contract, given: list[Any], names: Sequence[str], at: str, errors: Sequence[FieldError] = ()
) -> Rows:
    """Return the rows of `given`, lists of values in the order of `names`, unless there are `errors` already."""
    places = {name: place for place, name in enumerate(names)}
    errors = [
        *errors,
        *(
            FieldError(f"{at}[{index}]", f"wants a list of {len(names)} values")
            for index, row in enumerate(given)
            if not isinstance(row, list) or len(cast("list[Any]", row)) != len(names)
        ),
    ]
    refuse(errors)
    order = [(column, places.get(column.name)) for column in contract.columns]
    rows: Rows = []
    for index, values in enumerate(given):
        row: list[Any] = []
        for column, place in order:
            try:
                row.append(column.convert(None if place is None else values[place]))
            except UnfitValueError as error:
                errors.append(FieldError(f"{at}[{index}][{place}]", str(error)))
        if len(errors) >= _ERRORS:
            break
        rows.append(tuple(row))
    refuse(errors)
    return checked_rows(contract, rows, at)


def _names(contract: Contract, split: dict[str, Any], limits: LimitSettings) -> list[str]:
    """Return the names of the columns of `dataframe_split`; a frame without names may have numbers, or none."""
    names = split.get("columns", None if contract.named else list(contract.names))
    if isinstance(names, list):
        given = cast("list[Any]", names)
        _few(len(given), limits)
        if not contract.named:
            given = [str(name) if type(name) is int and name.bit_length() < 64 else name for name in given]
        texts = [name for name in given if isinstance(name, str)]
        if len(texts) == len(given):
            return texts
    raise wrong("dataframe_split.columns", "wants a list of column names")


def _list(contract: Contract, value: Any, at: str, limits: LimitSettings) -> Rows:
    """Return the rows of a list which holds objects, lists in the order of columns without names, or bare values."""
    given = _rows(value, at, limits)
    bare = len(contract.columns) == 1 and contract.columns[0].kind != "json"
    if all(isinstance(item, dict) for item in given):
        return read_records(contract, given, at, limits)
    if bare and (contract.is_tensor or not any(isinstance(item, (dict, list)) for item in given)):
        errors: list[FieldError] = []
        values = _column(contract, contract.names[0], given, at, errors)
        refuse(errors)
        return checked_rows(contract, [(item,) for item in values], at)
    if contract.named or contract.is_tensor:
        # A list would be told by the places of its values, which another version may have in another order.
        return read_records(contract, given, at, limits)
    return _lists(contract, given, contract.names, at)


def _rows(rows: Any, field: str, limits: LimitSettings) -> list[Any]:
    if not isinstance(rows, list) or not rows:
        raise wrong(field, "wants a list of at least one row")
    given = cast("list[Any]", rows)
    if len(given) > limits.rows:
        raise Problem(413, f"{len(given)} rows are more than the {limits.rows} which one request may have")
    return given


def _few(columns: int, limits: LimitSettings) -> None:
    if columns > limits.columns:
        raise Problem(413, f"{columns} columns are more than the {limits.columns} which one request may have")


def checked_rows(contract: Contract, rows: Rows, at: str) -> Rows:
    """Return `rows` when their tensors fit together.

    Raises:
        Problem: 422, they do not.
    """
    if contract.is_tensor:
        for column, values in zip(contract.columns, zip(*rows, strict=True), strict=True):
            if column.shape[0] not in (-1, len(rows)):
                raise wrong(at, f"{named(column.name)} wants exactly {column.shape[0]} rows, got {len(rows)}")
            if len({value.shape for value in values}) != 1:
                raise wrong(at, f"{named(column.name)} wants rows of one shape")
    return rows


def read_event_times(given: Any, rows: int) -> list[datetime] | None:
    """Return `given`, one time or a list of them, as one for each of `rows`.

    Raises:
        Problem: 422.
    """
    if given is None:
        return None
    try:
        if not isinstance(given, list):
            return [parse_time(given, "event_time")] * rows
        times = cast("list[Any]", given)
        if len(times) != rows:
            raise FieldError("event_time", f"wants one time, or one for each of the {rows} rows")
        return [parse_time(value, f"event_time[{index}]") for index, value in enumerate(times)]
    except FieldError as error:
        raise refusal([error]) from None
