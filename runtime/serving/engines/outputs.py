"""Normalises what a model returned: an array of floats, a list with one JSON value for each row, or an `Answer`.

`isolation/host.py` loads this file by its path in the model's own environment. So the file works on every Python from
3.8 on, and imports only the standard library and numpy.
"""

# ruff: noqa: B905 - zip has no `strict` before Python 3.10

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Outputs: TypeAlias = np.ndarray[Any, Any] | list[Any] | "Answer"
    """What a model returned for a batch: a float array of shape (n,) or (n, k), a list of n JSON values, or an `Answer`
    of another form, which need not have one value for each row."""
else:
    Outputs = object

FORMS = ("series", "frame", "mapping", "targets", "score", "value")
"""The forms of an `Answer`."""

_DEPTH = 32
# Arrays of these kinds keep their type; text and objects become lists of JSON values.
_ARRAY_KINDS = "biufM"
_HINTS = {
    "generator": "return a list",
    "set": "return a list",
    "frozenset": "return a list",
    "complex": "return the real and the imaginary part as two numbers",
}
_ARTICLE_AN = "aeiou"


class AnswerError(Exception):
    """The model returned an object that no protocol can represent; the message says which, and what to return."""

    @classmethod
    def of(cls, value: Any) -> AnswerError:
        """Return the error for `value`, which is not a table, an array or JSON."""
        kind = type(value)
        if isinstance(value, np.ndarray):
            name, hint = f"numpy array of {value.dtype.name}", ""
            if value.dtype.kind == "c":
                hint = _HINTS["complex"]
        elif isinstance(value, np.complexfloating):
            name, hint = f"numpy {kind.__name__}", _HINTS["complex"]
        else:
            module = kind.__module__.split("._")[0]
            name = kind.__name__ if module in ("builtins", "__main__") else f"{module} {kind.__name__}"
            hint = _HINTS.get(kind.__name__, "") if module == "builtins" else ""
        if not hint:
            usual = "return a data frame, an array, a list or a dict"
            hint = next((f"return .{each}()" for each in ("toarray", "to_pandas") if hasattr(value, each)), usual)
        article = "an" if name[0].lower() in _ARTICLE_AN else "a"
        return cls(f"the model returned {article} {name}, which is not a table, an array or JSON; {hint}")


class Answer:
    """What a model returned for one call, if it is neither an array of numbers nor a list with one value per row.

    Args:
        form: `series`: one column; `frame`: columns with names; `mapping`: an object with one array for each name;
            `targets`: the probabilities of each target of a classifier, arrays of shape (n, classes); `score`: the
            probabilities of the two classes of a binary classifier, two arrays; `value`: any other array or JSON value.
        names: of the parts of a frame or a mapping, and of a series that has a name; else empty.
        parts: arrays (numbers, booleans or `datetime64`) or lists of JSON values; for `value`, one array or JSON value.
        rows: how many rows each part has, or None if the answer belongs to the request as a whole.
    """

    __slots__ = ("form", "names", "parts", "rows")

    def __init__(self, form: str, names: Sequence[str], parts: Sequence[Any], rows: int | None) -> None:
        self.form = form
        self.names = tuple(names)
        self.parts = list(parts)
        self.rows = rows

    def __repr__(self) -> str:
        return f"Answer({self.form!r}, {self.names!r}, {self.parts!r}, {self.rows!r})"

    def __len__(self) -> int:
        return 1 if self.rows is None else self.rows

    def __getitem__(self, part: slice) -> Answer:
        """Return some rows."""
        if self.rows is None:
            raise ValueError("the answer has no rows")
        rows = len(range(self.rows)[part])
        if self.form == "value" and not isinstance(self.parts[0], np.ndarray):
            # A single JSON value for one row.
            return self if rows == 1 else Answer("value", (), [[]], 0)
        return Answer(self.form, self.names, [values[part] for values in self.parts], rows)

    def of_request(self) -> Answer:
        """Return the same answer as one of the request as a whole."""
        return Answer(self.form, self.names, self.parts, None)

    def to_mlflow(self) -> Any:
        """Return the JSON value that `mlflow models serve` gives as `predictions`."""
        parts = [plain(part) for part in self.parts]
        if self.form in ("series", "frame"):
            return [dict(zip(self.names or ("0",), row)) for row in zip(*parts)]
        if self.form == "mapping":
            return dict(zip(self.names, parts))
        if self.form == "targets":
            return parts
        if self.form == "score":
            return [list(pair) for pair in zip(*parts)]
        return parts[0]

    def to_rows(self) -> list[Any] | None:
        """Return one JSON value for each row, or None if the answer belongs to the request as a whole."""
        if self.rows is None:
            return None
        parts = [plain(part) for part in self.parts]
        if self.form == "series":
            return parts[0]
        if self.form == "score":
            return parts[1]
        if self.form in ("frame", "mapping"):
            return [dict(zip(self.names, row)) for row in zip(*parts)]
        if self.form == "targets":
            return [list(row) for row in zip(*parts)]
        return parts[0] if isinstance(self.parts[0], np.ndarray) else [parts[0]]


