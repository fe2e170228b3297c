"""Hypothesis strategies: signatures of all kinds, and requests that mostly fit them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from hypothesis import strategies as st
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import AnyType, Array, Map, Object, Property

from .models import Signature
from .oracle import CSV, JSON

SCALARS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")
DTYPES = ("bool", "int8", "uint8", "int32", "int64", "float32", "float64", "str")
_NAMES = ("a", "b", "c", "ü", "a b", "x.y", "0")
_VALUES: dict[str, tuple[Any, ...]] = {
    "boolean": (True, False),
    "integer": (0, 1, -(2**31), 2**31 - 1),
    "long": (0, 7, 2**53 + 1, -(2**63), 2**63 - 1),
    "float": (0.5, 0.1, 3, -2.25, 1e38),
    "double": (0.5, 0.1, 3, 1e308, -0.0, 2**53 + 1),
    "string": ("x", "", "Köln", "NaN", "null", "1", "True", "2024-05-01", "日本\n"),
    "binary": ("eHg=", "", "w7w="),
    "datetime": (
        *("2024-05-01T10:00:00Z", "2024-05-01T10:00:00+02:00", "2024-05-01T10:00:00", "2024-05-01"),
        *("2024-05-01 10:00:00", "2024-05-01T10:00:00.123456789Z", "1969-12-31T23:59:59.5Z"),
    ),
}
_ODD: tuple[Any, ...] = (
    *(None, "abc", 1.5, True, 3.0, 7, 2**31, 2**63, [1], {"k": 1}, "3", "true", "", float("nan"), float("inf")),
)
# One of so many values, columns or bodies is unusual.
_RARE = 12


@dataclass(frozen=True)
class Request:
    """A request: a JSON value or a text, and its type."""

    body: Any
    content_type: str = JSON


def _rarely(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, _RARE)) == _RARE


@st.composite
def params(draw: st.DrawFn) -> ParamSchema | None:
    """Generate a schema of inference parameters, or none."""
    if draw(st.integers(0, 3)):
        return None
    specs = [
        ParamSpec("scale", "double", 1.5),
        ParamSpec("top", "long", 3),
        ParamSpec("word", "string", "x"),
        ParamSpec("flag", "boolean", False),
        ParamSpec("list", "double", [1.0], shape=(-1,)),
        ParamSpec("at", "datetime", np.datetime64("2024-05-01T10:00:00")),
    ]
    return ParamSchema(draw(st.lists(st.sampled_from(specs), min_size=1, max_size=3, unique_by=lambda spec: spec.name)))


def scalar_types() -> st.SearchStrategy[DataType]:
    """Generate the types of plain columns."""
    return st.sampled_from(SCALARS).map(lambda name: DataType[name])


def nested_types() -> st.SearchStrategy[Any]:
    """Generate array, object, map and any types."""
    members = st.sampled_from(("a", "b", "ü"))

    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        properties = st.lists(
            st.tuples(members, inner, st.booleans()), min_size=1, max_size=3, unique_by=lambda p: p[0]
        )
        return st.one_of(
            inner.map(Array),
            inner.map(Map),
            properties.map(lambda parts: Object([Property(name, kind, required) for name, kind, required in parts])),
        )

    return st.one_of(
        extend(scalar_types()), extend(extend(scalar_types())), st.just(AnyType()), scalar_types().map(Array)
    )


@st.composite
def scalar_signatures(draw: st.DrawFn) -> Signature:
    """Generate signatures of plain columns: named, unnamed or with numbers as names, required or optional."""
    kinds = draw(st.lists(scalar_types(), min_size=1, max_size=5))
    form = draw(st.sampled_from(("named", "named", "named", "unnamed", "numbers")))
    return Signature(Schema(_columns(draw, kinds, form)), draw(params()))


@st.composite
def nested_signatures(draw: st.DrawFn) -> Signature:
    """Generate signatures with at least one column of a nested type."""
    kinds: list[Any] = [draw(nested_types()), *draw(st.lists(st.one_of(scalar_types(), nested_types()), max_size=2))]
    return Signature(Schema(_columns(draw, kinds, "named")))


def _columns(draw: st.DrawFn, kinds: list[Any], form: str) -> list[Any]:
    if form == "unnamed":
        return [ColSpec(kind) for kind in kinds]
    if form == "numbers":
        return [ColSpec(kind, cast("Any", 2019 + position)) for position, kind in enumerate(kinds)]
    names = draw(st.permutations(_NAMES))
    return [ColSpec(kind, name, required=draw(st.integers(0, 2)) > 0) for kind, name in zip(kinds, names, strict=False)]


@st.composite
def tensor_signatures(draw: st.DrawFn) -> Signature:
    """Generate signatures of tensors: one without a name, or several with names."""
    count = draw(st.sampled_from((1, 1, 2, 3)))
    names: list[str | None] = list(_NAMES[:count])
    if count == 1 and draw(st.booleans()):
        names = [None]
    specs = []
    for name in names:
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        first = draw(st.sampled_from((-1, -1, -1, 2)))
        rest = draw(st.lists(st.sampled_from((1, 2, 3, -1)), max_size=2))
        specs.append(TensorSpec(dtype, (first, *rest), name))
    return Signature(Schema(specs), draw(params()))


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Generate JSON values of an MLflow type, rarely others."""
    return st.integers(0, _RARE).flatmap(lambda number: st.sampled_from(_ODD) if number == _RARE else _valid(kind))


