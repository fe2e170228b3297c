"""One loaded model version.

What loads it is chosen beforehand, by `prepare.ensure`; here only the chosen engine is imported, which for a compiled
model means neither MLflow nor pandas nor scikit-learn.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import engines
from ..contract.model_contract import Contract
from ..engines.errors import UnfitError
from ..engines.prepared import Output, PreparationSettings, Prepared
from ..inference.batch import Batch, Engine, Outputs, is_finite

__all__ = ["Output", "ServedModel", "VersionInfo", "load"]

_WARM_ROUNDS = 3


@dataclass(frozen=True)
class VersionInfo:
    """A version in the registry.

    Attributes:
        alias: the alias it was found by.
        source: where its artifacts are; tells it from a deleted version which had the same number.
        run_id: the run which made it.
        tags: the version's tags, the lineage among them.
        metrics: those of the run.
    """

    model: str
    version: str
    alias: str
    source: str
    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it this version and no other."""
        return self.version, self.source

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "tags": dict(self.tags), "metrics": dict(self.metrics)}


class ServedModel:
    """A version which was loaded and has answered its own example.

    Attributes:
        info: which version.
        contract: what it takes.
        output: the name of what it gives: `score` is the probability of class 1 of a binary classifier, `scores` the
            probabilities of all classes of another classifier, `prediction` anything else.
        output_type: the outputs as a struct with one field, `output`.
        engine: what computes the answers.
        engine_note: how far a compiled engine is from the model itself, or why none serves.
        example: rows, by column, as JSON says them.
        metrics: those of the run which made it.
        loaded_at: when, UTC.
    """

    def __init__(self, info: VersionInfo, prepared: Prepared, engine: Engine) -> None:
        self.info = info
        self.contract: Contract = prepared.contract
        self.output: Output = prepared.output
        self.output_type: pa.StructType = prepared.output_type
        self.engine = engine
        self.engine_note = prepared.note
        self.example = prepared.example
        self.metrics = dict(info.metrics)
        self.loaded_at = datetime.now(UTC)

    def predict(self, batch: Batch) -> Outputs:
        """Return one value a row; a float array may hold what is not finite, which is for the caller to refuse.

        Raises:
            UnfitError: the model did not give one value of the promised shape for each row.
        """
        outputs = self.engine.predict(batch)
        if len(outputs) != batch.rows:
            raise UnfitError(f"the model gave {len(outputs)} values for {batch.rows} rows")
        if self.output != "prediction":
            wanted = 1 if self.output == "score" else 2
            if not isinstance(outputs, np.ndarray) or outputs.ndim != wanted:
                raise UnfitError(f"the model gave something else where it had given {self.output}")
        return outputs

    def close(self) -> None:
        """Give back what the engine holds; no call is under way and none will come."""
        self.engine.close()


def load(info: VersionInfo, folder: Path, settings: PreparationSettings) -> ServedModel:
    """Load the version which `prepare.ensure` has prepared in `folder`, and let it answer its sample.

    Args:
        info: which version it is.
        folder: its folder in the cache: `model/`, `prepared.json`, and what was compiled.
        settings: how it was to be prepared.

    Raises:
        UnfitError: it is not prepared, or does not answer. What else a broken model raises passes through.
    """
    prepared = Prepared.read(folder)
    if prepared is None:
        raise UnfitError(f"version {info.version} is not prepared")
    engine = engines.load(prepared, folder, settings)
    model = ServedModel(info, prepared, engine)
    try:
        _warm(model, prepared.warm_rows(folder))
    except BaseException:
        model.close()
        raise
    return model


def _warm(model: ServedModel, sample: pa.RecordBatch) -> None:
    """Answer the sample in both forms which batches have: what is only made when it is first used is made now."""
    rows = model.contract.to_tuples(Batch(sample.num_rows, sample))
    batches = [Batch(sample.num_rows, sample), Batch(1, rows[:1]), Batch(len(rows), rows)]
    for _ in range(_WARM_ROUNDS):
        for batch in batches if model.engine.mergeable else batches[1:2]:
            if not is_finite(model.predict(batch)):
                raise UnfitError("the model gave a value which is not finite")


def as_json(value: Any) -> Any:
    """Return a value of a row as JSON says it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value