def normalise(given: Any, rows: int) -> Outputs:
    """Return a model's output for `rows` rows: an array of floats, a list of JSON values, or an `Answer`.

    NaN and infinities stay. Times become ISO 8601 text with all their digits, bytes base64, missing values null.

    Raises:
        AnswerError: the output, or a value in it, is not a table, an array or JSON, or is nested too deeply.
    """
    if isinstance(given, np.ndarray):
        return _array(given, rows)
    if _is_frame(given):
        if not len(given.columns):
            return _list([{}] * len(given), rows)
        columns = {key_text(name): _column(given.iloc[:, at]) for at, name in enumerate(given.columns)}
        return Answer("frame", list(columns), list(columns.values()), rows if len(given) == rows else None)
    if _is_series(given):
        names = () if given.name is None else (key_text(given.name),)
        return Answer("series", names, [_column(given)], rows if len(given) == rows else None)
    if isinstance(given, Mapping):
        return _mapping(given, rows)
    if isinstance(given, (list, tuple)):
        return _list(given, rows)
    if not isinstance(given, np.generic) and hasattr(given, "__array__"):
        return _array(np.asarray(given), rows)
    return _single(to_json(given), rows)


def binary_scores(outputs: Outputs) -> Outputs:
    """Return the two probabilities of a binary classifier as a `score`; other outputs are returned unchanged."""
    if isinstance(outputs, np.ndarray) and outputs.shape[1:] == (2,):
        return Answer("score", (), [outputs[:, 0], outputs[:, 1]], len(outputs))
    return outputs


def as_request(outputs: Outputs) -> Answer:
    """Return outputs of any form as an answer of the request as a whole."""
    if isinstance(outputs, Answer):
        return outputs.of_request()
    return Answer("value", (), [outputs], None)


def has_values(value: Any, count: int) -> bool:
    """Return whether a list of arrays and JSON values has at least `count` values; 16 characters count as one."""
    waiting = [value]
    while waiting and count > 0:
        each = waiting.pop()
        if isinstance(each, np.ndarray):
            count -= each.size
        elif isinstance(each, str):
            count -= 1 + len(each) // 16
        elif isinstance(each, (list, tuple)):
            count -= len(each)
            if count > 0:
                waiting.extend(item for item in each if isinstance(item, (list, dict, str, np.ndarray)))
        elif isinstance(each, dict):
            count -= len(each)
            if count > 0:
                waiting.extend(item for item in each.values() if isinstance(item, (list, dict, str, np.ndarray)))
    return count <= 0


def plain(part: Any) -> Any:
    """Return a part of an answer as a JSON value."""
    if not isinstance(part, np.ndarray):
        return part
    return _times_text(part) if part.dtype.kind == "M" else part.tolist()


def _array(given: np.ndarray[Any, Any], rows: int) -> Outputs:
    if isinstance(given, np.ma.MaskedArray):
        return normalise(given.tolist(), rows)
    kind = given.dtype.kind
    if kind == "c":
        raise AnswerError.of(given)
    if given.ndim == 0:
        return _single(to_json(given), rows)
    array = np.asarray(given)
    by_row = len(array) == rows
    if by_row and kind == "f" and array.ndim <= 2:
        return array.astype(np.float64, copy=False)
    if kind in _ARRAY_KINDS:
        if by_row and array.ndim == 1 and kind != "M":
            return array.tolist()
        return Answer("value", (), [_usual(array)], rows if by_row else None)
    if kind == "m":
        return _array(_seconds(array), rows)
    values = to_json(array)
    return values if by_row else Answer("value", (), [values], None)


def _list(given: Sequence[Any], rows: int) -> Outputs:
    if given and all(
        isinstance(each, np.ndarray) and each.dtype.kind == "f" and each.ndim == 2 and len(each) == rows
        for each in given
    ):
        return Answer("targets", (), [each.astype(np.float64, copy=False) for each in given], rows)
    values = [to_json(value, 1) for value in given]
    return values if len(values) == rows else Answer("value", (), [values], None)


def _single(value: Any, rows: int) -> Answer:
    return Answer("value", (), [value], 1 if rows == 1 else None)


def _mapping(given: Mapping[Any, Any], rows: int) -> Answer:
    parts = {key_text(name): _part(value) for name, value in given.items()}
    if parts and all(isinstance(part, (list, np.ndarray)) and len(part) == rows for part in parts.values()):
        return Answer("mapping", list(parts), list(parts.values()), rows)
    return _single({name: plain(part) for name, part in parts.items()}, rows)


