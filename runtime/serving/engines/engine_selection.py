"""Chooses what serves: a compiled model is taken where it gives what the model itself gives. Only used in preparation.

It is asked the rows which came with the model and many made from them: values beside and exactly on the thresholds at
which it decides, categories which were never seen, null. What the model itself refuses, the compiled one must refuse.
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
from . import compilation
from .boosters import booster_recipe
from .compiled import CompiledEngine
from .encoders import UNSEEN, NotKnownError
from .estimators import Recipe, recipe, without_categories
from .mlmodel import Described
from .pipeline_plan import Plan
from .pipeline_plan_builder import Traced, trace
from .prepared import Output
from .sample_rows import Row, varied
from .scikit import ScikitEngine

__all__ = ["Case", "Choice", "Trial", "choose", "choose_booster", "difference", "find_trial"]

_ROWS = 4_000
_FEW = 3
_SAME = 1e-9
# Requests bring no infinity, but what is infinite in single precision.
_EXTREME = (1e300, -1e300)
_EXTREME_COLUMNS = 3


@dataclass(frozen=True)
class Choice:
    """What serves.

    Attributes:
        engine: what it is loaded from.
        note: why this one.
    """

    engine: dict[str, Any]
    note: str


@dataclass
class Trial:
    """Rows with what the model itself gives for them, and rows which it refuses."""

    rows: list[Row]
    answers: Outputs
    refused: list[Row] = field(default_factory=list[Row])


@dataclass(frozen=True)
class Case:
    """What is to be decided.

    Attributes:
        contract: of the model.
        original: the model itself, with data frames.
        rows: which it answers, at least one.
        engines: names of those which are tried, in order.
        tolerance: largest difference.
        folder: for what is compiled.
    """

    contract: Contract
    original: Engine
    rows: Sequence[Row]
    engines: Sequence[str]
    tolerance: float
    folder: Path

    @property
    def itself(self) -> dict[str, Any]:
        """The model itself, as an engine."""
        return {"name": self.original.name, "mergeable": self.original.mergeable}


def choose(model: Any, method: str, case: Case) -> Choice:
    """Return what serves a fitted model of scikit-learn, of which `method` answers."""
    contract, rows = case.contract, case.rows
    try:
        transformers, estimator = _parts(model)
        traced = trace(transformers, estimator, contract, rows[0])
    except NotKnownError as error:
        return Choice(case.itself, f"not compiled: {error}")
    plan = traced.spec(contract, "any")
    inner = without_categories(estimator)
    found, why = None, ""
    try:
        found = recipe(inner, method, np.nan_to_num(Plan(plan).matrix(list(rows[:1]))))
    except NotKnownError as error:
        why = str(error)
    trial = find_trial(case.original, contract, rows, _hints(traced, found))
    if found is not None:
        choice, why = _first(found, traced, case, trial)
        if choice is not None:
            return choice
    note = f"not compiled: {why}"
    if inner is not estimator:
        return Choice(case.itself, note)
    try:
        _compare(lambda: _with_plan(model, method, case, plan), trial, contract, _SAME)
    except Exception:  # noqa: BLE001 - then it is asked with data frames, as it was trained
        return Choice(case.itself, note)
    return Choice({**case.itself, "plan": plan}, note)


def choose_booster(described: Described, case: Case) -> Choice:
    """Return what serves a model of another library of trees, loaded by MLflow."""
    try:
        traced = trace([], None, case.contract, case.rows[0])
        found = booster_recipe(described, case.original.predict(Batch(len(case.rows), list(case.rows))))
    except NotKnownError as error:
        return Choice(case.itself, f"not compiled: {error}")
    choice, why = _first(
        found, traced, case, find_trial(case.original, case.contract, case.rows, _hints(traced, found))
    )
    return choice or Choice(case.itself, f"not compiled: {why}")


def _first(found: Recipe, traced: Traced, case: Case, trial: Trial) -> tuple[Choice | None, str]:
    """Return the first engine which agrees, and why those before it do not serve."""
    plan = traced.spec(case.contract, found.finite, found.further)
    why: list[str] = []
    for name in case.engines:
        try:
            kernel, finish = compilation.compile_kernel(name, found, len(traced.features), case.folder)
            spec = {**case.itself, "name": name, "plan": plan, "kernel": kernel, "finish": finish}
            largest = _compare(partial(CompiledEngine, spec, case.folder), trial, case.contract, case.tolerance)
        except NotKnownError as error:
            why.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - a library may raise anything; then it does not serve
            why.append(f"{name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
        else:
            note = f"differs from the model itself by at most {largest:.1e} on {len(trial.rows)} rows"
            return Choice(spec, note), "; ".join(why)
    return None, "; ".join(why) or "no engine is to be tried"


def _with_plan(model: Any, method: str, case: Case, plan: Mapping[str, Any]) -> ScikitEngine:
    output: Output = getattr(case.original, "output", "prediction")
    # Of a copy: the engine makes the estimator forget the names which the model itself wants.
    return ScikitEngine(copy.deepcopy(model), method, case.contract, output=output, plan=Plan(plan))


def _parts(model: Any) -> tuple[list[Any], Any]:
    """Return the transformers of a pipeline and its estimator."""
    from sklearn.pipeline import Pipeline

    transformers: list[Any] = []
    while type(model) is Pipeline:
        transformers += [step for _, step in model.steps[:-1]]
        model = model.steps[-1][1]
    if model is None or isinstance(model, str):
        raise NotKnownError("a pipeline without an estimator")
    return transformers, model


def _hints(traced: Traced, found: Recipe | None) -> dict[int, list[Any]]:
    """Return the values by column which are most telling: on thresholds, a hair beside them, known and unknown."""
    hints: dict[int, list[Any]] = {}
    for table in traced.tables:
        hints.setdefault(table.column, []).extend(table.keys)
    if found is not None and found.family == "trees":
        for feature, values in compilation.thresholds(found).items():
            item = traced.features[feature] if feature < len(traced.features) else None
            if item is None or item.table is not None:
                continue
            beside = [math.nextafter(value, to) for value in values for to in (-math.inf, math.inf)]
            hints.setdefault(item.column, []).extend([*values, *beside])
    return hints


def find_trial(original: Engine, contract: Contract, rows: Sequence[Row], hints: Mapping[int, Sequence[Any]]) -> Trial:
    """Return rows to compare on: those given and many like them, and the single ones which the model refuses."""
    unusual: list[tuple[int, Row]] = []
    nulls: set[int] = set()
    doubles = [position for position, column in enumerate(contract.columns) if column.kind == "double"]
    unusual += [
        (position, _with(rows[0], position, value)) for position in doubles[:_EXTREME_COLUMNS] for value in _EXTREME
    ]
    for position, column in enumerate(contract.columns):
        if not column.required:
            unusual.append((position, _with(rows[0], position, None)))
        if column.kind == "string":
            unusual.append((position, _with(rows[0], position, UNSEEN)))
    refused = _refused(original, [row for _, row in unusual])
    taken = [(position, row[position]) for position, row in unusual if row not in refused]
    further = {position: list(_fitting(contract, position, values)) for position, values in hints.items()}
    for position, value in taken:
        if value is None:
            nulls.add(position)
        elif isinstance(value, str):
            further.setdefault(position, []).append(value)
    made = varied(contract, rows, max(_ROWS - len(rows), _ROWS // 2), further=further, nulls=frozenset(nulls))
    every = [*rows, *(row for row in (row for _, row in unusual) if row not in refused), *made]
    try:
        answers = original.predict(Batch(len(every), every))
    except Exception:  # noqa: BLE001 - it refuses one of those made up: then what it is known to take is asked
        every = list(rows)
        answers = original.predict(Batch(len(every), every))
    return Trial(every, answers, refused)


def _fitting(contract: Contract, position: int, values: Sequence[Any]) -> Sequence[Any]:
    kind = contract.columns[position].kind if not contract.is_tensor else "tensor"
    if kind in ("integer", "long"):
        # A threshold lies between two of these.
        return [int(value) for value in values if abs(value) < 1 << 31]
    if kind == "float":
        return [float(np.float32(value)) for value in values]
    return [] if kind == "tensor" else values


def _with(row: Row, position: int, value: Any) -> Row:
    return (*row[:position], value, *row[position + 1 :])


def _refused(original: Engine, rows: Sequence[Row]) -> list[Row]:
    """Return those of `rows` which the model does not take; asked together, it takes them all as a rule."""
    if not rows or _takes(original, rows):
        return []
    if len(rows) == 1:
        return list(rows)
    middle = len(rows) // 2
    return _refused(original, rows[:middle]) + _refused(original, rows[middle:])


def _takes(original: Engine, rows: Sequence[Row]) -> bool:
    try:
        original.predict(Batch(len(rows), list(rows)))
    except Exception:  # noqa: BLE001 - whatever it raises, it does not take them
        return False
    return True


def _compare(make: Callable[[], Engine], trial: Trial, contract: Contract, tolerance: float) -> float:
    """Return the largest difference.

    Raises:
        NotKnownError: it is larger than `tolerance`, or one refuses what the other does not.
    """
    engine = make()
    try:
        rows = trial.rows
        batch = contract.to_record_batch(Batch(len(rows), rows))
        pairs: list[tuple[Outputs, Outputs]] = [
            (engine.predict(Batch(len(rows), rows)), trial.answers),
            (engine.predict(Batch(len(rows), batch)), trial.answers),
        ]
        pairs += [
            (engine.predict(Batch(1, [row])), trial.answers[index : index + 1]) for index, row in enumerate(rows[:_FEW])
        ]
        if any(_takes_batch(engine, Batch(1, [row])) for row in trial.refused):
            raise NotKnownError("it takes a row which the model itself refuses")
        largest = max(difference(mine, its) for mine, its in pairs)
        if not largest <= tolerance:
            raise NotKnownError(f"it differs from the model itself by {largest:.1e} on its sample")
        return largest
    finally:
        engine.close()


def _takes_batch(engine: Engine, batch: Batch) -> bool:
    try:
        outputs = engine.predict(batch)
    except (ValueError, OverflowError):
        return False
    return not isinstance(outputs, np.ndarray) or bool(np.isfinite(outputs).all())


def difference(mine: Outputs, its: Outputs) -> float:
    """Return the largest difference of two answers, relative where they are larger than one."""
    if not isinstance(mine, np.ndarray) or not isinstance(its, np.ndarray):
        plain = [given.tolist() if isinstance(given, np.ndarray) else given for given in (mine, its)]
        return 0.0 if plain[0] == plain[1] else math.inf
    if mine.shape != its.shape:
        return math.inf
    if mine.size == 0:
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = np.abs(mine - its) / np.maximum(1.0, np.abs(its))
    apart[(mine == its) | (np.isnan(mine) & np.isnan(its))] = 0.0
    largest = float(apart.max())
    return math.inf if math.isnan(largest) else largest
