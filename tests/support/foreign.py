"""A model whose requirements this environment does not satisfy, and the environment in which it runs.

The environment is real, takes a while to fill, and is kept from run to run in the user's cache.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tidemill.runtime.serving.isolation import environment

# Another scikit-learn than tidemill's; MLflow itself is the same, so that it reads what is logged here.
SCIKIT_LEARN = "1.8.0"
REQUIREMENTS = [
    f"scikit-learn=={SCIKIT_LEARN}",
    "pandas==2.3.3",
    "numpy==2.3.5",
    "pyarrow==23.0.1",
    "skops==0.14.0",
    f"mlflow=={version('mlflow-skinny')}",
]
_BUILD_TOOLS = ("pip==25.0.1", "setuptools==75.8.0", "wheel==0.45.1")

# Does as the column `what` says; a model from code, so nothing of it is unpickled.
ODD = """
import json, os, subprocess, sys, time

import mlflow.pyfunc
import pandas as pd


class Odd(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        first, rows = model_input["what"].iloc[0], len(model_input)
        if first == "frame":
            return pd.DataFrame({"n": [2**53 + 1] * rows, "x": [float("nan")] * rows, "s": ["\u00e9"] * rows})
        if first == "forecast":
            return [1.0, float("inf"), 3]
        if first == "generator":
            return (value for value in [1.0])
        return [self.one(*what.partition(" ")[::2]) for what in model_input["what"]]

    def one(self, what, rest):
        if what == "version":
            import sklearn

            return sklearn.__version__
        if what == "environ":
            return dict(os.environ)
        if what == "argv":
            return [open(f"/proc/{pid}/cmdline").read() for pid in (os.getpid(), os.getppid())]
        if what == "fork":
            return [os.getpid(), os.getppid(), subprocess.Popen(["sleep", "1000"]).pid]
        if what == "hold":  # one call of C, which lets no other thread of Python run
            open(rest, "w").close()
            return sum(range(10**13))
        if what == "sleep":
            time.sleep(1000)
        if what == "raise":
            raise KeyError("the model says no")
        if what == "print":
            print("secret row", flush=True)
            print("secret row", file=sys.stderr, flush=True)
        if what == "much":
            return "x" * int(rest)
        return what


mlflow.models.set_model(Odd())
"""

_LOG = """
import json, sys
import mlflow.sklearn, numpy as np, pandas as pd
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

folder, requirements = sys.argv[1], json.loads(sys.argv[2])
random = np.random.default_rng(7)
frame = pd.DataFrame({
    "distance": random.uniform(100, 2500, 400),
    "carrier": random.choice(["UA", "B6", "DL"], 400),
})
late = (frame["distance"] > 1200) ^ (frame["carrier"] == "B6")
encode = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["carrier"]), remainder="passthrough"
)
model = make_pipeline(encode, HistGradientBoostingClassifier(max_iter=20)).fit(frame, late.astype(int))
mlflow.sklearn.save_model(
    model, folder, signature=infer_signature(frame, model.predict_proba(frame)), input_example=frame.head(3),
    pyfunc_predict_fn="predict_proba", serialization_format="skops", pip_requirements=requirements,
)
rows = frame.head(50)
print(json.dumps({"rows": rows.values.tolist(), "scores": model.predict_proba(rows)[:, 1].tolist()}))
"""

_LOG_ODD = """
import json, sys
import mlflow.pyfunc, pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

folder, requirements = sys.argv[1], json.loads(sys.argv[2])
mlflow.pyfunc.save_model(
    folder, python_model=folder + ".py",
    signature=ModelSignature(Schema([ColSpec("string", "what")]), Schema([ColSpec("string")])),
    input_example=pd.DataFrame({"what": ["nothing"]}), pip_requirements=requirements,
)
"""


def cache_folder() -> Path:
    """Return where environments of tests are kept from run to run."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "tidemill" / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def foreign_environment(folder: Path) -> Path:
    """Return an environment of REQUIREMENTS, filled unless it is kept; `folder` is for what says so."""
    return environment.ensure_environment(describe_environment(folder, REQUIREMENTS), cache_folder(), seconds=600)


def describe_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Write the environment files that MLflow writes for a model with `requirements`; return `folder`.

    MLflow lists the build tools of the environment that saves a model, so they are installed there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    tools = "".join(f"- {line}\n" for line in _BUILD_TOOLS)
    (folder / "python_env.yaml").write_text(f"build_dependencies:\n{tools}")
    return folder


def log_pipeline(python_of: Path, folder: Path) -> dict[str, Any]:
    """Let the foreign environment `python_of` log a pipeline to `folder`; return `rows` and its `scores` of them."""
    return json.loads(_run(python_of, _LOG, folder).splitlines()[-1])


def log_odd(python_of: Path, folder: Path) -> Path:
    """Let the foreign environment `python_of` log the model ODD to `folder`."""
    folder.with_suffix(".py").write_text(ODD)
    _run(python_of, _LOG_ODD, folder)
    return folder


def _run(python_of: Path, code: str, folder: Path) -> str:
    argv = [str(python_of / "bin" / "python"), "-W", "ignore", "-c", code, str(folder), json.dumps(REQUIREMENTS)]
    environ = environment.child_environment()
    done = subprocess.run(
        argv, cwd=folder.parent, env=environ, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