def _valid(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, Array):
        return st.lists(values(kind.dtype), max_size=3)
    if isinstance(kind, Map):
        return st.dictionaries(st.sampled_from(("k", "ü", "")), values(kind.value_type), max_size=2)
    if isinstance(kind, Object):
        return _objects(kind)
    if isinstance(kind, AnyType):
        return st.sampled_from((1, "x", [1, "a"], {"k": [1.5, None]}, True, None))
    return st.sampled_from(_VALUES[kind.name])


@st.composite
def _objects(draw: st.DrawFn, kind: Object) -> dict[str, Any]:
    found = {}
    for part in kind.properties:
        if (part.required or draw(st.booleans())) and not _rarely(draw):
            found[part.name] = draw(values(part.dtype))
    if _rarely(draw):
        found["extra"] = 1
    return found


@st.composite
def column_requests(draw: st.DrawFn, signature: Signature) -> Request:
    """Generate a request for a signature of columns, in each of MLflow's forms."""
    assert signature.inputs is not None
    specs: list[Any] = list(signature.inputs.inputs)
    unnamed = all(spec.name is None for spec in specs)
    labels: list[Any] = [position if unnamed else spec.name for position, spec in enumerate(specs)]
    chosen = [
        position
        for position, spec in enumerate(specs)
        if not ((not spec.required and draw(st.booleans())) or _rarely(draw))
    ]
    if _rarely(draw):
        chosen = list(draw(st.permutations(chosen)))
    count = draw(st.sampled_from((1, 1, 2, 3)))
    rows = [[draw(_cells(specs[position])) for position in chosen] for _ in range(count)]
    names: list[Any] = [labels[position] for position in chosen]
    if _rarely(draw):
        names, rows = [*names, "extra"], [[*row, 1] for row in rows]
    form = draw(st.sampled_from(("split", "split", "records", "records", "instances", "inputs", "csv")))
    if form == "csv":
        return Request(_csv(draw, names, rows), CSV)
    records = [
        {
            str(name): value
            for name, value, position in zip(names, row, [*chosen, None], strict=False)
            if position is None or specs[position].required or not _rarely(draw)
        }
        for row in rows
    ]
    body: dict[str, Any] = {}
    if form == "split":
        body["dataframe_split"] = {"columns": names, "data": rows}
        if draw(st.integers(0, 3)) == 0:
            indexes: tuple[Any, ...] = (
                *(list(range(5, 5 + len(rows))), ["p", "q", "r"][: len(rows)], [0] * len(rows)),
                [True, False, True][: len(rows)],
            )
            body["dataframe_split"]["index"] = draw(st.sampled_from(indexes))
        if unnamed and draw(st.booleans()):
            del body["dataframe_split"]["columns"]
    elif form == "records":
        body["dataframe_records"] = rows if unnamed and draw(st.booleans()) else records
    elif form == "instances":
        body["instances"] = rows if unnamed and draw(st.booleans()) else records
    else:
        by_name = {str(name): [row[position] for row in rows] for position, name in enumerate(names)}
        body["inputs"] = draw(_inputs(by_name, records))
    return Request(_with_params(draw, signature, body))


@st.composite
def _inputs(draw: st.DrawFn, by_name: dict[str, list[Any]], records: list[dict[str, Any]]) -> Any:
    """Generate the forms of `inputs`: lists, some with one value for all rows, one row, or rows."""
    form = draw(st.sampled_from(("lists", "lists", "one value", "row", "rows", "rows", "value")))
    if form == "one value" and by_name:
        name = draw(st.sampled_from(list(by_name)))
        return {**by_name, name: by_name[name][0]}
    if form == "row":
        return records[0]
    if form == "value" and len(by_name) == 1:
        return next(iter(by_name.values()))[0]
    return records if form == "rows" else by_name


