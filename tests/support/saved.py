"""Models saved to a folder, as `mlflow` saves them, and the tables they are asked about."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa


def flights(rows: int, seed: int = 0) -> pd.DataFrame:
    """Return features of `rows` flights, with an id."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "id": [f"{number:07d}" for number in range(rows)],
            "distance": random.uniform(100, 2500, rows),
            "hour": random.integers(0, 24, rows),
            "carrier": random.choice(["UA", "B6", "DL"], rows),
        }
    )


def fitted(classes: int = 2) -> Any:
    """Return a pipeline which tells `classes` kinds of flights apart."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    frame = flights(300)
    truth = (frame["hour"] + frame["distance"] / 250).astype(int) % classes
    encode = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["carrier"]), (StandardScaler(), ["distance", "hour"])
    )
    return make_pipeline(encode, LogisticRegression(max_iter=5000)).fit(frame.drop(columns="id"), truth)


def save(folder: Path, model: Any, frame: Any = None, method: str = "predict_proba", **options: Any) -> Path:
    """Save `model`, which is asked `frame` (default: flights without their id) by `method`, and return its folder."""
    import mlflow.sklearn
    from mlflow.models import infer_signature

    example = flights(5).drop(columns="id") if frame is None else frame
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            model,
            folder,
            signature=infer_signature(example, getattr(model, method)(example)),
            input_example=example,
            pip_requirements=["scikit-learn"],
            **{"serialization_format": "skops", "pyfunc_predict_fn": method, **options},
        )
    return folder


def table(rows: int, seed: int = 0) -> pa.Table:
    """Return `flights(rows, seed)` as a table."""
    kinds = [("id", pa.string()), ("distance", pa.float64()), ("hour", pa.int64()), ("carrier", pa.string())]
    return pa.Table.from_pandas(flights(rows, seed), pa.schema(kinds), preserve_index=False).replace_schema_metadata()
