"""The peers' own virtual environments; see `tests.support.environments`."""

from __future__ import annotations

from pathlib import Path

from tests.support.environments import environment_of

# All of them read the one model: what writes it and what it computes with has the same version everywhere.
_MODEL = ("scikit-learn==1.9.1", "numpy==2.4.6", "joblib==1.6.0", "psutil")

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "mlflow": ("mlflow==3.17.2", "skops==0.16.0", "pandas==3.1.1", *_MODEL),
    # It dies on start with uvloop 0.23.
    "mlserver": ("mlserver==1.7.1", "mlserver-sklearn==1.7.1", "uvloop<0.22", "pandas<3.1", *_MODEL),
    "bentoml": ("bentoml==1.4.40", "pandas==3.1.1", *_MODEL),
    "litserve": ("litserve==0.2.19", "pandas==3.1.1", *_MODEL),
}


def environment(name: str) -> Path:
    """Return the folder with the programs of the environment `name`; create the environment if it does not exist."""
    return environment_of(name, REQUIREMENTS[name], folder="benchmarks")
