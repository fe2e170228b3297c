"""Selects a version's engine: a compiled model serves if it gives the answers of the original. Only in preparation.

Both are compared on the rows that came with the model and on many rows made from them: values exactly on and next to
the thresholds of trees, unseen categories, and null. The compiled model must refuse the rows that the original refuses.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..contract.model_contract import Contract
from ..inference.batch import Batch, Engine, Outputs
from ..inference.finite import is_finite
from . import compilation
from .boosters import booster_recipe
from .compiled import CompiledEngine
from .encoders import UNSEEN
from .errors import UnsupportedError
from .estimators import Recipe, find_recipe, without_categories
from .mlmodel import MLmodel
from .outputs import Answer
from .pipeline_plan import PipelinePlan
from .pipeline_plan_builder import PlanDraft, draft_plan
from .prepared import Output
from .sample_rows import Row, vary_rows
from .scikit import ScikitEngine

_ROWS = 4_000
_SINGLE_ROWS = 3
_SAME = 1e-9
# A request cannot contain infinity, but it can contain numbers that overflow to infinity in float32.
_EXTREME = (1e300, -1e300)
_EXTREME_COLUMNS = 3


@dataclass(frozen=True)
class EngineChoice:
    """The selected engine.

    Attributes:
        engine: its spec, from which it is loaded.
        note: why it was selected.
    """

    engine: dict[str, Any]
    note: str


@dataclass
class _Expected:
    """Rows with the original's answers, and single rows that the original refuses."""

    rows: list[Row]
    answers: Outputs
    refused: list[Row] = field(default_factory=list[Row])


@dataclass(frozen=True)
class SelectionTask:
    """The model and the engines to try.

    Attributes:
        contract: of the model.
        original: the model itself, called with data frames.
        rows: rows that it accepts, at least one.
        engines: names of the engines to try, in order.
        tolerance: largest accepted difference.
        folder: for compiled files.
    """

    contract: Contract
    original: Engine
    rows: Sequence[Row]
    engines: Sequence[str]
    tolerance: float
    folder: Path

    @property
    def original_spec(self) -> dict[str, Any]:
        """The spec of the original as an engine."""
        return {"name": self.original.name}


def select_engine(model: Any, method: str, task: SelectionTask) -> EngineChoice:
    """Return the engine that serves `method` of a fitted scikit-learn model."""
    contract, rows = task.contract, task.rows
    try:
        transformers, estimator = _parts(model)
        draft = draft_plan(transformers, estimator, contract, rows[0])
    except UnsupportedError as error:
        return EngineChoice(task.original_spec, f"not compiled: {error}")
    plan = draft.spec(contract, "any")
    inner = without_categories(estimator)
    recipe, reason = None, ""
    try:
        recipe = find_recipe(inner, method, np.nan_to_num(PipelinePlan(plan).matrix(list(rows[:1]))))
    except UnsupportedError as error:
        reason = str(error)
    expected = _collect_expected(task, _hints(draft, recipe))
    if recipe is not None:
        choice, reason = _first_equal(recipe, draft, task, expected)
        if choice is not None:
            return choice
    note = f"not compiled: {reason}"
    if inner is not estimator:
        return EngineChoice(task.original_spec, note)
    try:
        _compare(lambda: _with_plan(model, method, task, plan), expected, contract, _SAME)
    except Exception:  # noqa: BLE001 - then it is called with data frames, as in training
        return EngineChoice(task.original_spec, note)
    return EngineChoice({**task.original_spec, "plan": plan}, note)


def select_booster_engine(mlmodel: MLmodel, task: SelectionTask) -> EngineChoice:
    """Return the engine for a model of another tree library, loaded by MLflow."""
    try:
        draft = draft_plan([], None, task.contract, task.rows[0])
        recipe = booster_recipe(mlmodel, task.original.predict(Batch(len(task.rows), list(task.rows))))
    except UnsupportedError as error:
        return EngineChoice(task.original_spec, f"not compiled: {error}")
    choice, reason = _first_equal(recipe, draft, task, _collect_expected(task, _hints(draft, recipe)))
    return choice or EngineChoice(task.original_spec, f"not compiled: {reason}")


