"""Rows to try a model with: its reference sample, its input example, or random ones."""

from __future__ import annotations

import base64
import json
import logging
import math
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..contract.model_contract import Column, Contract
from ..inference.batch import Batch
from .mlmodel import MLmodel

_log = logging.getLogger(__name__)

Row = tuple[Any, ...]

SAMPLE_FILE = "reference_sample.parquet"
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_TEXTS = ("", "a", "b", "other")
_DIMENSION = 3


def model_rows(mlmodel: MLmodel, contract: Contract, folder: Path) -> list[Row]:
    """Return the rows that came with the model: its reference sample, its input example, or none."""
    for read in (_reference, _example):
        try:
            rows = read(mlmodel, contract, folder)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            _log.warning(
                "the rows that came with the model do not match its signature", extra={"error": str(error)[:300]}
            )
            continue
        if rows:
            return rows
    return []


def _reference(mlmodel: MLmodel, contract: Contract, folder: Path) -> list[Row]:
    del mlmodel
    if contract.is_tensor or not (folder / SAMPLE_FILE).is_file():
        return []
    table = pq.read_table(folder / SAMPLE_FILE, columns=list(contract.names))
    if table.num_rows == 0:
        return []
    batch = table.select(list(contract.names)).cast(contract.schema).combine_chunks().to_batches()[0]
    return _checked(contract, contract.to_tuples(Batch(batch.num_rows, batch)))


def _checked(contract: Contract, rows: list[Row]) -> list[Row]:
    """Return the rows that a request could contain; NaN in a frame is null, because no request contains it."""
    out: list[Row] = []
    for row in rows:
        plain = tuple(None if isinstance(value, float) and math.isnan(value) else value for value in row)
        if all(value is not None or not column.required for column, value in zip(contract.columns, plain, strict=True)):
            out.append(plain)
    return out


def _example(mlmodel: MLmodel, contract: Contract, folder: Path) -> list[Row]:
    del folder
    info = mlmodel.example
    if not info:
        return []
    path = mlmodel.path_of(str(info["artifact_path"]))
    document = json.loads(path.read_text(encoding="utf-8"))
    return _checked(contract, [_converted(contract.columns, row) for row in _raw_rows(document, info, contract)])


def _raw_rows(document: Any, info: Mapping[str, Any], contract: Contract) -> list[Sequence[Any]]:
    if contract.is_tensor:
        held = document["inputs"] if isinstance(document, dict) and "inputs" in document else document
        columns = [held[name] for name in contract.names] if isinstance(held, dict) else [held]
        return list(zip(*columns, strict=True))
    if info.get("pandas_orient") == "records" or (isinstance(document, list) and isinstance(document[0], dict)):
        return [[row.get(name) for name in contract.names] for row in document]
    split = cast("dict[str, list[Any]]", document)
    data, names = split["data"], split.get("columns")
    if names is None or not contract.named:
        return [row if isinstance(row, list) else [row] for row in data]
    places = [names.index(name) if name in names else None for name in contract.names]
    return [[None if place is None else row[place] for place in places] for row in data]


def _converted(columns: Sequence[Column], row: Sequence[Any]) -> Row:
    return tuple(_value(column, value) for column, value in zip(columns, row, strict=True))


def _value(column: Column, value: Any) -> Any:
    """Return a value of an input example; MLflow writes some kinds in more forms than requests may use."""
    if value is None:
        return None
    if column.kind in ("float", "double") and isinstance(value, int | float):
        return float(value)
    if column.kind == "datetime":
        if isinstance(value, int | float):
            return _EPOCH.fromtimestamp(value / 1000, UTC)
        moment = datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    if column.kind == "binary":
        return base64.b64decode(value)
    return column.convert(value)


def random_rows(contract: Contract, count: int, *, seed: int = 0) -> list[Row]:
    """Return random rows of the contract's types."""
    return vary_rows(contract, [], count, seed=seed)


