"""What a model version takes: its signature as a contract, by which request bodies are read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, cast, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from tidemill.runtime.serving.problems import FieldError, Problem

if TYPE_CHECKING:
    from mlflow.types import Schema

__all__ = ["Batch", "Column", "Contract", "parse_json", "parse_time", "refusal"]

Kind = Literal["boolean", "integer", "long", "float", "double", "string", "datetime"]

_ARROW: dict[Kind, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "datetime": pa.timestamp("us", tz="UTC"),
}
_PANDAS: dict[Kind, str] = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "str",
    "datetime": "datetime64[ns]",
}
# numpy has no missing value for these, so a null of theirs cannot reach the model.
_NEVER_NULL: frozenset[Kind] = frozenset({"boolean", "integer", "long"})
_WIDER: dict[Kind, frozenset[Kind]] = {
    "integer": frozenset({"long", "double"}),
    "long": frozenset({"double"}),
    "float": frozenset({"double"}),
}
_BITS = {"integer": 31, "long": 63}
_LARGEST = {"float": float(np.finfo(np.float32).max), "double": float(np.finfo(np.float64).max)}
_FIRST_TIME, _LAST_TIME = datetime(1678, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_FORMS = ("dataframe_records", "dataframe_split")
_JSON_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
}


@dataclass(frozen=True)
class Column:
    """One input.

    Attributes:
        kind: its type in the signature.
        required: it must be there and not be null.
    """

    name: str
    kind: Kind
    required: bool = True

    @property
    def wants(self) -> str:
        """What the column takes, in words."""
        words = {"boolean": "true or false", "string": "a string", "datetime": "an RFC 3339 time"}
        text = words.get(self.kind, "a number" if self.kind in _LARGEST else "an integer")
        return f"{text} ({self.kind})" + ("" if self.required or self.kind in _NEVER_NULL else " or null")

    def convert(self, value: Any, field: str) -> Any:
        """Return `value`, out of JSON, as the column holds it.

        Raises:
            FieldError: it does not fit.
        """
        kind, of = self.kind, type(value)
        if value is None:
            if not self.required and kind not in _NEVER_NULL:
                return None
        elif kind in _LARGEST:
            if of is float or of is int:
                # Compared as it is: a huge integer has no float.
                if not abs(value) <= _LARGEST[kind]:
                    raise FieldError(field, f"{self.name} is out of the range of {kind}")
                return float(value)
        elif kind in _BITS:
            if of is int:
                if not -(1 << _BITS[kind]) <= value < 1 << _BITS[kind]:
                    raise FieldError(field, f"{self.name} is out of the range of {kind}")
                return value
        elif kind == "boolean":
            if of is bool:
                return value
        elif of is str:
            return parse_time(value, field) if kind == "datetime" else _text(value, field)
        raise FieldError(field, f"{self.name} wants {self.wants}, got {_describe(value)}")


def _text(value: str, field: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise FieldError(field, "half of a surrogate pair is not text") from None
    return value


def _describe(value: Any) -> str:
    return "null" if value is None else _JSON_NAMES.get(type(value), type(value).__name__)


def parse_time(text: Any, field: str) -> datetime:
    """Return the RFC 3339 time `text`, with its offset, in UTC.

    Raises:
        FieldError: it is not one, or lies outside 1678 to 2261.
    """
    if isinstance(text, str) and _RFC3339.fullmatch(text):
        try:
            moment = datetime.fromisoformat(text.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment is not None and _FIRST_TIME <= moment < _LAST_TIME:
            return moment
    raise FieldError(field, "wants an RFC 3339 time with its offset, such as 2013-07-01T12:00:00Z, of 1678 to 2261")


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def parse_json(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`.

    Raises:
        Problem: 400, it is not UTF-8, not JSON (NaN and Infinity are not), nested too deeply, or not an object.
    """
    try:
        document = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Problem(400, "the body is not a JSON object")
    return cast("dict[str, Any]", document)


@dataclass(frozen=True)
class Batch:
    """The rows of one request, checked.

    Attributes:
        columns: name -> values, in the order of the contract; None is null.
        event_times: what the client said, one a row, or None.
        rows: how many.
    """

    columns: dict[str, list[Any]]
    event_times: list[datetime] | None
    rows: int