def _first_equal(
    recipe: Recipe, draft: PlanDraft, task: SelectionTask, expected: _Expected
) -> tuple[EngineChoice | None, str]:
    """Return the first engine that gives the expected answers, and why the engines before it do not."""
    plan = draft.spec(task.contract, recipe.finite, recipe.final_operations)
    reasons: list[str] = []
    for name in task.engines:
        try:
            kernel, finish = compilation.compile_kernel(name, recipe, len(draft.features), task.folder)
            spec = {**task.original_spec, "name": name, "plan": plan, "kernel": kernel, "finish": finish}
            largest = _compare(partial(CompiledEngine, spec, task.folder), expected, task.contract, task.tolerance)
        except UnsupportedError as error:
            reasons.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - a library may raise anything; then it does not serve
            reasons.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            note = f"differs from the model itself by at most {largest:.1e} on {len(expected.rows)} rows"
            return EngineChoice(spec, note), "; ".join(reasons)
    return None, "; ".join(reasons) or "there is no engine to try"


def _with_plan(model: Any, method: str, task: SelectionTask, plan: Mapping[str, Any]) -> ScikitEngine:
    output: Output = getattr(task.original, "output", "prediction")
    # A copy: the engine removes the feature names from the estimator, and the original needs them.
    return ScikitEngine(copy.deepcopy(model), method, task.contract, output=output, plan=PipelinePlan(plan))


def _parts(model: Any) -> tuple[list[Any], Any]:
    """Return the transformers of a pipeline and its estimator."""
    from sklearn.pipeline import Pipeline

    transformers: list[Any] = []
    while type(model) is Pipeline:
        transformers += [step for _, step in model.steps[:-1]]
        model = model.steps[-1][1]
    if model is None or isinstance(model, str):
        raise UnsupportedError("a pipeline without an estimator")
    return transformers, model


def _hints(draft: PlanDraft, recipe: Recipe | None) -> dict[int, list[Any]]:
    """Return values to try by column: known categories, and thresholds with their neighbouring numbers."""
    hints: dict[int, list[Any]] = {}
    for table in draft.tables:
        hints.setdefault(table.column, []).extend(table.keys)
    if recipe is not None and recipe.family == "trees":
        for feature, values in compilation.thresholds(recipe).items():
            item = draft.features[feature] if feature < len(draft.features) else None
            if item is None or item.table is not None:
                continue
            neighbours = [math.nextafter(value, to) for value in values for to in (-math.inf, math.inf)]
            hints.setdefault(item.column, []).extend([*values, *neighbours])
    return hints


