"""The contract of a model version: the input columns of its signature, and conversions of rows between formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import pyarrow as pa

from ..inference.batch import Batch
from . import frames
from .columns import Column, Kind
from .params import Param, params_of

if TYPE_CHECKING:
    from mlflow.types import Schema

_ARROW: dict[Kind, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "datetime": pa.timestamp("us", tz="UTC"),
    # JSON text: the structure may differ between rows.
    "json": pa.string(),
}
# Requests with more rows are kept as Arrow record batches.
COLUMNAR_ROWS = 256
_WIDER_KINDS: dict[Kind, frozenset[Kind]] = {
    "integer": frozenset({"long", "double"}),
    "long": frozenset({"double"}),
    "float": frozenset({"double"}),
}


MissingText = Literal["any", "None", "NaN"]


@dataclass(frozen=True)
class Contract:
    """The inputs of a model version, in the order of its signature.

    Attributes:
        columns: at least one; either all or none are tensors.
        named: whether the signature names the columns; if not, the names are the positions `0`, `1`, ...
        missing_text: null in text columns of a data frame: `None` or `NaN` if the model's category encoders were fitted
            with that and treat the two differently, else `any`: what MLflow's own server gives.
        params: the inference parameters; None if the signature defines none.
        hinted: the signature comes from a type hint: the model gets a list of values, which MLflow converts.
        derived: cache for objects that other modules build from this contract.
    """

    columns: tuple[Column, ...]
    named: bool = True
    missing_text: MissingText = field(default="any", compare=False)
    params: tuple[Param, ...] | None = field(default=None, compare=False)
    hinted: bool = field(default=False, compare=False)
    derived: dict[str, Any] = field(default_factory=dict[str, Any], init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls, schema: Schema | None, params: Sequence[Mapping[str, Any]] | None = None, *, hinted: bool = False
    ) -> Contract:
        """Return the contract of a signature.

        Args:
            schema: its inputs.
            params: its parameters in MLflow's notation.
            hinted: it comes from a type hint.

        Raises:
            ValueError: there are no inputs, or one has an unsupported type or name.
        """
        specs: list[Any] = list(schema.inputs) if schema is not None else []
        if not specs:
            raise ValueError("the model has no signature, or its signature has no inputs")
        names = [spec.name for spec in specs]
        if all(hasattr(spec, "shape") for spec in specs):
            columns = [_tensor_column(spec, "input" if spec.name is None else str(spec.name)) for spec in specs]
            return cls._distinct(columns, named=None not in names, params=params)
        # MLflow names the columns of an unnamed frame by their positions.
        named = names != list(range(len(specs))) and not all(name is None for name in names)
        if named and not all(type(name) in (str, int) for name in names):
            raise ValueError(f"the signature has column names that are neither text nor integers: {names[:5]}")
        columns = [_column(spec, str(spec.name) if named else str(position)) for position, spec in enumerate(specs)]
        if named:
            columns = [
                replace(column, integer_name=type(name) is int) for column, name in zip(columns, names, strict=True)
            ]
        if hinted:
            columns = [replace(column, spec=_lenient(column.spec)) for column in columns]
        return cls._distinct(columns, named=named, params=params, hinted=hinted)

    @classmethod
    def _distinct(
        cls,
        columns: Sequence[Column],
        *,
        named: bool,
        params: Sequence[Mapping[str, Any]] | None = None,
        hinted: bool = False,
    ) -> Contract:
        if len({column.name for column in columns}) != len(columns):
            raise ValueError("the signature has two columns with the same name")
        return cls(tuple(columns), named, params=params_of(params), hinted=hinted)

    def to_json(self) -> dict[str, Any]:
        """Return the contract as a JSON document."""
        return {
            "named": self.named,
            "columns": self.documents,
            "missing_text": self.missing_text,
            "params": None if self.params is None else [param.to_json() for param in self.params],
            "hinted": self.hinted,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Contract:
        """Return the contract of a document from `to_json`."""
        return cls(
            tuple(Column.from_json(column) for column in document["columns"]),
            document["named"],
            document["missing_text"],
            params_of(document["params"]),
            document["hinted"],
        )

    @cached_property
    def documents(self) -> list[dict[str, Any]]:
        """The columns as JSON documents, which `frames` reads."""
        return [column.to_json() for column in self.columns]

    @cached_property
    def default_params(self) -> Mapping[str, Any] | None:
        """The parameters of a request that has none; None if the signature defines none."""
        return None if self.params is None else {param.name: param.default for param in self.params}

    def shared_params(self, params: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the parameters for this version of a request that was read for another version.

        Raises:
            InvalidValueError: one has a value that this version does not accept.
        """
        if self.params is None:
            return None
        given = params or {}
        return {
            param.name: param.convert(given[param.name]) if param.name in given else param.default
            for param in self.params
        }

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The position of each column."""
        return {name: position for position, name in enumerate(self.names)}

    @property
    def is_tensor(self) -> bool:
        """Whether the columns are tensors."""
        return self.columns[0].kind == "tensor"

    @cached_property
    def has_arrays(self) -> bool:
        """Whether a column of a data frame has arrays."""
        return not self.hinted and any((column.spec or {}).get("type") == "array" for column in self.columns)

    @property
    def mergeable(self) -> bool:
        """Whether rows of several requests can go into one model call."""
        return all(
            not column.shape or (column.shape[0] == -1 and -1 not in column.shape[1:]) for column in self.columns
        )

    @property
    def fixed_rows(self) -> int | None:
        """The number of rows of each request; None if any number is accepted."""
        sizes = [column.shape[0] for column in self.columns if column.shape]
        return sizes[0] if sizes and sizes[0] >= 0 else None

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        return pa.schema([pa.field(column.name, _arrow_type(column)) for column in self.columns])

    @cached_property
    def arrow(self) -> pa.StructType:
        """The columns as an Arrow struct."""
        return pa.struct(list(self.schema))

    def to_arrow(self, batch: Batch) -> pa.StructArray:
        """Return the rows of `batch` as one struct array."""
        values = batch.values
        arrays = self._arrays(values) if isinstance(values, list) else values.columns
        return pa.StructArray.from_arrays(arrays, fields=list(self.schema))

    def to_record_batch(self, batch: Batch) -> pa.RecordBatch:
        """Return the rows of `batch` as a record batch."""
        values = batch.values
        if isinstance(values, list):
            return pa.RecordBatch.from_arrays(self._arrays(values), schema=self.schema)
        return values

    def columnar_if_large(self, batch: Batch) -> Batch:
        """Return `batch`, as a record batch if it has many rows: faster for engines and the capture."""
        if batch.rows > COLUMNAR_ROWS and isinstance(batch.values, list):
            return replace(batch, values=self.to_record_batch(batch))
        return batch

    def to_tuples(self, batch: Batch) -> list[tuple[Any, ...]]:
        """Return the rows of `batch` as tuples of Python values."""
        values = batch.values
        if isinstance(values, list):
            return values
        columns = [_python(column, array) for column, array in zip(self.columns, values.columns, strict=True)]
        return list(zip(*columns, strict=True))

    def _arrays(self, rows: list[tuple[Any, ...]]) -> list[pa.Array]:
        if len(rows) > COLUMNAR_ROWS and all(column.kind == "double" and column.required for column in self.columns):
            count, width = len(rows), len(self.columns)
            flat = np.fromiter(chain.from_iterable(rows), np.float64, count * width)
            return [pa.array(values) for values in np.ascontiguousarray(flat.reshape(count, width).T)]
        arrays: list[pa.Array] = []
        for column, kind, values in zip(self.columns, self.schema.types, zip(*rows, strict=True), strict=True):
            plain: Sequence[Any] = values
            if column.kind == "json":
                plain = [None if value is None else json.dumps(value) for value in values]
            elif column.kind == "tensor":
                plain = [None if value is None else _plain_row(column, value) for value in values]
            arrays.append(pa.array(plain, kind))
        return arrays

    def to_pandas(self, batch: Batch) -> Any:
        """Return `batch` as MLflow passes it to the model.

        Columns become a data frame with the types that `frames` describes, without the absent columns. Tensors become a
        dict of arrays, or one array if the signature has a single unnamed tensor. A model with a type hint gets a list.
        """
        if self.is_tensor:
            return self._tensor_arrays(batch)
        values = batch.values
        if self.hinted:
            only = [row[0] for row in values] if isinstance(values, list) else values.column(0)
            return frames.plain(self.documents[0], only)
        is_list = isinstance(values, list)
        if is_list and self._doubles and not batch.absent and batch.index is None:
            import pandas as pd

            return pd.DataFrame(np.array(values, dtype=np.float64), columns=self._labels)
        cells = zip(*values, strict=True) if is_list else values.columns
        return frames.frame(
            self.documents,
            cells,
            self.named,
            self.missing_text,
            batch.absent,
            batch.index,
            batch.rows,
            arrays=batch.arrays,
        )

    @cached_property
    def _doubles(self) -> bool:
        return all(column.kind == "double" for column in self.columns)

    @cached_property
    def _labels(self) -> Any:
        """The labels of a data frame with all columns, as pandas makes them."""
        import pandas as pd

        labels = [frames.label_of(column, at, self.named) for at, column in enumerate(self.documents)]
        return pd.DataFrame({label: np.empty(0) for label in labels}).columns

    def _tensor_arrays(self, batch: Batch) -> Any:
        if batch.tensors is not None:
            return {name: array.copy() for name, array in batch.tensors.items()}
        columns = zip(*self.to_tuples(batch), strict=True)
        arrays = {
            column.name: np.stack(cast("Any", values)) for column, values in zip(self.columns, columns, strict=True)
        }
        return arrays if self.named else next(iter(arrays.values()))

    def incompatibilities(self, old: Contract) -> list[str]:
        """Return why some requests that are valid for `old` would be invalid here; empty if none."""
        if self.named != old.named:
            return ["the columns no longer have names" if old.named else "the columns now have names"]
        mine = {column.name: column for column in self.columns}
        reasons: list[str] = []
        for column in old.columns:
            found = mine.pop(column.name, None)
            if found is None:
                reasons.append(f"column {column.name} was removed")
            elif not _accepts(found, column):
                reasons.append(f"column {column.name} changed from {_type_of(column)} to {_type_of(found)}")
            elif found.required and not column.required:
                reasons.append(f"column {column.name} may no longer be null")
        reasons += [f"column {name} is new and required" for name, column in mine.items() if column.required]
        if not self.named and not reasons and mine:
            # Rows come as lists, which must have the length of the signature.
            reasons.append(f"the number of columns changed from {len(old.columns)} to {len(self.columns)}")
        return reasons + self._params_incompatibilities(old)

    def _params_incompatibilities(self, old: Contract) -> list[str]:
        mine = {param.name: param for param in self.params or ()}
        reasons: list[str] = []
        for param in old.params or ():
            found = mine.get(param.name)
            if found is None:
                reasons.append(f"parameter {param.name} was removed")
            elif not _accepts_param(found, param):
                reasons.append(
                    f"parameter {param.name} changed from {_type_of_param(param)} to {_type_of_param(found)}"
                )
        return reasons


def _tensor_column(spec: Any, name: str) -> Column:
    dtype = np.dtype(spec.type)
    kinds = {"U": "str", "O": "object"}
    if dtype.kind not in "biufUO" or (dtype.itemsize > 8 and dtype.kind in "iuf"):
        raise ValueError(f"the tensor {name!r} has the unsupported type {dtype}")
    shape = tuple(int(size) for size in spec.shape)
    if not shape:
        raise ValueError(f"the tensor {name!r} has no row dimension")
    return Column(name, "tensor", True, kinds.get(dtype.kind, dtype.name), shape)


def _column(spec: Any, name: str) -> Column:
    kind = getattr(spec.type, "name", None)
    if kind in get_args(Kind) and kind not in ("tensor", "json"):
        return Column(name, cast("Kind", kind), spec.required)
    described = {key: value for key, value in spec.to_dict().items() if key not in ("name", "required")}
    if described.get("type") not in ("array", "object", "map", "any"):
        raise ValueError(f"column {name!r} has the unsupported type {spec.type}")
    return Column(name, "json", spec.required, spec=described)


def _plain_row(column: Column, value: np.ndarray[Any, Any]) -> Any:
    row = value.tolist()
    return frames.object_texts(row, len(column.shape) - 1) if column.dtype == "object" else row


def _lenient(spec: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return a type without its checks of members: the type hint has defaults, which the signature does not know."""
    if spec is None:
        return None
    if spec["type"] == "object":
        return {**spec, "lenient": True}
    parts = {key: _lenient(spec[key]) for key in ("items", "values") if key in spec}
    return {**spec, **parts}


def _type_of(column: Column) -> str:
    if column.kind == "tensor":
        return f"{column.dtype} of shape {list(column.shape)}"
    return column.kind if column.spec is None else json.dumps(column.spec)


def _accepts(new: Column, old: Column) -> bool:
    if new.kind != old.kind:
        return new.kind in _WIDER_KINDS.get(old.kind, ())
    if len(new.shape) != len(old.shape) or new.dtype != old.dtype:
        return False
    if any(size not in (-1, before) for size, before in zip(new.shape, old.shape, strict=True)):
        return False
    return new.spec == old.spec or (new.spec or {}).get("type") == "any"


def _type_of_param(param: Param) -> str:
    return f"a list of {param.kind}" if param.is_list else param.kind if param.spec is None else json.dumps(param.spec)


def _accepts_param(new: Param, old: Param) -> bool:
    is_wider = new.kind == old.kind or new.kind in _WIDER_KINDS.get(cast("Kind", old.kind), ())
    return is_wider and new.is_list == old.is_list and new.spec == old.spec


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
        "tensor": lambda nested: frames.rows_of_tensor(column.to_json(), [nested])[0, ...],
    }
    if column.kind in read:
        values = [None if value is None else read[column.kind](value) for value in values]
    return values
