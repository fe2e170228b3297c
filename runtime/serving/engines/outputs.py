"""Normalises what a model returned: an array of floats, or a list of JSON values, one for each row.

`isolation/host.py` loads this file by its path in the model's own environment. So the file works on every Python from
3.8 on, and imports only the standard library and numpy.
"""

# ruff: noqa: B905 - zip has no `strict` before Python 3.10

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..inference.batch import Outputs

_DEPTH = 32


class Answer:
    """What a model returned for one call, if it is neither an array of numbers nor a list with one value per row.

    Args:
        form: `series`: one column with a name; `frame`: columns with names; `mapping`: an object with one array for
            each name; `targets`: the probabilities of each target of a classifier, arrays of shape (n, classes);
            `value`: any other JSON value, or rows whose number is not that of the request.
        names: of the parts; empty for `targets` and `value`.
        parts: arrays or lists of JSON values; for `value`, the value alone.
        rows: how many rows each part has, or None if the answer belongs to the request as a whole.
    """

    __slots__ = ("form", "names", "parts", "rows")

    def __init__(self, form: str, names: Sequence[str], parts: Sequence[Any], rows: int | None) -> None:
        self.form = form
        self.names = tuple(names)
        self.parts = list(parts)
        self.rows = rows

    def __len__(self) -> int:
        return 1 if self.rows is None else self.rows

    def __getitem__(self, part: slice) -> Answer:
        """Return some rows."""
        if self.rows is None:
            raise ValueError("the answer has no rows")
        chosen = [values[part] for values in self.parts]
        return Answer(self.form, self.names, chosen, len(range(self.rows)[part]))

    def to_mlflow(self) -> Any:
        """Return the JSON value that `mlflow models serve` gives as `predictions`."""
        raise NotImplementedError

    def to_rows(self) -> list[Any] | None:
        """Return one JSON value for each row, or None if the answer belongs to the request as a whole."""
        raise NotImplementedError


def normalise(given: Any, rows: int) -> Outputs:
    """Return a model's output for `rows` rows as an array of floats, or as a list of JSON values.

    A data frame and a mapping of arrays become one object for each row.

    Raises:
        ValueError: the output does not have one value for each row, or is nested too deeply.
    """
    if isinstance(given, np.ndarray):
        if given.dtype.kind == "f" and given.ndim in (1, 2):
            values: Outputs = given.astype(np.float64, copy=False)
        else:
            values = to_json(given) if given.ndim else [to_json(given)]
    elif hasattr(given, "columns") and hasattr(given, "to_dict"):
        values = [{str(key): to_json(value) for key, value in row.items()} for row in given.to_dict(orient="records")]
    elif hasattr(given, "to_numpy"):
        values = _series(given)
    elif isinstance(given, Mapping):
        values = _by_name(given, rows)
    elif isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        values = [to_json(value) for value in given]
    else:
        values = [to_json(given)]
    if len(values) != rows:
        raise ValueError(f"the model gave {len(values)} values for {rows} rows")
    return values


def _series(given: Any) -> Outputs:
    # A nullable type, where pd.NA is null, has no array of floats.
    array = given.to_numpy()
    if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.ndim == 1:
        return array.astype(np.float64, copy=False)
    return [to_json(value) for value in given.tolist()]


def _by_name(given: Mapping[Any, Any], rows: int) -> list[Any]:
    columns = {str(name): normalise(value, _length(value)) for name, value in given.items()}
    if not columns or any(len(values) != rows for values in columns.values()):
        if rows == 1:
            return [to_json(given)]
        raise ValueError(f"the model gave an object whose parts are not one value for each of {rows} rows")
    plain = [to_json(values) for values in columns.values()]
    return [dict(zip(columns, row)) for row in zip(*plain)]


def _length(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping)) else 1


def to_json(value: Any, depth: int = 0) -> Any:
    """Return `value` as a JSON value; a number that is not finite becomes null.

    Raises:
        ValueError: the value is nested too deeply.
    """
    if value is None or isinstance(value, (str, bool, int)):
        # A subclass, such as a string of numpy or an enumeration, becomes its base type.
        return value if type(value) in (str, bool, int, type(None)) else _base(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth > _DEPTH:
        raise ValueError("the model gave a value which is nested too deeply")
    if isinstance(value, np.generic):
        return _scalar(value)
    if isinstance(value, np.ndarray):
        return [to_json(item, depth + 1) for item in value] if value.ndim else to_json(value.item(), depth + 1)
    if isinstance(value, Mapping):
        return {str(key): to_json(item, depth + 1) for key, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item, depth + 1) for item in value]
    return _other(value, depth)


def _base(value: Any) -> Any:
    return next(kind(value) for kind in (bool, int, str) if isinstance(value, kind))


def _scalar(value: np.generic) -> Any:
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return None if np.isnat(value) else str(value)
    return to_json(value.item())


def _other(value: Any, depth: int) -> Any:
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (datetime, date)):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return to_json(float(value))
    if isinstance(value, timedelta):
        return value.total_seconds()
    for name in ("model_dump", "to_dict", "tolist"):
        method = getattr(value, name, None)
        if callable(method):
            return to_json(method(), depth + 1)
    return str(value)
