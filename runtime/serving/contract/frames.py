"""Builds the data that MLflow gives to a model: a data frame, or arrays for tensors.

The server and the process of an isolated model use this one module, so that both give a model the same data.
`isolation/host.py` loads it by its path in the model's own environment: it must run with Python 3.8, and import only
numpy, pandas and the standard library. A column is the JSON document that `Contract.to_json` returns for it. Its values
are a sequence of Python values or an Arrow array.

The types are those that reach a model in MLflow's own server:

| kind | without null | with null |
|---|---|---|
| long, integer | int64, int32 | Int64, Int32 with NA (MLflow refuses it) |
| float, double | float32, float64 | NaN |
| boolean | bool | object with None (MLflow turns null into false) |
| string | the text type of pandas | NaN; object with None if all are null, or if the model's encoders need None |
| datetime | datetime64[ns], UTC without a zone | NaT |
| binary, JSON | object | None |

Arrays are lists, and numpy arrays if the request has the form `inputs`.
"""

# ruff: noqa: B905 - zip has no `strict` before Python 3.10

from __future__ import annotations

import copy
import json

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Any

NUMPY = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
NULLABLE = {"integer": "Int32", "long": "Int64"}
# In an object or a map, MLflow makes numpy values of these.
NUMPY_INSIDE = {**NUMPY, "datetime": "datetime64[ns]"}
# MLflow checks these in a list by their exact type, which Python's own values do not have.
EXACT = frozenset({"integer", "float", "datetime"})


def label_of(column: Mapping[str, Any], position: int, named: bool) -> Any:
    """Return the label of a column in a data frame: its name in the signature, or its position."""
    if not named:
        return position
    return int(column["name"]) if column.get("integer_name") else column["name"]


def frame(
    columns: Sequence[Mapping[str, Any]],
    cells: Iterable[Any],
    named: bool = True,
    missing_text: str = "any",
    absent: Collection[int] = (),
    index: Sequence[Any] | None = None,
    rows: int = 0,
    arrays: bool = False,
) -> Any:
    """Return a data frame.

    Args:
        columns: of the contract.
        cells: the values of each column.
        named: whether the columns have names.
        missing_text: see `Contract`.
        absent: positions of columns that the frame does not have.
        index: labels of the rows.
        rows: number of rows; used if all columns are absent.
        arrays: give columns of arrays as numpy arrays instead of lists.
    """
    import pandas as pd

    data = {
        label_of(column, position, named): series(column, values, missing_text, arrays)
        for position, (column, values) in enumerate(zip(columns, cells))
        if position not in absent
    }
    made = pd.DataFrame(data) if data else pd.DataFrame(index=range(rows))
    if index is not None:
        # Not an argument of the constructor, which would look for these labels in the columns.
        made.index = pd.Index(list(index))
    return made


def plain(column: Mapping[str, Any], cells: Any) -> list[Any]:
    """Return the values of a column as a list, for a model with a type hint; it owns them."""
    is_arrow = hasattr(cells, "to_pylist")
    values = cells.to_pylist() if is_arrow else cells
    if column["kind"] == "json":
        return [None if value is None else json.loads(value) if is_arrow else copied(value) for value in values]
    return [_without_zone(value) for value in values] if column["kind"] == "datetime" else list(values)


def series(column: Mapping[str, Any], cells: Any, missing_text: str = "any", arrays: bool = False) -> Any:
    """Return the values of one column of a data frame."""
    import pandas as pd

    kind = column["kind"]
    is_arrow = hasattr(cells, "to_pylist")
    missing = not column["required"] and (cells.null_count > 0 if is_arrow else None in cells)
    if kind in NUMPY and (not missing or kind in ("float", "double")):
        return np.array(cells.to_numpy(zero_copy_only=False) if is_arrow else cells, dtype=NUMPY[kind])
    if kind == "datetime":
        times = cells.to_numpy(zero_copy_only=False) if is_arrow else [_without_zone(value) for value in cells]
        return np.array(times, dtype="datetime64[us]").astype("datetime64[ns]")
    values = cells.to_pylist() if is_arrow else list(cells)
    if kind in NULLABLE:
        return pd.array(values, dtype=NULLABLE[kind])
    if kind == "string":
        return _text(values, missing, missing_text)
    if kind == "json":
        if is_arrow:
            values = [None if value is None else json.loads(value) for value in values]
        values = [nested(value, column["spec"]) for value in values]
        if arrays and column["spec"]["type"] == "array":
            values = [_as_array(value) for value in values]
    # Filled one by one: numpy would turn lists of equal length into a matrix.
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        objects[position] = value
    return objects


