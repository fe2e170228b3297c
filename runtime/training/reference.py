"""The reference of a model: profile, sample and target of its training data, against which a window is compared."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import ConfigError
from ..common.target import Target
from ..drift import Profile, Relation

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient

PROFILE_ARTIFACT = "tidemill/reference_profile.json"
SAMPLE_ARTIFACT = "tidemill/reference_sample.parquet"
TARGET_ARTIFACT = "tidemill/reference_target.json"
TARGET_SCHEMA = 1
SAMPLE_ROWS = 1000
PREDICTION = "prediction"
"""The sample's column of predictions. Classifiers with more than two classes have `prediction_CLASS` for each."""

_SEED = 0


def predicted_sample(
    features: pd.DataFrame, predictions: Any, predict: Callable[[pd.DataFrame], Any], classes: Any
) -> pd.DataFrame:
    """Return at most SAMPLE_ROWS rows of `features` with their predictions; the same data gives the same rows.

    Args:
        features: all rows.
        predictions: one for each row, or None to compute those of the sample.
        predict: computes predictions.
        classes: the classes of a classifier, else None.

    Raises:
        ConfigError: the number of predictions differs from the number of rows.
    """
    import numpy as np

    rows = np.arange(len(features))
    if len(rows) > SAMPLE_ROWS:
        rows = np.sort(np.random.default_rng(_SEED).choice(rows, SAMPLE_ROWS, replace=False))
    sample = features.iloc[rows].reset_index(drop=True)
    if predictions is None:
        return sample.assign(**_prediction_columns(np.asarray(predict(sample)), classes))
    given = np.asarray(predictions)
    if len(given) != len(features):
        raise ConfigError(f"{len(features)} rows need as many predictions", field="predictions", value=len(given))
    return sample.assign(**_prediction_columns(given[rows], classes))


def target_document(target: Target, held_out: tuple[Any, Any] | None) -> dict[str, Any]:
    """Return the document about the target: its contract, and the relation between predictions and labels.

    Args:
        target: the contract.
        held_out: predictions for rows that the model was not fitted on, and their true values; None if there are none.

    Raises:
        ConfigError: the predictions and the true values do not fit together.
    """
    relation = Relation.of(*held_out, classes=target.classes) if held_out is not None else None
    return {
        "schema": TARGET_SCHEMA,
        "target": target.to_json(),
        "relation": relation.to_json() if relation is not None else None,
    }


def log_reference(
    client: MlflowClient, run_id: str, features: pd.DataFrame, sample: pd.DataFrame, target: dict[str, Any]
) -> None:
    """Log the profile of `features`, the `sample`, and the document about the target as artifacts of the run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    client.log_text(run_id, json.dumps(target, allow_nan=False), TARGET_ARTIFACT)
    client.log_text(run_id, Profile.of(features).to_json(), PROFILE_ARTIFACT)
    table = pa.Table.from_pandas(sample, preserve_index=False)
    with tempfile.TemporaryDirectory(prefix="tidemill-reference-") as folder:
        file = Path(folder, Path(SAMPLE_ARTIFACT).name)
        pq.write_table(table.replace_schema_metadata(), file)
        client.log_artifact(run_id, str(file), str(Path(SAMPLE_ARTIFACT).parent))


def _prediction_columns(predicted: np.ndarray[Any, Any], classes: Any) -> dict[str, np.ndarray[Any, Any]]:
    if predicted.ndim == 1:
        return {PREDICTION: predicted}
    if predicted.shape[1] == 2:
        return {PREDICTION: predicted[:, 1]}
    names = range(predicted.shape[1]) if classes is None else classes
    return {f"{PREDICTION}_{name}": predicted[:, index] for index, name in enumerate(names)}