def vary_rows(
    contract: Contract,
    rows: Sequence[Row],
    count: int,
    *,
    seed: int = 0,
    values_to_try: Mapping[int, Sequence[Any]] | None = None,
    nulls: frozenset[int] = frozenset(),
) -> list[Row]:
    """Return rows that a model may get: values from `rows`, and values near, between and outside them.

    Args:
        contract: of the model.
        rows: known rows, or none.
        count: number of rows.
        seed: the same seed gives the same rows.
        values_to_try: further values by column: thresholds, known and unknown categories.
        nulls: columns that may be null.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret
    columns: list[list[Any]] = []
    for position, column in enumerate(contract.columns):
        known = [row[position] for row in rows if row[position] is not None]
        tried = list((values_to_try or {}).get(position, ()))
        make = _maker(column, known, chance)
        values: list[Any] = []
        for _ in range(count):
            if position in nulls and chance.random() < 0.1:
                values.append(None)
            elif tried and chance.random() < 0.4:
                values.append(chance.choice(tried))
            elif known and chance.random() < 0.5:
                values.append(chance.choice(known))
            else:
                values.append(make())
        columns.append(values)
    return list(zip(*columns, strict=True))


def _maker(column: Column, known: Sequence[Any], chance: random.Random) -> Callable[[], Any]:
    kind = column.kind
    if kind == "boolean":
        return lambda: chance.random() < 0.5
    if kind in ("integer", "long"):
        low, high = (min(known), max(known)) if known else (-10, 100)
        room = min((high - low) // 2 + 2, 1 << 20)
        bound = (1 << (31 if kind == "integer" else 53)) - 1
        return lambda: max(-bound, min(bound, chance.randint(low - room, high + room)))
    if kind in ("float", "double"):
        return _number_maker(known, chance, single=kind == "float")
    if kind == "string":
        return lambda: chance.choice(known) if known else chance.choice(_TEXTS)
    if kind == "datetime":
        return lambda: (chance.choice(known) if known else _EPOCH) + timedelta(seconds=chance.randint(-(10**7), 10**7))
    if kind == "binary":
        return lambda: chance.randbytes(chance.randint(0, 8))
    if kind == "tensor":
        return lambda: _tensor(column, known, chance)
    return lambda: chance.choice(known) if known else _json(column.spec or {})


def _number_maker(known: Sequence[float], chance: random.Random, *, single: bool) -> Callable[[], float]:
    finite = [value for value in known if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (-3.0, 3.0)
    room = min((high - low) / 2, 1e30) or 1.0

    def make() -> float:
        which = chance.randrange(6)
        if which == 0:
            value = float(chance.choice((0.0, 1.0, -1.0, round(low), round(high), low - room * 100, high + room * 100)))
        elif which == 1:
            value = float(round(chance.uniform(low, high)))
        elif which == 2 and finite:
            value = chance.choice(finite) * (1 + chance.gauss(0, 0.01))
        else:
            value = chance.uniform(low - room, high + room)
        return float(np.float32(value)) if single else value

    return make


def _tensor(column: Column, known: Sequence[Any], chance: random.Random) -> Any:
    if known:
        return chance.choice(known)
    shape = [_DIMENSION if size < 0 else size for size in column.shape[1:]]
    size = math.prod(shape)
    if column.dtype in ("str", "object"):
        flat = np.array([chance.choice(_TEXTS) for _ in range(size)], dtype=object if column.dtype == "object" else str)
    elif np.dtype(column.dtype).kind == "f":
        flat = np.array([chance.gauss(0, 1) for _ in range(size)], dtype=column.dtype)
    else:
        flat = np.array([chance.randint(0, 1) for _ in range(size)], dtype=column.dtype)
    return flat.reshape(shape)


def _json(spec: Mapping[str, Any]) -> Any:
    """Return a small value of a type in MLflow's notation."""
    kind = spec.get("type")
    if kind == "array":
        return [_json(cast("Mapping[str, Any]", spec.get("items") or {}))]
    if kind in ("object", "map"):
        properties = cast("Mapping[str, Mapping[str, Any]]", spec.get("properties") or {})
        return {name: _json(inner) for name, inner in properties.items()}
    plain: dict[Any, Any] = {"boolean": False, "integer": 0, "long": 0, "float": 0.0, "double": 0.0}
    return plain.get(kind, "a")
