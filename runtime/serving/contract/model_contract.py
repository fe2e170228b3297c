"""What a model version takes: its signature as a contract, which requests are read by."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import pyarrow as pa

from ..codecs.json_strict import parse_json, refusal
from ..inference.batch import Batch
from .columns import Column, Kind, parse_time

if TYPE_CHECKING:
    from mlflow.types import Schema

__all__ = ["MANY", "Column", "Contract", "Kind", "parse_json", "parse_time", "refusal"]

_ARROW: dict[Kind, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "datetime": pa.timestamp("us", tz="UTC"),
    # JSON text: what is in one row may have another shape than what is in the next.
    "json": pa.string(),
}
# Rows beyond which a request is held as Arrow, column by column.
MANY = 256
_NUMPY = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
# numpy has no missing value for these.
_NULLABLE = {"boolean": "object", "integer": "Int32", "long": "Int64"}
_WIDER: dict[Kind, frozenset[Kind]] = {
    "integer": frozenset({"long", "double"}),
    "long": frozenset({"double"}),
    "float": frozenset({"double"}),
}


MissingText = Literal["None", "NaN"]


@dataclass(frozen=True)
class Contract:
    """The inputs of a model version, in its order.

    Attributes:
        columns: at least one; all of them tensors, or none.
        named: whether the names are the signature's; else they are the positions, `0` and on.
        missing_text: what a data frame holds for null in a column of text: `None`, as MLflow's own server has it, or
            `NaN`, where the model was fitted with that. To an encoder of categories they are not the same.
        derived: what others have worked out from this contract, kept as long as it lives.
    """

    columns: tuple[Column, ...]
    named: bool = True
    missing_text: MissingText = field(default="None", compare=False)
    derived: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False, compare=False)

    @classmethod
    def of(cls, schema: Schema | None) -> Contract:
        """Return the contract of a signature's inputs.

        Raises:
            ValueError: there are none, or one has a type or a name which requests cannot carry.
        """
        specs: list[Any] = list(schema.inputs) if schema is not None else []
        if not specs:
            raise ValueError("the model has no signature, or one without inputs")
        names = [spec.name for spec in specs]
        if all(hasattr(spec, "shape") for spec in specs):
            columns = [_tensor(spec, "input" if spec.name is None else str(spec.name)) for spec in specs]
            return cls._distinct(columns, named=None not in names)
        # A frame without names has its positions for names.
        named = names != list(range(len(specs))) and not all(name is None for name in names)
        if named and not all(isinstance(name, str) for name in names):
            raise ValueError(f"the signature has columns whose names are no text: {names[:5]}")
        return cls._distinct(
            [_column(spec, str(spec.name) if named else str(position)) for position, spec in enumerate(specs)],
            named=named,
        )

    @classmethod
    def _distinct(cls, columns: Sequence[Column], *, named: bool) -> Contract:
        if len({column.name for column in columns}) != len(columns):
            raise ValueError("the signature has two columns of one name")
        return cls(tuple(columns), named)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        columns: list[dict[str, Any]] = []
        for column in self.columns:
            plain: dict[str, Any] = {"name": column.name, "kind": column.kind, "required": column.required}
            if column.kind == "tensor":
                plain |= {"dtype": column.dtype, "shape": list(column.shape)}
            if column.spec is not None:
                plain["spec"] = column.spec
            columns.append(plain)
        return {"named": self.named, "columns": columns, "missing_text": self.missing_text}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Contract:
        """Return the contract which `to_json` gave `document` for."""
        given: list[dict[str, Any]] = document["columns"]
        columns = [
            Column(
                column["name"],
                column["kind"],
                column["required"],
                column.get("dtype", ""),
                tuple(column.get("shape", ())),
                column.get("spec"),
            )
            for column in given
        ]
        return cls(tuple(columns), document["named"], document["missing_text"])

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Where each column is."""
        return {name: position for position, name in enumerate(self.names)}

    @property
    def is_tensor(self) -> bool:
        """Whether the columns are tensors."""
        return self.columns[0].kind == "tensor"

    @property
    def mergeable(self) -> bool:
        """Whether rows of several requests may be answered together."""
        return all(
            not column.shape or (column.shape[0] == -1 and -1 not in column.shape[1:]) for column in self.columns
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns in Arrow's types."""
        return pa.schema([pa.field(column.name, _arrow_type(column)) for column in self.columns])

    @cached_property
    def arrow(self) -> pa.StructType:
        """The features as a struct."""
        return pa.struct(list(self.schema))

    def to_arrow(self, batch: Batch) -> pa.StructArray:
        """Return the rows of `batch` as one struct array."""
        values = batch.values
        arrays = self._arrays(values) if isinstance(values, list) else values.columns
        return pa.StructArray.from_arrays(arrays, fields=list(self.schema))

    def to_record_batch(self, batch: Batch) -> pa.RecordBatch:
        """Return the rows of `batch` in Arrow's types."""
        values = batch.values
        if isinstance(values, list):
            return pa.RecordBatch.from_arrays(self._arrays(values), schema=self.schema)
        return values

    def packed(self, batch: Batch) -> Batch:
        """Return `batch`, of many rows as a record batch: engines and the capture make most of that."""
        if batch.rows > MANY and isinstance(batch.values, list):
            return Batch(batch.rows, self.to_record_batch(batch), batch.event_times)
        return batch

    def to_tuples(self, batch: Batch) -> list[tuple[Any, ...]]:
        """Return the rows of `batch` as tuples of Python values."""
        values = batch.values
        if isinstance(values, list):
            return values
        columns = [_python(column, array) for column, array in zip(self.columns, values.columns, strict=True)]
        return list(zip(*columns, strict=True))

    def _arrays(self, rows: list[tuple[Any, ...]]) -> list[pa.Array]:
        if len(rows) > MANY and all(column.kind == "double" and column.required for column in self.columns):
            count, width = len(rows), len(self.columns)
            flat = np.fromiter(chain.from_iterable(rows), np.float64, count * width)
            return [pa.array(values) for values in np.ascontiguousarray(flat.reshape(count, width).T)]
        arrays: list[pa.Array] = []
        for column, kind, values in zip(self.columns, self.schema.types, zip(*rows, strict=True), strict=True):
            plain: Sequence[Any] = values
            if column.kind == "json":
                plain = [None if value is None else json.dumps(value) for value in values]
            elif column.kind == "tensor":
                plain = [None if value is None else value.tolist() for value in values]
            arrays.append(pa.array(plain, kind))
        return arrays

    def to_pandas(self, batch: Batch) -> Any:
        """Return `batch` as MLflow hands it to the model.

        That is a data frame, in which null is NaN, `missing_text` in columns of text, None in columns of other objects,
        `pd.NA` in columns of integers which may be null (these have pandas' nullable types whatever the rows hold), NaT
        for times, which carry no zone there. Of tensors it is an array where the signature has one without a name,
        else a dict of arrays.
        """
        if self.is_tensor:
            return self._tensors(batch)
        import pandas as pd

        values = batch.values
        labels: Any = list(self.names) if self.named else range(len(self.columns))
        if isinstance(values, list) and all(column.kind == "double" for column in self.columns):
            return pd.DataFrame(np.array(values, dtype=np.float64), columns=labels)
        series: dict[Any, Any] = {}
        columns = zip(*values, strict=True) if isinstance(values, list) else values.columns
        for label, column, held in zip(labels, self.columns, columns, strict=True):
            series[label] = _pandas(column, held, self.missing_text)
        return pd.DataFrame(series)

    def _tensors(self, batch: Batch) -> Any:
        columns = zip(*self.to_tuples(batch), strict=True)
        arrays = {
            column.name: np.stack(cast("Any", values)) for column, values in zip(self.columns, columns, strict=True)
        }
        return arrays if self.named else next(iter(arrays.values()))

    def why_not(self, old: Contract) -> list[str]:
        """Return why requests made for `old` would not all be taken; empty when they would."""
        if self.named != old.named:
            return ["the columns have lost their names" if old.named else "the columns have got names"]
        mine = {column.name: column for column in self.columns}
        reasons: list[str] = []
        for column in old.columns:
            found = mine.pop(column.name, None)
            if found is None:
                reasons.append(f"column {column.name} is gone")
            elif not _takes(found, column):
                reasons.append(f"column {column.name} was {_typed(column)} and is {_typed(found)}")
            elif found.required and not column.required:
                reasons.append(f"column {column.name} may no longer be null")
        reasons += [f"column {name} is new and required" for name, column in mine.items() if column.required]
        if not self.named and not reasons and mine:
            # Rows come as lists there, which are of one length.
            reasons.append(f"there are {len(self.columns)} columns and were {len(old.columns)}")
        return reasons


def _tensor(spec: Any, name: str) -> Column:
    dtype = np.dtype(spec.type)
    kinds = {"U": "str", "O": "object"}
    if dtype.kind not in "biufUO" or (dtype.itemsize > 8 and dtype.kind in "iuf"):
        raise ValueError(f"the tensor {name!r} has the type {dtype}, which this server does not take")
    shape = tuple(int(size) for size in spec.shape)
    if not shape:
        raise ValueError(f"the tensor {name!r} has no dimension for rows")
    return Column(name, "tensor", True, kinds.get(dtype.kind, dtype.name), shape)


def _column(spec: Any, name: str) -> Column:
    kind = getattr(spec.type, "name", None)
    if kind in get_args(Kind) and kind not in ("tensor", "json"):
        return Column(name, cast("Kind", kind), spec.required)
    described = {key: value for key, value in spec.to_dict().items() if key not in ("name", "required")}
    if described.get("type") not in ("array", "object", "map", "any"):
        raise ValueError(f"column {name!r} has the type {spec.type}, which this server does not take")
    return Column(name, "json", spec.required, spec=described)


def _typed(column: Column) -> str:
    if column.kind == "tensor":
        return f"{column.dtype} of the shape {list(column.shape)}"
    return column.kind if column.spec is None else json.dumps(column.spec)


def _takes(new: Column, old: Column) -> bool:
    if new.kind != old.kind:
        return new.kind in _WIDER.get(old.kind, ())
    if len(new.shape) != len(old.shape) or new.dtype != old.dtype:
        return False
    if any(size not in (-1, before) for size, before in zip(new.shape, old.shape, strict=True)):
        return False
    return new.spec == old.spec or (new.spec or {}).get("type") == "any"


def _arrow_type(column: Column) -> pa.DataType:
    if column.kind != "tensor":
        return _ARROW[column.kind]
    kind = pa.string() if column.dtype in ("str", "object") else pa.from_numpy_dtype(np.dtype(column.dtype))
    for _ in column.shape[1:]:
        kind = pa.list_(kind)
    return kind


def _python(column: Column, array: pa.Array) -> list[Any]:
    values: list[Any] = array.to_pylist()
    read: dict[str, Callable[[Any], Any]] = {
        "json": json.loads,
        "datetime": lambda moment: moment.astimezone(UTC),
        "tensor": lambda nested: np.array(nested, dtype=column.dtype),
    }
    if column.kind in read:
        values = [None if value is None else read[column.kind](value) for value in values]
    return values


def _pandas(column: Column, values: Any, missing_text: MissingText) -> Any:
    """Return `values`, a tuple or an Arrow array, as a column of a frame."""
    import pandas as pd

    kind = column.kind
    if kind in _NUMPY and (column.required or kind not in _NULLABLE):
        if isinstance(values, pa.Array):
            values = values.to_numpy(zero_copy_only=False)
        return np.array(values, dtype=_NUMPY[kind])
    if isinstance(values, pa.Array):
        values = _python(column, values)
    if kind in _NULLABLE and kind != "boolean":
        return pd.array(values, dtype=cast("Any", _NULLABLE[kind]))
    if kind == "string":
        # A series, since pandas would make its own text of a bare array of objects, and NaN of None.
        return pd.Series(list(values), dtype=cast("Any", "str" if missing_text == "NaN" else object))
    if kind == "datetime":
        return np.array([_without_zone(value) for value in values], dtype="datetime64[us]").astype("datetime64[ns]")
    # numpy would make a matrix of lists of one length.
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        objects[position] = value
    return objects


def _without_zone(moment: datetime | None) -> Any:
    return None if moment is None else moment.replace(tzinfo=None)