def _part(value: Any) -> Any:
    """Return a value of a mapping as an array or a JSON value."""
    if isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in _ARRAY_KINDS:
        return _usual(value) if not isinstance(value, np.ma.MaskedArray) else to_json(value.tolist(), 1)
    return _column(value) if _is_series(value) else to_json(value, 1)


def _column(series: Any) -> Any:
    """Return a pandas series as an array, or as a list of JSON values."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in _ARRAY_KINDS:
        return _usual(series.to_numpy())
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "m":
        return _seconds(series.to_numpy())
    if isinstance(series.dtype, np.dtype) and series.dtype.kind == "c":
        raise AnswerError.of(series.to_numpy())
    return [to_json(value, 1) for value in series.tolist()]


def _is_frame(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "columns")


def _is_series(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "to_frame")


def to_json(value: Any, depth: int = 0) -> Any:
    """Return `value` as a JSON value; NaN and infinities stay as they are.

    Raises:
        AnswerError: a value is not an array or JSON, or is nested too deeply.
    """
    if value is None or type(value) in (str, bool, int, float):
        return value
    if isinstance(value, (str, bool, int, float)):
        return _base(value)
    if depth > _DEPTH:
        raise AnswerError(f"the model returned a value that is nested more than {_DEPTH} levels deep")
    if isinstance(value, np.generic):
        return _scalar(value, depth)
    if isinstance(value, np.ndarray):
        return _nested_array(value, depth)
    if isinstance(value, Mapping):
        return {key_text(key): to_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (bytes, bytearray)):
        # With line breaks, as MLflow encodes it.
        return base64.encodebytes(bytes(value)).decode("ascii")
    if isinstance(value, (list, tuple)):
        return [to_json(item, depth + 1) for item in value]
    return _other(value, depth)


def key_text(key: Any) -> str:
    """Return the key of an object, or the name of a column, as JSON writes it."""
    if isinstance(key, str):
        return str.__str__(key)
    if key is None or isinstance(key, (bool, float)):
        return json.dumps(key)
    return str(key)


def _base(value: Any) -> Any:
    """Return a value of a subclass, such as an enumeration or a number of numpy, as its base type."""
    if isinstance(value, str):
        return str.__str__(value)
    return next(kind(value) for kind in (bool, int, float) if isinstance(value, kind))


def _scalar(value: np.generic, depth: int) -> Any:
    if isinstance(value, np.datetime64):
        return time_text(value)
    if isinstance(value, np.timedelta64):
        return None if np.isnat(value) else float(value / np.timedelta64(1, "s"))
    if isinstance(value, np.complexfloating):
        raise AnswerError.of(value)
    number: Any = value
    # `item` of a long double is one of numpy again.
    return float(number) if value.dtype.kind == "f" else to_json(number.item(), depth + 1)


def _nested_array(value: np.ndarray[Any, Any], depth: int) -> Any:
    kind = value.dtype.kind
    if kind == "c":
        raise AnswerError.of(value)
    if kind == "M":
        return _times_text(value)
    if kind == "m":
        return _seconds(value).tolist()
    if kind in "biuf":
        return _usual(value).tolist()
    return to_json(value.tolist(), depth + 1)


def _usual(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return an array in the byte order of this machine; long doubles, which nothing else represents, as doubles."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _seconds(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(array) / np.timedelta64(1, "s")


def _times_text(array: np.ndarray[Any, Any]) -> Any:
    moments: Any = array if array.ndim else [array[()]]
    texts = [_times_text(item) if isinstance(item, np.ndarray) else time_text(item) for item in moments]
    return texts if array.ndim else texts[0]


def time_text(moment: np.datetime64) -> str | None:
    """Return a time as `isoformat` of Python and pandas writes it, with nanoseconds if it has any; None for NaT."""
    if np.isnat(moment):
        return None
    unit = np.datetime_data(moment.dtype)[0]
    if unit in ("Y", "M", "W", "D"):
        return str(moment.astype("datetime64[D]"))
    if unit in ("h", "m", "s", "ms"):
        moment = moment.astype("datetime64[us]")
    seconds, _, digits = str(moment).partition(".")
    if not digits.strip("0"):
        return seconds
    return f"{seconds}.{digits[:6] if not digits[6:].strip('0') else digits}"


def _other(value: Any, depth: int) -> Any:
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if callable(getattr(value, "model_dump", None)):
        return to_json(value.model_dump(), depth + 1)
    if hasattr(value, "__array__"):
        return to_json(np.asarray(value), depth + 1)
    raise AnswerError.of(value)
