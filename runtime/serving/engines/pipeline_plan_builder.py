"""Turns the transformers of a fitted scikit-learn pipeline into a plan; refuses what it cannot reproduce exactly.

Each step is applied to a description of the features. Encoders of categories are not reimplemented: their results for
each category, for an unknown one and for null become a table. So all their rules for rare or missing categories are in
the table. Only used in preparation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from ..contract.model_contract import Contract
from .encoders import CategoryTable, EncoderProbe
from .errors import UnsupportedError

_NUMERIC = frozenset({"boolean", "integer", "long", "float", "double"})
_CATEGORICAL = _NUMERIC | {"string"}


@dataclass(frozen=True)
class Feature:
    """A feature on its way through the steps.

    Attributes:
        column: the contract's column that it comes from.
        fill: the value that replaces null, in a column that is not a number yet.
        table: the table that turned it into a number; None if it was one from the start.
        position: of the feature in the table's rows.
        operations: on the number, in order.
    """

    column: int
    fill: Any = None
    table: CategoryTable | None = None
    position: int = 0
    operations: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def then(self, operation: str, *numbers: float) -> Feature:
        """Return the feature with one more operation."""
        return replace(self, operations=(*self.operations, (operation, tuple(float(number) for number in numbers))))


@dataclass
class PlanDraft:
    """The features after the last step, in order."""

    features: list[Feature]

    @property
    def tables(self) -> list[CategoryTable]:
        """The encoders' tables, each once, in the order of the features."""
        return list({id(item.table): item.table for item in self.features if item.table is not None}.values())

    def spec(self, contract: Contract, finite: str, final_operations: Sequence[str] = ()) -> dict[str, Any]:
        """Return the plan for `PipelinePlan`.

        Args:
            contract: of the model.
            finite: which values the estimator accepts.
            final_operations: operations on all features, after all others.
        """
        numbers = [[item.column, index] for index, item in enumerate(self.features) if item.table is None]
        tables = [self._table(table, contract) for table in self.tables]
        operations = _grouped_operations(self.features)
        operations += [[operation, None, []] for operation in final_operations]
        return {
            "width": len(self.features),
            "tensor": contract.is_tensor,
            "numbers": numbers,
            "tables": [spec for specs in tables for spec in specs],
            "operations": operations,
            "finite": finite,
        }

    def _table(self, table: CategoryTable, contract: Contract) -> list[dict[str, Any]]:
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


def draft_plan(transformers: Sequence[Any], estimator: Any, contract: Contract, row: tuple[Any, ...]) -> PlanDraft:
    """Return the features that `transformers` make of the contract's columns, one transformer after another.

    Args:
        transformers: fitted.
        estimator: the step after them.
        contract: of the model.
        row: a row that the model accepts, for probing encoders.

    Raises:
        UnsupportedError: there is no plan for one of them.
    """
    if contract.is_tensor:
        features = [Feature(index) for index in range(_tensor_width(contract))]
        names = None
    else:
        features = [Feature(index) for index in range(len(contract.columns))]
        names = list(contract.names) if contract.named else None
    builder = _PlanBuilder(contract, row)
    for transformer in transformers:
        features = builder.apply(transformer, features, names)
        names = None
    if getattr(estimator, "_preprocessor", None) is not None:
        features = builder.encode_boosted(estimator, features)
    numbers = [builder.number(item) for item in features]
    if not numbers:
        raise UnsupportedError("a pipeline that leaves no features")
    return PlanDraft(numbers)


def _tensor_width(contract: Contract) -> int:
    column = contract.columns[0]
    fits = len(contract.columns) == 1 and len(column.shape) == 2 and column.shape[1] > 0
    if not fits or column.dtype not in ("float64", "float32", "int64", "int32", "int16", "int8", "uint8", "bool"):
        raise UnsupportedError("tensors other than a single one with rows of numbers")
    return column.shape[1]