@dataclass(frozen=True)
class Contract:
    """The inputs of a model version, in its order."""

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, schema: Schema | None) -> Contract:
        """Return the contract of a signature's inputs.

        Raises:
            ValueError: there are none, they have no names, or a type which JSON bodies here cannot carry.
        """
        if schema is None or not schema.inputs or not schema.has_input_names():
            raise ValueError("the model has no signature with named input columns")
        columns: list[Column] = []
        for spec in schema.inputs:
            kind = getattr(spec.type, "name", str(spec.type))
            if kind not in get_args(Kind):
                raise ValueError(f"column {spec.name!r} has the type {kind}, which this server does not take")
            columns.append(Column(str(spec.name), cast("Kind", kind), spec.required))
        return cls(tuple(columns))

    @property
    def arrow(self) -> pa.StructType:
        """The features as a struct."""
        return pa.struct([pa.field(column.name, _ARROW[column.kind]) for column in self.columns])

    def to_arrow(self, columns: Mapping[str, list[Any]]) -> pa.StructArray:
        """Return `columns` of a Batch as one struct array."""
        arrays = [pa.array(columns[column.name], _ARROW[column.kind]) for column in self.columns]
        return pa.StructArray.from_arrays(arrays, fields=list(self.arrow))

    def to_pandas(self, batch: Batch) -> pd.DataFrame:
        """Return `batch` as the model wants it; null is NaN (NaT for times, which carry no zone there)."""
        series: dict[str, pd.Series] = {}
        for column in self.columns:
            values = batch.columns[column.name]
            if column.kind == "datetime":
                values = [None if value is None else value.replace(tzinfo=None) for value in values]
            series[column.name] = pd.Series(values, dtype=cast("Any", _PANDAS[column.kind]))
        return pd.DataFrame(series)

    def why_not(self, old: Contract) -> list[str]:
        """Return why requests made for `old` would not all be taken; empty when they would."""
        mine = {column.name: column for column in self.columns}
        reasons: list[str] = []
        for column in old.columns:
            found = mine.pop(column.name, None)
            if found is None:
                reasons.append(f"column {column.name} is gone")
            elif found.kind != column.kind and found.kind not in _WIDER.get(column.kind, ()):
                reasons.append(f"column {column.name} was {column.kind} and is {found.kind}")
            elif found.required and not column.required:
                reasons.append(f"column {column.name} may no longer be null")
        reasons += [f"column {name} is new and required" for name, column in mine.items() if _must(column)]
        return reasons

    def batch(self, document: dict[str, Any], limit: int) -> Batch:
        """Return the rows in `document`, the body of a request, which has at most `limit` of them.

        Raises:
            Problem: 413 for too many rows, 422 for what is understood and wrong, naming the fields.
        """
        unknown = [key for key in document if key not in (*_FORMS, "event_time")]
        given = [form for form in _FORMS if form in document]
        errors = [FieldError(key, "unknown key; send dataframe_records or dataframe_split") for key in unknown]
        if len(given) != 1:
            errors.append(
                FieldError(given[-1] if given else _FORMS[0], "send one of dataframe_records, dataframe_split")
            )
        _refuse(errors)
        form = given[0]
        columns, rows = (self._records if form == "dataframe_records" else self._split)(document[form], limit)
        return Batch(columns, _event_times(document.get("event_time"), rows), rows)

    def _records(self, records: Any, limit: int) -> tuple[dict[str, list[Any]], int]:
        rows = _rows(records, "dataframe_records", limit)
        values: dict[str, list[Any]] = {column.name: [] for column in self.columns}
        errors: list[FieldError] = []
        for index, record in enumerate(rows):
            at = f"dataframe_records[{index}]"
            if not isinstance(record, dict):
                errors.append(FieldError(at, f"wants an object, got {_describe(record)}"))
                continue
            errors += [FieldError(f"{at}.{key}", "unknown column") for key in record if key not in values]
            for column in self.columns:
                field = f"{at}.{column.name}"
                try:
                    if column.name in record or not _must(column):
                        values[column.name].append(column.convert(record.get(column.name), field))
                    else:
                        errors.append(FieldError(field, f"missing; wants {column.wants}"))
                except FieldError as error:
                    errors.append(error)
        _refuse(errors)
        return values, len(rows)

    def _split(self, split: Any, limit: int) -> tuple[dict[str, list[Any]], int]:
        if not isinstance(split, dict):
            raise _wrong("dataframe_split", f"wants an object, got {_describe(split)}")
        rest = [key for key in split if key not in ("columns", "data", "index")]
        _refuse([FieldError(f"dataframe_split.{key}", "unknown key") for key in rest])
        names = split.get("columns")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise _wrong("dataframe_split.columns", "wants a list of column names")
        rows = _rows(split.get("data"), "dataframe_split.data", limit)
        known = {column.name for column in self.columns}
        errors = [
            FieldError(
                f"dataframe_split.columns[{index}]", f"unknown column {name!r}" if name not in known else "twice"
            )
            for index, name in enumerate(names)
            if name not in known or name in names[:index]
        ]
        for index, row in enumerate(rows):
            if not isinstance(row, list) or len(row) != len(names):
                errors.append(FieldError(f"dataframe_split.data[{index}]", f"wants a list of {len(names)} values"))
        missing = [column for column in self.columns if column.name not in names and _must(column)]
        errors += [FieldError(f"dataframe_split.columns.{column.name}", "missing column") for column in missing]
        _refuse(errors)
        values: dict[str, list[Any]] = {}
        for column in self.columns:
            if column.name not in names:
                values[column.name] = [None] * len(rows)
                continue
            position, kept = names.index(column.name), values.setdefault(column.name, [])
            for index, row in enumerate(rows):
                try:
                    kept.append(column.convert(row[position], f"dataframe_split.data[{index}][{position}]"))
                except FieldError as error:
                    errors.append(error)
        _refuse(errors)
        return values, len(rows)


def _must(column: Column) -> bool:
    return column.required or column.kind in _NEVER_NULL


def _rows(rows: Any, field: str, limit: int) -> list[Any]:
    if not isinstance(rows, list) or not rows:
        raise _wrong(field, "wants a list of at least one row")
    if len(rows) > limit:
        raise Problem(413, f"{len(rows)} rows are more than the {limit} which one request may have")
    return rows


def _event_times(given: Any, rows: int) -> list[datetime] | None:
    if given is None:
        return None
    try:
        if not isinstance(given, list):
            return [parse_time(given, "event_time")] * rows
        if len(given) != rows:
            raise FieldError("event_time", f"wants one time, or one for each of the {rows} rows")
        return [parse_time(value, f"event_time[{index}]") for index, value in enumerate(given)]
    except FieldError as error:
        raise refusal([error]) from None


def _wrong(field: str, message: str) -> Problem:
    return refusal([FieldError(field, message)])


def _refuse(errors: Sequence[FieldError]) -> None:
    if errors:
        raise refusal(errors)


def refusal(errors: Sequence[FieldError]) -> Problem:
    """Return the 422 which names `errors`, at least one."""
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    return Problem(422, f"{errors[0]}{more}", errors=errors)
