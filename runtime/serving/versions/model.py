"""A loaded model version.

`preparation` chooses the engine; this module imports only that engine. For a compiled model, MLflow, pandas and
scikit-learn are not imported.
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
from ..engines.outputs import Answer, as_request
from ..engines.prepared import HasPreparationSettings, Output, Prepared
from ..inference.batch import Batch, Engine, Outputs

_WARM_ROUNDS = 3


@dataclass(frozen=True)
class VersionInfo:
    """A version in the registry.

    Attributes:
        alias: the alias that named it; empty if it was selected by number.
        source: location of its artifacts; distinguishes it from a deleted version with the same number.
        run_id: the run that created it.
        tags: of the version, including its lineage.
        metrics: of the run.
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
        """The unique identity of this version."""
        return self.version, self.source

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "tags": dict(self.tags), "metrics": dict(self.metrics)}


class ServedModel:
    """A loaded version that has predicted its own example.

    Attributes:
        info: the version.
        contract: its inputs.
        target: the contract of its labels.
        output: the name of its output: `score` is the probability of class 1 of a binary classifier, `scores` the
            probabilities of all classes of another classifier, `prediction` anything else.
        output_type: the Arrow struct of the outputs, with the one field `output`.
        by_request: whether an answer belongs to its request as a whole, not to rows.
        form: the form of its answers, one of `outputs.FORMS`, or empty for an array or a list.
        tensors: name, datatype and shape of the output tensors.
        engine: computes the predictions.
        engine_note: the difference between the compiled engine and the original model, or why none is used.
        rows_independent: whether the answer for a row does not depend on the other rows, as known or declared.
        merging_note: why requests do not share a call of the model; empty if they do.
        example: rows as JSON objects.
        metrics: of the run that created it.
        loaded_at: UTC.
    """

    def __init__(
        self, info: VersionInfo, prepared: Prepared, engine: Engine, *, rows_independent: bool | None = None
    ) -> None:
        self.info = info
        self.contract: Contract = prepared.contract
        self.target = prepared.target
        self.output: Output = prepared.output
        self.output_type: pa.StructType = prepared.output_type
        self.by_request = prepared.by_request
        self.tensors = prepared.tensors
        self.form = prepared.form
        self.engine = engine
        self.engine_note = prepared.note
        self.rows_independent, why = prepared.independence.decide(rows_independent)
        if not self.contract.mergeable:
            why = "its signature fixes the number of rows"
        elif self.by_request:
            why = "an answer does not have one value for each row"
        self.merging_note = f"requests are not merged: {why}" if why else ""
        engine.mergeable = not why
        self.example = prepared.example
        self.metrics = dict(info.metrics)
        self.loaded_at = datetime.now(UTC)

    def predict(self, batch: Batch) -> Outputs:
        """Return the answer to `batch`: one value for each row, or an `Answer` of the whole request.

        Raises:
            UnfitError: the model returned another kind of output than for its sample.
            AnswerError: the model returned an object that no protocol can represent.
        """
        outputs = self.engine.predict(batch)
        if self.by_request:
            return as_request(outputs)
        if isinstance(outputs, Answer):
            if outputs.form == "targets" != self.form and len(outputs.parts) == batch.rows:
                # One array for each row. By chance, each has as many rows as the request.
                return [part.tolist() for part in outputs.parts]
            is_expected = self.output == ("score" if outputs.form == "score" else "prediction")
        else:
            if len(outputs) != batch.rows:
                raise UnfitError(f"the model returned {len(outputs)} values for {batch.rows} rows")
            dimensions = {"score": 1, "scores": 2}.get(self.output)
            is_expected = dimensions is None or (isinstance(outputs, np.ndarray) and outputs.ndim == dimensions)
        if not is_expected:
            raise UnfitError(f"the model no longer returns {self.output}")
        return outputs

    @property
    def has_columns(self) -> bool:
        """Whether its outputs are columns with names of their own, as those of a data frame."""
        return self.form in ("frame", "mapping")

    def close(self) -> None:
        """Release the engine's resources. Call it after the last prediction."""
        self.engine.close()


def load(
    info: VersionInfo, folder: Path, settings: HasPreparationSettings, *, rows_independent: bool | None = None
) -> ServedModel:
    """Load the prepared version in `folder`, and predict its sample.

    Args:
        info: the version.
        folder: its folder in the cache: `model/`, `prepared.json` and the compiled files.
        settings: with which it was prepared.
        rows_independent: whether its rows are independent; None: as declared in its metadata, or as known.

    Raises:
        UnfitError: it is not prepared, or cannot predict its sample. Other exceptions of a broken model pass through.
    """
    prepared = Prepared.read(folder)
    if prepared is None:
        raise UnfitError(f"version {info.version} is not prepared")
    engine = engines.load(prepared, folder, settings)
    model = ServedModel(info, prepared, engine, rows_independent=rows_independent)
    try:
        _warm(model, prepared.warm_rows(folder))
    except BaseException:
        model.close()
        raise
    return model


def _warm(model: ServedModel, sample: pa.RecordBatch) -> None:
    """Predict the sample as tuples and as a record batch, so that lazy initialisation happens now."""
    rows = model.contract.to_tuples(Batch(sample.num_rows, sample))
    batches = [Batch(sample.num_rows, sample), Batch(1, rows[:1]), Batch(len(rows), rows)]
    for _ in range(_WARM_ROUNDS):
        for batch in batches if model.engine.mergeable else batches[1:2]:
            model.predict(batch)


def to_json_value(value: Any) -> Any:
    """Return a value of a row as a JSON value."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value