class _PlanBuilder:
    def __init__(self, contract: Contract, row: tuple[Any, ...]) -> None:
        self._contract = contract
        self._row = row

    def apply(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Return the features after `transformer`; `names` are the columns' names, if they still have names."""
        if transformer is None or isinstance(transformer, str):
            if transformer == "drop":
                return []
            if transformer in (None, "passthrough"):
                return features
        self._check_names(transformer, names)
        kind = type(transformer)
        if not kind.__module__.startswith("sklearn."):
            raise UnsupportedError(f"the step {kind.__name__}")
        if (step := _STEPS.get(kind.__name__)) is not None:
            return step(self, transformer, features, names)
        return self._select(transformer, features)

    def number(self, feature: Feature) -> Feature:
        """Return `feature` as the number that the estimator or the next step receives."""
        if feature.table is not None or feature.operations or self._contract.is_tensor:
            return feature
        column = self._contract.columns[feature.column]
        if column.kind not in _NUMERIC or feature.fill is not None:
            raise UnsupportedError(f"column {column.name}, {column.kind}, reaches the estimator without an encoder")
        # The model itself receives single precision there.
        return feature.then("float32") if column.kind == "float" else feature

    def _doubles(self, features: list[Feature], step: str) -> list[Feature]:
        # In single precision, the result of a step depends on the other columns.
        numbers = [self.number(item) for item in features]
        single = self._contract.is_tensor and self._contract.columns[0].dtype == "float32"
        if single or any(("float32", ()) in item.operations for item in numbers):
            raise UnsupportedError(f"{step} of columns of single precision")
        # Each of these steps refuses infinity. The next operation could turn it into a finite number.
        return [item if item.operations else item.then("refuse_infinity") for item in numbers]

    @staticmethod
    def _check_names(transformer: Any, names: list[str] | None) -> None:
        fitted = getattr(transformer, "feature_names_in_", None)
        chooses = type(transformer).__name__ == "ColumnTransformer"
        if fitted is not None and names is not None and not chooses and list(fitted) != names:
            raise UnsupportedError("a step that was fitted on other columns than those of the signature")

    def _select(self, transformer: Any, features: list[Feature]) -> list[Feature]:
        from sklearn.feature_selection import SelectorMixin

        if not isinstance(transformer, SelectorMixin):
            raise UnsupportedError(f"the step {type(transformer).__name__}")
        kept = np.asarray(transformer.get_support()).tolist()
        return [item for item, keep in zip(features, kept, strict=True) if keep]

    def apply_pipeline(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Apply a pipeline of transformers."""
        for _, step in transformer.steps:
            features, names = self.apply(step, features, names), None
        return features

    def apply_union(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Apply the transformers of a FeatureUnion side by side."""
        if transformer.transformer_weights:
            raise UnsupportedError("a FeatureUnion with weights")
        parts = [self.apply(step, features, names) for _, step in transformer.transformer_list]
        return [item for part in parts for item in part]

    def apply_columns(self, transformer: Any, features: list[Feature], names: list[str] | None) -> list[Feature]:
        """Apply a ColumnTransformer."""
        if transformer.transformer_weights:
            raise UnsupportedError("a ColumnTransformer with weights")
        out: list[Feature] = []
        for _, step, chosen in transformer.transformers_:
            positions = _positions(chosen, names, len(features), getattr(transformer, "feature_names_in_", None))
            if positions:
                picked = [names[position] for position in positions] if names is not None else None
                out += self.apply(step, [features[position] for position in positions], picked)
        return out

    def scale(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Apply a scaler: the same few operations on each feature."""
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
        for operation, name in operands:
            values = getattr(transformer, name)
            if values is None or not getattr(transformer, switched.get(name, ""), True):
                continue
            features = [item.then(operation, value) for item, value in zip(features, values, strict=True)]
        if getattr(transformer, "clip", False):
            low, high = transformer.feature_range if kind == "MinMaxScaler" else (-1.0, 1.0)
            features = [item.then("clip", low, high) for item in features]
        return features

    def impute(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Apply a SimpleImputer."""
        missing = transformer.missing_values
        if transformer.indicator_ is not None or not (missing is None or missing != missing):
            raise UnsupportedError("a SimpleImputer that adds indicators, or fills values other than null")
        out: list[Feature] = []
        for item, value in zip(features, transformer.statistics_.tolist(), strict=True):
            if value is None or value != value:
                raise UnsupportedError("a SimpleImputer of a column without values")
            if isinstance(value, str):
                if item.table is not None or item.operations or item.fill is not None:
                    raise UnsupportedError("a SimpleImputer of text that is already encoded")
                out.append(replace(item, fill=value))
            else:
                out += [each.then("fill", value) for each in self._doubles([item], "SimpleImputer")]
        return out

    def encode(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Apply an encoder of categories by probing it."""
        encoder = EncoderProbe(self._contract, self._row, transformer)
        kind = type(transformer).__name__
        if any(item.operations for item in features) or self._contract.is_tensor:
            raise UnsupportedError(f"{kind} of a feature that is already a number")
        coded = [(item.table, item.position) for item in features if item.table is not None]
        if coded:
            if len(coded) < len(features):
                raise UnsupportedError(f"{kind} of codes together with numbers")
            tables = encoder.tables_of_tables(coded)
        else:
            for item in features:
                if self._contract.columns[item.column].kind not in _CATEGORICAL:
                    raise UnsupportedError(f"{kind} of a {self._contract.columns[item.column].kind}")
            tables = encoder.tables_of_columns([(item.column, item.fill) for item in features])
        return [
            Feature(table.column, table=table, position=position)
            for table in tables
            for position in range(len(table.rows[0]))
        ]

    def encode_boosted(self, estimator: Any, features: list[Feature]) -> list[Feature]:
        """Encode categories as a HistGradientBoosting does; they then come before the numbers."""
        chosen = cast("list[bool]", np.asarray(estimator.is_categorical_).tolist())
        encoder = estimator._preprocessor.transformers_[0][1]
        categories = [item for item, is_chosen in zip(features, chosen, strict=True) if is_chosen]
        rest = [item for item, is_chosen in zip(features, chosen, strict=True) if not is_chosen]
        return [*self.encode(encoder, categories, None), *rest]

    def keep(self, transformer: Any, features: list[Feature], _: list[str] | None) -> list[Feature]:
        """Apply a FunctionTransformer, which is supported only without a function."""
        if transformer.func is not None:
            raise UnsupportedError("a function of the model's own")
        return features


_STEPS: dict[str, Callable[[_PlanBuilder, Any, list[Feature], list[str] | None], list[Feature]]] = {
    "Pipeline": _PlanBuilder.apply_pipeline,
    "FeatureUnion": _PlanBuilder.apply_union,
    "ColumnTransformer": _PlanBuilder.apply_columns,
    "StandardScaler": _PlanBuilder.scale,
    "RobustScaler": _PlanBuilder.scale,
    "MinMaxScaler": _PlanBuilder.scale,
    "MaxAbsScaler": _PlanBuilder.scale,
    "SimpleImputer": _PlanBuilder.impute,
    "OrdinalEncoder": _PlanBuilder.encode,
    "OneHotEncoder": _PlanBuilder.encode,
    "TargetEncoder": _PlanBuilder.encode,
    "FunctionTransformer": _PlanBuilder.keep,
}


def _positions(chosen: Any, names: list[str] | None, count: int, fitted: Any) -> list[int]:
    """Return the positions of the columns that a transformer was fitted on."""
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
            raise UnsupportedError(f"the columns {', '.join(missing[:3])}, which are not in the signature")
        return [names.index(item) for item in items]
    if all(isinstance(item, int) for item in items) and (fitted is None or names is None or list(fitted) == names):
        return [range(count)[item] for item in items]
    raise UnsupportedError("columns selected neither by name nor by position")


def _grouped_operations(features: Sequence[Feature]) -> list[list[Any]]:
    """Return the operations on all features; equal operations on several features become one."""
    waiting = [list(item.operations) for item in features]
    done: list[list[Any]] = []
    while any(waiting):
        first = next(operations for operations in waiting if operations)
        name, width = first[0][0], len(first[0][1])
        # The two bounds of a clip must be the same for all of its features.
        shared = first[0][1] if width > 1 else None
        chosen = [
            index
            for index, operations in enumerate(waiting)
            if operations and operations[0][0] == name and (shared is None or operations[0][1] == shared)
        ]
        numbers = list(shared) if shared is not None else [waiting[index][0][1][0] for index in chosen if width]
        done.append([name, None if len(chosen) == len(features) else chosen, numbers])
        for index in chosen:
            waiting[index].pop(0)
    return done
