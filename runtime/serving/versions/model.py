"""A loaded model version.

`preparation` chooses the engine; this module imports only that engine. For a compiled model, MLflow, pandas and
scikit-learn are not imported.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .. import engines
from ..contract.model_contract import Contract
from ..engines.answer_kind import answer_kind
from ..engines.errors import UnfitError
from ..engines.outputs import Answer, as_request
from ..engines.prepared import HasPreparationSettings, Output, Prepared
from ..inference.batch import Batch, Engine, Outputs

_log = logging.getLogger(__name__)
_WARM_ROUNDS = 3
_DIMENSIONS = {"score": 1, "scores": 2}
_UNANSWERED = (
    "it has no example, and refused the rows that tidemill made up, so an answer is taken as one of its request; "
    "log it with an input example, or declare batch.rows_independent: true"
)


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
        answered: whether it answered a sample; if not, the form and the columns of its answers are not known.
        form: the form of its answers, one of `outputs.FORMS`, or empty for an array or a list.
        tensors: name, datatype and shape of the output tensors.
        engine: computes the predictions.
        engine_note: the difference between the compiled engine and the original model, or why none is used.
        rows_independent: whether the answer for a row does not depend on the other rows, as known or declared.
        merging_note: why requests do not share a call of the model, or why they should not; empty if they do.
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
        self.answered = prepared.answered
        # Rows that are independent have their own answers.
        self.by_request = prepared.by_request and (self.answered or not rows_independent)
        self.tensors = prepared.tensors
        self.form = prepared.form
        self.engine = engine
        self.engine_note = prepared.note
        self.rows_independent, why = prepared.independence.decide(rows_independent)
        if not self.contract.mergeable:
            why = "its signature fixes the number of rows"
        elif self.by_request:
            why = "an answer does not have one value for each row" if self.answered else _UNANSWERED
        engine.mergeable = self.rows_independent and self.contract.mergeable and not self.by_request
        relation = "merged, as declared, although" if engine.mergeable else "not merged:"
        self.merging_note = f"requests are {relation} {why}" if why else ""
        self.example = prepared.example
        self.metrics = dict(info.metrics)
        self.loaded_at = datetime.now(UTC)

    def predict(self, batch: Batch) -> Outputs:
        """Return the answer to `batch`: one value for each row, or an `Answer` of the whole request.

        Raises:
            UnfitError: the model returned another kind of output than for its sample.
            AnswerError: the model returned an object that no protocol can represent.
        """
        return self._checked(self.engine.predict(batch), batch)

    def predict_and_learn(self, batch: Batch) -> Outputs:
        """Return the answer to `batch`, from which the model also learns whether it answers by row, if it is unknown.

        Only for a model that nothing else uses meanwhile.

        Raises:
            UnfitError, AnswerError: as for `predict`.
        """
        if self.answered or not self.by_request:
            return self.predict(batch)
        outputs = self.engine.predict(batch)
        first = replace(batch, rows=1, values=batch.values[:1], event_times=None, index=None)
        rows = self.contract.to_tuples(first)
        self.by_request, self.form = answer_kind(self.engine, rows, outputs, batch)
        return self._checked(outputs, batch)

    def _checked(self, outputs: Outputs, batch: Batch) -> Outputs:
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
            dimensions = _DIMENSIONS.get(self.output)
            is_expected = dimensions is None or (isinstance(outputs, np.ndarray) and outputs.ndim == dimensions)
        if not is_expected:
            raise UnfitError(f"the model no longer returns {self.output}")
        return outputs

    @property
    def answer_type(self) -> pa.DataType | None:
        """The type of its answers for a row, as in its sample or its signature; None if it is unknown."""
        kind = self.output_type.field(0).type
        return kind if self.answered or not pa.types.is_string(kind) else None

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
        _warm(model, prepared.warm_rows(folder), must_answer=prepared.has_example)
    except BaseException:
        model.close()
        raise
    return model


def _warm(model: ServedModel, sample: pa.RecordBatch, *, must_answer: bool) -> None:
    """Predict the sample as tuples and as a record batch, so that lazy initialisation happens now.

    Args:
        model: to warm up.
        sample: rows that came with the model, or rows that were invented; may be empty.
        must_answer: whether a failure means that the model cannot serve.

    Raises:
        UnfitError: a value is not finite. Other exceptions of the model pass through.
    """
    if not sample.num_rows:
        return
    rows = model.contract.to_tuples(Batch(sample.num_rows, sample))
    few = rows[: model.contract.fixed_rows or 1]
    one, whole = Batch(len(few), few), [Batch(sample.num_rows, sample), Batch(len(rows), rows)]
    for _ in range(_WARM_ROUNDS):
        for batch in (*whole, one):
            try:
                model.predict(batch)
            except Exception as error:
                # A model whose rows depend on each other may refuse one row alone.
                if must_answer and (batch is not one or model.rows_independent):
                    raise
                _log.info("the model refused rows for warming up", extra={"reason": type(error).__name__})


def to_json_value(value: Any) -> Any:
    """Return a value of a row as a JSON value."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value