def _collect_expected(task: SelectionTask, hints: Mapping[int, Sequence[Any]]) -> _Expected:
    """Ask the original about the task's rows and many like them, and find single rows that it refuses."""
    original, contract, rows = task.original, task.contract, task.rows
    unusual: list[tuple[int, Row]] = []
    nulls: set[int] = set()
    doubles = [position for position, column in enumerate(contract.columns) if column.kind == "double"]
    unusual += [
        (position, _replaced(rows[0], position, value)) for position in doubles[:_EXTREME_COLUMNS] for value in _EXTREME
    ]
    for position, column in enumerate(contract.columns):
        if not column.required:
            unusual.append((position, _replaced(rows[0], position, None)))
        if column.kind == "string":
            unusual.append((position, _replaced(rows[0], position, UNSEEN)))
    refused = _refused_rows(original, [row for _, row in unusual])
    accepted = [(position, row) for position, row in unusual if row not in refused]
    values_to_try = {position: list(_fitting(contract, position, values)) for position, values in hints.items()}
    for position, row in accepted:
        if row[position] is None:
            nulls.add(position)
        elif isinstance(row[position], str):
            values_to_try.setdefault(position, []).append(row[position])
    varied = vary_rows(
        contract, rows, max(_ROWS - len(rows), _ROWS // 2), values_to_try=values_to_try, nulls=frozenset(nulls)
    )
    every = [*rows, *(row for _, row in accepted), *varied]
    try:
        answers = original.predict(Batch(len(every), every))
    except Exception:  # noqa: BLE001 - it refuses one of the new rows; then only the given rows are compared
        every = list(rows)
        answers = original.predict(Batch(len(every), every))
    return _Expected(every, answers, refused)


def _fitting(contract: Contract, position: int, values: Sequence[Any]) -> Sequence[Any]:
    """Return `values` in the type of the column."""
    kind = contract.columns[position].kind if not contract.is_tensor else "tensor"
    if kind in ("integer", "long"):
        # A threshold lies between two integers.
        return [int(value) for value in values if abs(value) < 1 << 31]
    if kind == "float":
        return [float(np.float32(value)) for value in values]
    return [] if kind == "tensor" else values


def _replaced(row: Row, position: int, value: Any) -> Row:
    return (*row[:position], value, *row[position + 1 :])


def _refused_rows(original: Engine, rows: Sequence[Row]) -> list[Row]:
    """Return the rows that the model refuses; usually one call shows that it accepts them all."""
    if not rows or _accepts(original, rows):
        return []
    if len(rows) == 1:
        return list(rows)
    middle = len(rows) // 2
    return _refused_rows(original, rows[:middle]) + _refused_rows(original, rows[middle:])


def _accepts(original: Engine, rows: Sequence[Row]) -> bool:
    try:
        original.predict(Batch(len(rows), list(rows)))
    except Exception:  # noqa: BLE001 - any error is a refusal
        return False
    return True


def _compare(make: Callable[[], Engine], expected: _Expected, contract: Contract, tolerance: float) -> float:
    """Return the largest difference between the new engine's answers and the expected ones.

    Raises:
        UnsupportedError: the difference exceeds `tolerance`, or the engine accepts a row that the original refuses.
    """
    engine = make()
    try:
        rows, answers = expected.rows, expected.answers
        batch = contract.to_record_batch(Batch(len(rows), rows))
        pairs: list[tuple[Outputs, Outputs]] = [
            (engine.predict(Batch(len(rows), rows)), answers),
            (engine.predict(Batch(len(rows), batch)), answers),
        ]
        pairs += [
            (engine.predict(Batch(1, [row])), answers[index : index + 1])
            for index, row in enumerate(rows[:_SINGLE_ROWS])
        ]
        if any(_accepts_batch(engine, Batch(1, [row])) for row in expected.refused):
            raise UnsupportedError("it accepts a row that the model itself refuses")
        largest = max(largest_difference(actual, answer) for actual, answer in pairs)
        if not largest <= tolerance:
            raise UnsupportedError(f"it differs from the model itself by {largest:.1e} on its sample")
        return largest
    finally:
        engine.close()


def _accepts_batch(engine: Engine, batch: Batch) -> bool:
    try:
        outputs = engine.predict(batch)
    except (ValueError, OverflowError):
        return False
    return is_finite(outputs)


def largest_difference(actual: Outputs, expected: Outputs) -> float:
    """Return the largest difference between two answers, relative to expected values above one."""
    if _form(actual) != _form(expected):
        return math.inf
    ours, theirs = _comparable(actual), _comparable(expected)
    if not isinstance(ours, np.ndarray) or not isinstance(theirs, np.ndarray):
        pair = [each.tolist() if isinstance(each, np.ndarray) else each for each in (ours, theirs)]
        # As text, in which NaN equals NaN.
        return 0.0 if pair[0] == pair[1] or repr(pair[0]) == repr(pair[1]) else math.inf
    if ours.shape != theirs.shape:
        return math.inf
    if ours.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))
    apart[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0
    largest = float(apart.max())
    return math.inf if math.isnan(largest) else largest


def _form(outputs: Outputs) -> str:
    """Return the form of outputs, which `/invocations` shows; a compiled engine has only one column of a `score`."""
    return outputs.form if isinstance(outputs, Answer) and outputs.form != "score" else ""


def _comparable(outputs: Outputs) -> Any:
    """Return outputs as an array, if they are floats, or as JSON values."""
    if not isinstance(outputs, Answer):
        return outputs
    part = outputs.parts[1] if outputs.form == "score" else outputs.parts[0] if len(outputs.parts) == 1 else None
    if outputs.form in ("score", "series", "value") and isinstance(part, np.ndarray) and part.dtype.kind == "f":
        return part
    return outputs.to_mlflow()
