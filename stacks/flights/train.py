"""Train the sample model: will this flight leave more than 15 minutes late?

    python train.py

TIDEMILL_RUNTIME names the settings of the platform. The training reads the newest validated departures. The metric is
that of a model fitted without the last fifth of them; the registered model is the same pipeline, fitted on all rows.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast

from tidemill.runtime import training
from tidemill.runtime.common.errors import TidemillError
from tidemill.stacks.flights import departures

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.pipeline import Pipeline

MODEL = "flights"
HOLDOUT = 0.2
PARAMS: dict[str, Any] = {"max_iter": 80, "max_leaf_nodes": 15, "l2_regularization": 1.0, "random_state": 0}

# It holds only arrays of numbers; skops does not know the class yet.
TRUSTED_TYPES = ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"]


def pipeline() -> Pipeline:
    """Return the unfitted model: encoded categories (unknown ones as missing), then boosted trees."""
    import numpy as np
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)
    columns = ColumnTransformer(
        [("category", encoder, list(departures.CATEGORICAL))],
        remainder="passthrough",
        verbose_feature_names_out=False,
    )
    return Pipeline([("columns", columns), ("trees", HistGradientBoostingClassifier(**PARAMS))])


def train() -> str:
    """Train and register a version; return a summary."""
    from sklearn.metrics import roc_auc_score

    with training.run(MODEL) as run:
        frame = run.read(validated=True).to_pandas().sort_values(departures.EVENT_TIME, kind="stable")
        features = cast("pd.DataFrame", frame[list(departures.FEATURES)])
        target = frame[departures.TARGET].astype("int64")
        cut = int(len(frame) * (1 - HOLDOUT))
        evaluated = pipeline().fit(features[:cut], target[:cut])
        held_out = evaluated.predict_proba(features[cut:])[:, 1]
        auc = float(roc_auc_score(target[cut:], held_out))
        run.log_params(
            {
                **PARAMS,
                "rows": len(frame),
                "holdout_rows": len(frame) - cut,
                "holdout_from": frame[departures.EVENT_TIME].iloc[cut].isoformat(),
                "registered_model": "fitted on all rows, the holdout included",
            }
        )
        run.log_metrics({"roc_auc": auc})
        model = pipeline().fit(features, target)
        made = run.log_model(model, features=features, held_out=(held_out, target[cut:]), trusted_types=TRUSTED_TYPES)
        return f"{made.model} version {made.version}: roc_auc {auc:.4f} on the last {len(frame) - cut} of {len(frame)}"


def main() -> int:
    """Run the command line; return its exit code."""
    # Waiting OpenMP threads must not occupy cores. Set this before the thread pool starts.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        sys.stdout.write(f"{train()}\n")
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
