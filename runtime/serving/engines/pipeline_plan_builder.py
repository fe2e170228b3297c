"""Turns the transformers of a fitted scikit-learn pipeline into a plan; what it does not know exactly, it refuses.

Each step is followed feature by feature. Encoders of categories are not imitated but asked: what they give for each
category, for an unknown one and for null is their table. So whatever they were told about rare or missing categories
is in there. Only used in preparation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from ..contract.model_contract import Contract
from .encoders import Encoder, NotKnownError, Table

__all__ = ["Feature", "Traced", "trace"]

_NUMERIC = frozenset({"boolean", "integer", "long", "float", "double"})
_CATEGORICAL = _NUMERIC | {"string"}


@dataclass(frozen=True)
class Feature:
    """A value on its way through the steps.

    Attributes:
        column: of the contract, which it comes from.
        fill: what stands for null in a column which is no number yet.
        table: the table which made a number of it, None where it was one.
        position: which of the table's features it is.
        operations: what is done to the number, in order.
    """

    column: int
    fill: Any = None
    table: Table | None = None
    position: int = 0
    operations: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def then(self, what: str, *numbers: float) -> Feature:
        """Return it with one more operation."""
        return replace(self, operations=(*self.operations, (what, tuple(float(number) for number in numbers))))


@dataclass
class Traced:
    """The features at the end, in order.

    Attributes:
        features: one each.
        sources: the contract's column from which each feature which is a plain number comes, by feature.
        tables: of the encoders.
    """

    features: list[Feature]
    sources: dict[int, int] = field(default_factory=dict[int, int])

    @property
    def tables(self) -> list[Table]:
        """The tables, each once, in the order of the features."""
        return list({id(item.table): item.table for item in self.features if item.table is not None}.values())

    def spec(self, contract: Contract, finite: str, further: Sequence[str] = ()) -> dict[str, Any]:
        """Return the plan.

        Args:
            contract: of the model.
            finite: which values the estimator takes.
            further: operations on all features, after the others.
        """
        numbers = [[item.column, index] for index, item in enumerate(self.features) if item.table is None]
        tables = [self._table(table, contract) for table in self.tables]
        operations = _levels(self.features)
        operations += [[what, None, []] for what in further]
        return {
            "width": len(self.features),
            "tensor": contract.is_tensor,
            "numbers": numbers,
            "tables": [spec for specs in tables for spec in specs],
            "operations": operations,
            "finite": finite,
        }

    def _table(self, table: Table, contract: Contract) -> list[dict[str, Any]]:
        used = [(index, item.position) for index, item in enumerate(self.features) if item.table is table]
        common = {"column": table.column, "name": contract.columns[table.column].name, "keys": table.keys}
        every = [*table.rows, *(row for row in (table.unknown, table.null) if row is not None)]
        hot = [[row[position] for _, position in used] for row in every]
        if len(used) > 1 and all(value in (0.0, 1.0) for row in hot for value in row) and max(map(sum, hot)) <= 1:

            def code(row: list[float] | None) -> float | None:
                if row is None:
                    return None
                at = next((index for index, position in used if row[position] == 1.0), None)
                return float(~used[0][0] if at is None else at)

            codes = [code(row) for row in table.rows]
            return [{**common, "hot": True, "codes": codes, "unknown": code(table.unknown), "null": code(table.null)}]
        return [
            {
                **common,
                "hot": False,
                "feature": index,
                "codes": [row[position] for row in table.rows],
                "unknown": None if table.unknown is None else table.unknown[position],
                "null": None if table.null is None else table.null[position],
            }
            for index, position in used
        ]


def trace(transformers: Sequence[Any], estimator: Any, contract: Contract, row: tuple[Any, ...]) -> Traced:
    """Return what `transformers`, one after another, make of the contract's columns.

    Args:
        transformers: fitted.
        estimator: what comes after them.
        contract: of the model.
        row: one which the model answers, to ask encoders with.

    Raises:
        NotKnownError: there is no plan for them.
    """
    if contract.is_tensor:
        features = [Feature(index) for index in range(_tensor_width(contract))]
        names = None
    else:
        features = [Feature(index) for index in range(len(contract.columns))]
        names = list(contract.names) if contract.named else None
    tracer = _Tracer(contract, row)
    for transformer in transformers:
        features = tracer.follow(transformer, features, names)
        names = None
    if getattr(estimator, "_preprocessor", None) is not None:
        features = tracer.boosted(estimator, features)
    numbers = [tracer.number(item) for item in features]
    if not numbers:
        raise NotKnownError("no features are left")
    plain = {index: item.column for index, item in enumerate(numbers) if item.table is None}
    return Traced(numbers, plain)


def _tensor_width(contract: Contract) -> int:
    column = contract.columns[0]
    fits = len(contract.columns) == 1 and len(column.shape) == 2 and column.shape[1] > 0
    if not fits or column.dtype not in ("float64", "float32", "int64", "int32", "int16", "int8", "uint8", "bool"):
        raise NotKnownError("tensors other than one of rows of numbers")
    return column.shape[1]


class _Tracer:
    def __init__(self, contract: Contract, row: tuple[Any, ...]) -> None:
        self._contract = contract
        self._row = row

    def follow(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Return what becomes of `features`; `names` are those of the columns, where they still have some."""
        if transformer is None or isinstance(transformer, str):
            if transformer == "drop":
                return []
            if transformer in (None, "passthrough"):
                return features
        self._same_names(transformer, names)
        kind = type(transformer)
        if not kind.__module__.startswith("sklearn."):
            raise NotKnownError(f"the step {kind.__name__}")
        if (step := _STEPS.get(kind.__name__)) is not None:
            return step(self, transformer, features, names)
        return self._selected(transformer, features)

    def number(self, feature: Feature) -> Feature:
        """Return `feature` as a number, as the estimator or the next step takes it."""
        if feature.table is not None or feature.operations or self._contract.is_tensor:
            return feature
        column = self._contract.columns[feature.column]
        if column.kind not in _NUMERIC or feature.fill is not None:
            raise NotKnownError(f"column {column.name}, {column.kind}, reaches the estimator without an encoder")
        # What the model itself is given there has single precision.
        return feature.then("float32") if column.kind == "float" else feature

    def _doubles(self, features: list[Feature], what: str) -> list[Feature]:
        # In single precision, what a step gives depends on the columns beside it.
        numbers = [self.number(item) for item in features]
        single = self._contract.is_tensor and self._contract.columns[0].dtype == "float32"
        if single or any(("float32", ()) in item.operations for item in numbers):
            raise NotKnownError(f"{what} of columns of single precision")
        # Each of these steps refuses infinity, which it might make a finite number of.
        return [item if item.operations else item.then("refuse_infinity") for item in numbers]

    @staticmethod
    def _same_names(transformer: Any, names: list[str] | None) -> None:
        fitted = getattr(transformer, "feature_names_in_", None)
        chooses = type(transformer).__name__ == "ColumnTransformer"
        if fitted is not None and names is not None and not chooses and list(fitted) != names:
            raise NotKnownError("a step was fitted on other columns than the signature names")

    def _selected(self, transformer: Any, features: list[Feature]) -> list[Feature]:
        from sklearn.feature_selection import SelectorMixin

        if not isinstance(transformer, SelectorMixin):
            raise NotKnownError(f"the step {type(transformer).__name__}")
        kept = np.asarray(transformer.get_support()).tolist()
        return [item for item, keep in zip(features, kept, strict=True) if keep]

    def pipeline(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Follow a pipeline of transformers."""
        for _, step in transformer.steps:
            features, names = self.follow(step, features, names), None
        return features

    def union(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Follow several side by side."""
        if transformer.transformer_weights:
            raise NotKnownError("a FeatureUnion with weights")
        followed = [self.follow(step, features, names) for _, step in transformer.transformer_list]
        return [item for part in followed for item in part]

    def columns(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Follow a ColumnTransformer."""
        if transformer.transformer_weights:
            raise NotKnownError("a ColumnTransformer with weights")
        out: list[Feature] = []
        for _, step, chosen in transformer.transformers_:
            positions = _positions(chosen, names, len(features), getattr(transformer, "feature_names_in_", None))
            if positions:
                picked = [names[position] for position in positions] if names is not None else None
                out += self.follow(step, [features[position] for position in positions], picked)
        return out

    def scaled(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Follow a step which does the same few operations to each feature."""
        kind = type(transformer).__name__
        features = self._doubles(features, kind)
        operands: list[tuple[str, Any]] = {
            "StandardScaler": [("subtract", "mean_"), ("divide", "scale_")],
            "RobustScaler": [("subtract", "center_"), ("divide", "scale_")],
            "MinMaxScaler": [("multiply", "scale_"), ("add", "min_")],
            "MaxAbsScaler": [("divide", "scale_")],
        }[kind]
        switched = {"mean_": "with_mean", "center_": "with_centering", "scale_": "with_std"}
        if kind == "RobustScaler":
            switched["scale_"] = "with_scaling"
        for what, name in operands:
            values = getattr(transformer, name)
            if values is None or not getattr(transformer, switched.get(name, ""), True):
                continue
            features = [item.then(what, value) for item, value in zip(features, values, strict=True)]
        if getattr(transformer, "clip", False):
            low, high = transformer.feature_range if kind == "MinMaxScaler" else (-1.0, 1.0)
            features = [item.then("clip", low, high) for item in features]
        return features

    def imputed(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Follow a SimpleImputer."""
        missing = transformer.missing_values
        if transformer.indicator_ is not None or not (missing is None or missing != missing):
            raise NotKnownError("a SimpleImputer which marks what was missing, or fills something else than null")
        out: list[Feature] = []
        for item, value in zip(features, transformer.statistics_.tolist(), strict=True):
            if value is None or value != value:
                raise NotKnownError("a SimpleImputer of a column which had no values")
            if isinstance(value, str):
                if item.table is not None or item.operations or item.fill is not None:
                    raise NotKnownError("a SimpleImputer of text which is text no more")
                out.append(replace(item, fill=value))
            else:
                out += [each.then("fill", value) for each in self._doubles([item], "SimpleImputer")]
        return out

    def encoded(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Follow an encoder of categories: ask it."""
        encoder = Encoder(self._contract, self._row, transformer)
        kind = type(transformer).__name__
        if any(item.operations for item in features) or self._contract.is_tensor:
            raise NotKnownError(f"{kind} of what is a number already")
        coded = [(item.table, item.position) for item in features if item.table is not None]
        if coded:
            if len(coded) < len(features):
                raise NotKnownError(f"{kind} of codes and of numbers")
            tables = encoder.of_tables(coded)
        else:
            for item in features:
                if self._contract.columns[item.column].kind not in _CATEGORICAL:
                    raise NotKnownError(f"{kind} of a {self._contract.columns[item.column].kind}")
            tables = encoder.of_columns([(item.column, item.fill) for item in features])
        return [
            Feature(table.column, table=table, position=position)
            for table in tables
            for position in range(len(table.rows[0]))
        ]

    def boosted(self, estimator: Any, features: list[Feature]) -> list[Feature]:
        """Follow what a HistGradientBoosting does itself to categories, which then come before the numbers."""
        chosen = cast("list[bool]", np.asarray(estimator.is_categorical_).tolist())
        encoder = estimator._preprocessor.transformers_[0][1]
        categories = [item for item, is_chosen in zip(features, chosen, strict=True) if is_chosen]
        rest = [item for item, is_chosen in zip(features, chosen, strict=True) if not is_chosen]
        return [*self.encoded(encoder, categories, None), *rest]

    def unchanged(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Follow a FunctionTransformer, which is known where it has no function."""
        if transformer.func is not None:
            raise NotKnownError("a function of the model's own")
        return features


_STEPS: dict[str, Callable[[_Tracer, Any, list[Feature], list[str] | None], list[Feature]]] = {
    "Pipeline": _Tracer.pipeline,
    "FeatureUnion": _Tracer.union,
    "ColumnTransformer": _Tracer.columns,
    "StandardScaler": _Tracer.scaled,
    "RobustScaler": _Tracer.scaled,
    "MinMaxScaler": _Tracer.scaled,
    "MaxAbsScaler": _Tracer.scaled,
    "SimpleImputer": _Tracer.imputed,
    "OrdinalEncoder": _Tracer.encoded,
    "OneHotEncoder": _Tracer.encoded,
    "TargetEncoder": _Tracer.encoded,
    "FunctionTransformer": _Tracer.unchanged,
}


def _positions(chosen: Any, names: list[str] | None, count: int, fitted: Any) -> list[int]:
    """Return the positions of the columns which a transformer was fitted on."""
    items: list[Any]
    if isinstance(chosen, slice):
        by_position = isinstance(chosen.start, int | None) and isinstance(chosen.stop, int | None)
        items = list(range(count))[chosen] if by_position else [chosen]
    elif isinstance(chosen, str | int):
        items = [chosen]
    else:
        items = np.asarray(chosen).tolist() if len(chosen) else []
    if items and all(isinstance(item, bool) for item in items):
        items = [position for position, keep in enumerate(items) if keep]
    if not items:
        return []
    if all(isinstance(item, str) for item in items) and names is not None:
        if missing := [item for item in items if item not in names]:
            raise NotKnownError(f"the columns {', '.join(missing[:3])}, which the signature does not name")
        return [names.index(item) for item in items]
    if all(isinstance(item, int) for item in items) and (fitted is None or names is None or list(fitted) == names):
        return [range(count)[item] for item in items]
    raise NotKnownError("columns which are chosen neither by name nor by position")


def _levels(features: Sequence[Feature]) -> list[list[Any]]:
    """Return the operations of all features, those which can be done at once together."""
    waiting = [list(item.operations) for item in features]
    done: list[list[Any]] = []
    while any(waiting):
        first = next(operations for operations in waiting if operations)
        what, width = first[0][0], len(first[0][1])
        # A clip has two numbers which are the same for all that it is done to.
        shared = first[0][1] if width > 1 else None
        chosen = [
            index
            for index, operations in enumerate(waiting)
            if operations and operations[0][0] == what and (shared is None or operations[0][1] == shared)
        ]
        numbers = list(shared) if shared is not None else [waiting[index][0][1][0] for index in chosen if width]
        done.append([what, None if len(chosen) == len(features) else chosen, numbers])
        for index in chosen:
            waiting[index].pop(0)
    return done