def _cells(spec: ColSpec) -> st.SearchStrategy[Any]:
    if spec.required:
        return values(spec.type)
    return st.one_of(st.none(), values(spec.type), values(spec.type))


def _csv(draw: st.DrawFn, names: list[Any], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    indexed = _rarely(draw)
    writer.writerow(["", *names] if indexed else names)
    for number, row in enumerate(rows):
        cells = ["" if value is None else value for value in row]
        writer.writerow([number, *cells] if indexed else cells)
    return text.getvalue() + ("\n" if _rarely(draw) else "")


def _with_params(draw: st.DrawFn, signature: Signature, body: dict[str, Any]) -> dict[str, Any]:
    if signature.params is None:
        if _rarely(draw):
            body["params"] = draw(st.sampled_from(({}, None, {"scale": 2.0})))
        return body
    if draw(st.booleans()):
        given: dict[str, Any] = {}
        choices = {
            "scale": (2.5, 2, None, "2"),
            "top": (5, 2**53 + 1, 5.0, True),
            "word": ("y", "", 1),
            "flag": (True, 1),
            "list": ([2.0, 3.5], [], 2.0, [1]),
            "at": ("2024-06-01T00:00:00", "2024-06-01T00:00:00Z", 3),
        }
        for spec in signature.params.params:
            if draw(st.booleans()):
                # The first values fit; the others are rare.
                given[spec.name] = choices[spec.name][0 if draw(st.booleans()) else draw(st.integers(0, 1))]
                if _rarely(draw):
                    given[spec.name] = draw(st.sampled_from(choices[spec.name]))
        if _rarely(draw):
            given["unknown"] = 1
        body["params"] = given
    return body


@st.composite
def tensor_requests(draw: st.DrawFn, signature: Signature) -> Request:
    """Generate a request for a signature of tensors."""
    assert signature.inputs is not None
    specs: list[Any] = list(signature.inputs.inputs)
    rows = draw(st.sampled_from((1, 2, 2, 3)))
    tensors: dict[Any, Any] = {}
    for spec in specs:
        free = draw(st.integers(1, 3))
        count = spec.shape[0] if spec.shape[0] != -1 and not _rarely(draw) else rows
        if _rarely(draw):
            count += 1
        shape = [count, *(free if size == -1 else size for size in spec.shape[1:])]
        if _rarely(draw):
            shape.append(1)
        tensors[spec.name] = draw(_tensor(spec, shape))
    if _rarely(draw):
        tensors["extra"] = [1] * rows
    body: dict[str, Any] = {}
    form = draw(st.sampled_from(("inputs", "inputs", "instances", "split")))
    only = next(iter(tensors.values()))
    if form == "inputs":
        body["inputs"] = only if None in tensors or (len(tensors) == 1 and draw(st.booleans())) else tensors
    elif form == "instances":
        count = min(map(len, tensors.values()))
        plain = None in tensors or (len(tensors) == 1 and draw(st.booleans()))
        body["instances"] = only if plain else [{name: tensors[name][row] for name in tensors} for row in range(count)]
    else:
        columns: list[Any] = list(range(len(only[0]))) if isinstance(only[0], list) else [0]
        body["dataframe_split"] = {
            "columns": columns,
            "data": only if isinstance(only[0], list) else [[v] for v in only],
        }
    return Request(_with_params(draw, signature, body))


def _tensor(spec: TensorSpec, shape: list[int]) -> st.SearchStrategy[Any]:
    kind = spec.type.kind
    scalars: dict[str, tuple[Any, ...]] = {
        "b": (True, False),
        "i": (0, 1, -3, 100),
        "u": (0, 1, 100, 255),
        "f": (0.5, 1, -2.25, 0.1),
        "U": ("x", "", "Köln"),
    }
    item = st.integers(0, 10 * _RARE).flatmap(
        lambda number: st.sampled_from(_ODD) if number == 10 * _RARE else st.sampled_from(scalars[kind])
    )
    for size in reversed(shape):
        item = st.lists(item, min_size=size, max_size=size)
    return item


def requests(signature: Signature) -> st.SearchStrategy[Request]:
    """Generate requests for a signature."""
    assert signature.inputs is not None
    return tensor_requests(signature) if signature.inputs.is_tensor_spec() else column_requests(signature)
