"""The real model server, serving a folder, without a registry."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.serving import ModelServer


def save(folder: Path, pipeline: Any, frame: Any) -> None:
    """Save `pipeline` as an MLflow model which gives probabilities."""
    from mlflow.models import infer_signature
    from mlflow.sklearn import save_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_model(
            pipeline,
            folder,
            signature=infer_signature(frame, pipeline.predict_proba(frame)),
            input_example=frame.head(3),
            pyfunc_predict_fn="predict_proba",
            serialization_format="skops",
            pip_requirements=["scikit-learn"],
        )


@contextmanager
def server_of(
    folder: Path, pipeline: Any, frame: Any, *, variables: dict[str, str] | None = None, **overrides: Any
) -> Iterator[ModelServer]:
    """Serve `pipeline`, fitted on `frame`, without a registry, with environment `variables`; wait until it is ready."""
    save(folder / "model", pipeline, frame)
    server = ModelServer(folder, "", "", folder, {"registry": None, "path": str(folder / "model"), **overrides})
    server.variables = variables or {}
    try:
        server.start()
        server.wait(lambda: server.get("/readyz").status_code == 200)
        yield server
    finally:
        server.stop()