def _text(values: list[Any], missing: bool, missing_text: str) -> Any:
    import pandas as pd

    if missing and missing_text == "None":
        return pd.Series(values, dtype=object)
    if missing and missing_text == "NaN":
        filled = [np.nan if value is None else value for value in values]
        return pd.Series(filled, dtype=object if int(pd.__version__.split(".")[0]) < 3 else "str")
    # The type that pandas infers, as for MLflow's frame.
    return pd.Series(values) if values else pd.Series(values, dtype=object)


def nested(value: Any, spec: Mapping[str, Any]) -> Any:
    """Return a copy of a JSON value with the types that MLflow gives to the values inside.

    The copy belongs to the model: MLflow and the model may change it.
    """
    kind = spec["type"]
    if value is None:
        return None
    if kind == "any":
        return copied(value)
    if kind == "object":
        properties = spec["properties"]
        return {key: nested(item, properties[key]) for key, item in value.items()}
    if kind == "map":
        return {key: nested(item, spec["values"]) for key, item in value.items()}
    if kind == "array":
        return _nested_list(value, spec["items"])
    return _exact(value, kind) if kind in NUMPY_INSIDE else value


def _nested_list(values: list[Any], spec: Mapping[str, Any]) -> Any:
    kind = spec["type"]
    if kind in EXACT and values:
        return np.array([_exact(value, kind) for value in values], dtype=NUMPY_INSIDE[kind])
    if kind == "binary":
        return [value.encode("ascii") for value in values]
    if kind in NUMPY or kind == "string":
        return list(values)
    return [nested(value, spec) for value in values]


def _as_array(value: list[Any] | None) -> Any:
    """Return a list as an array; as it is if its parts differ in length, which MLflow refuses."""
    try:
        return None if value is None else np.array(value)
    except ValueError:
        return value


def _exact(value: Any, kind: str) -> Any:
    # numpy knows no zones; a time inside JSON is in UTC.
    return np.datetime64(value.rstrip("Z"), "ns") if kind == "datetime" else np.dtype(NUMPY_INSIDE[kind]).type(value)


def copied(value: Any) -> Any:
    """Return a copy of a JSON value."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def _without_zone(moment: datetime | None) -> Any:
    return None if moment is None else moment.replace(tzinfo=None)


def tensor(values: Any, dtype: str, shape: Sequence[int]) -> Any:
    """Return nested lists as an array of this shape; objects are never taken for further dimensions."""
    if dtype != "object":
        return np.array(values, dtype=dtype).reshape(shape)
    for _ in shape[1:]:
        values = [item for value in values for item in value]
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        objects[position] = copied(value)
    return objects.reshape(shape)


def rows_of_tensor(column: Mapping[str, Any], rows: Sequence[Any]) -> Any:
    """Return rows of an Arrow column, nested lists, as one array. Objects are JSON text in Arrow."""
    depth = len(column["shape"]) - 1
    if column["dtype"] == "object":
        rows = [_on_leaves(json.loads, row, depth) for row in rows]
    shape, level = [len(rows)], rows
    for _ in range(depth):
        level = level[0]
        shape.append(len(level))
    return tensor(rows, column["dtype"], shape)


def object_texts(row: Any, depth: int) -> Any:
    """Return a row of an object tensor, lists nested `depth` times, with its values as JSON text."""
    return _on_leaves(json.dumps, row, depth)


def _on_leaves(change: Any, value: Any, depth: int) -> Any:
    return [_on_leaves(change, item, depth - 1) for item in value] if depth else change(value)


def predict(model: Any, columns: Sequence[Mapping[str, Any]], data: Any, params: Any = None) -> Any:
    """Return the answer of a model that MLflow loaded.

    Args:
        model: the model.
        columns: of the contract.
        data: what the model gets.
        params: inference parameters, which the model may change; None if the signature has none.
    """
    optional = any(column["kind"] in NULLABLE and not column["required"] for column in columns)
    if optional and any(str(kind) in NULLABLE.values() for kind in getattr(data, "dtypes", ())):
        model = _without_check(model)
    return model.predict(data) if params is None else model.predict(data, params=params)


def _without_check(model: Any) -> Any:
    """Return a model without MLflow's check of its inputs, which refuses null in whole numbers."""
    made = copy.copy(model)
    made._model_meta = copy.copy(model._model_meta)
    made._model_meta.signature = copy.copy(made._model_meta.signature)
    made._model_meta.signature.inputs = None
    return made
