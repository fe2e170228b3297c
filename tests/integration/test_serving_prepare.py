"""Preparation in a child process: once for all workers, again after settings change, whatever the model does."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier
from tidemill.runtime.serving.engines.errors import UnfitError
from tidemill.runtime.serving.versions import preparation

from tests.support.versions import info_of, save_version, wanted

pytestmark = pytest.mark.integration

FRAME = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 4)), columns=list("abcd"))

ENSURE = """
import sys
from pathlib import Path
from tidemill.runtime.serving.versions import preparation
from tidemill.runtime.serving.versions.model import VersionInfo
folder = Path(sys.argv[1])
info = VersionInfo("m", folder.name, "champion", str(folder), "run", {})
preparation.ensure_prepared(folder, info, preparation.PreparationSettings())
"""

SERVE = """
import json, sys
from pathlib import Path
from tidemill.runtime.serving.hide_pandas import hide_pandas_from_arrow
hide_pandas_from_arrow()
from tidemill.runtime.serving.versions import preparation
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.versions.model import VersionInfo, load
folder = Path(sys.argv[1])
info = VersionInfo("m", folder.name, "champion", str(folder), "run", {})
preparation.ensure_prepared(folder, info, preparation.PreparationSettings())
model = load(info, folder, preparation.PreparationSettings())
rows = [tuple(row) for row in json.loads(sys.argv[2])]
batch = model.contract.to_record_batch(Batch(len(rows), rows))
answers = [model.predict(Batch(len(rows), values)).tolist() for values in (rows, batch)]
heavy = ("mlflow", "pandas", "sklearn", "scipy", "skops", "onnxruntime", "treelite", "tl2cgen")
print(json.dumps([model.engine.name, answers, [name for name in heavy if name in sys.modules]]))
model.close()
"""


@pytest.fixture
def version(tmp_path: Path) -> Path:
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(FRAME, FRAME["a"] > 0)
    return save_version(tmp_path / "m" / "1", fitted, FRAME)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A C compiler which notes each library it links; return the notes."""
    notes = tmp_path / "linked"
    notes.touch()
    script = tmp_path / "compiler"
    script.write_text(f'#!/bin/sh\ncase "$*" in *-shared*) echo linked >> {notes};; esac\nexec cc "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("CC", str(script))
    return notes


def start(code: str, *arguments: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_workers_which_start_together_prepare_once(version: Path, counted: Path) -> None:
    workers = [start(ENSURE, version) for _ in range(4)]
    for worker in workers:
        _, said = worker.communicate(timeout=240)
        assert worker.returncode == 0, said.decode()
    assert counted.read_text().splitlines() == ["linked"]


def test_it_is_done_anew_for_other_settings_libraries_and_artifacts(version: Path, counted: Path) -> None:
    def times() -> int:
        return len(counted.read_text().splitlines())

    preparation.ensure_prepared(version, info_of(version), wanted())
    preparation.ensure_prepared(version, info_of(version), wanted())
    assert times() == 1
    preparation.ensure_prepared(version, info_of(version), wanted(tolerance=1e-5))
    assert times() == 2
    file = version / "prepared.json"
    kept = json.loads(file.read_text())
    assert kept["made_for"]["libraries"]["scikit-learn"]
    kept["made_for"]["libraries"]["scikit-learn"] = "0.1"
    file.write_text(json.dumps(kept))
    preparation.ensure_prepared(version, info_of(version), wanted(tolerance=1e-5))
    assert times() == 3
    with (version / "model" / "MLmodel").open("a") as described:
        described.write("# another one\n")
    preparation.ensure_prepared(version, info_of(version), wanted(tolerance=1e-5))
    assert times() == 4
    # One which was killed in the middle left this.
    file.unlink()
    (version / ".compiled-left").mkdir()
    preparation.ensure_prepared(version, info_of(version), wanted(tolerance=1e-5))
    assert times() == 5
    assert not list(version.glob(".compiled-*"))


def test_a_worker_needs_neither_mlflow_nor_what_trained_the_model(version: Path) -> None:
    rows = FRAME.head(5).to_numpy().tolist()
    done = subprocess.run(
        [sys.executable, "-c", SERVE, str(version), json.dumps(rows)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    engine, (listed, packed), heavy = json.loads(done.stdout)
    assert engine == "tl2cgen"
    assert listed == packed
    assert heavy == []


CODE = """
import os, sys, time, mlflow, pandas as pd
from mlflow.pyfunc import PythonModel
print("chatter", flush=True)

class Model(PythonModel):
    def load_context(self, context):
        {load}
    def predict(self, context, model_input: pd.DataFrame, params=None):
        {predict}

mlflow.models.set_model(Model())
"""


def from_code(folder: Path, *, load: str = "pass", predict: str = "return model_input['n'].tolist()") -> Path:
    """Save a model of a file without running it, as a broken one is found in a registry."""
    import mlflow.pyfunc

    script = folder.with_suffix(".py")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(CODE.format(load="pass", predict="return model_input['n'].tolist()"))
    frame = pd.DataFrame({"n": [1.0, 2.0]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            folder / "model",
            python_model=str(script),
            signature=infer_signature(frame),
            # Without an example, a model that fails on invented rows serves.
            input_example=frame,
            pip_requirements=["numpy"],
        )
    (folder / "model" / script.name).write_text(CODE.format(load=load, predict=predict))
    return folder


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"load": "os.abort()"}, "killed by SIGABRT"),
        ({"load": "os.kill(os.getpid(), 9)"}, "killed by SIGKILL"),
        ({"load": "os._exit(7)"}, "."),
        ({"load": "raise KeyError('weights')"}, "KeyError: 'weights'"),
        ({"load": "sys.exit('no')"}, "no"),
        ({"predict": "raise RuntimeError('broken')"}, "broken"),
        ({"predict": "return bytearray(1 << 60)"}, "MemoryError"),
        ({"load": "import ctypes; ctypes.string_at(0)"}, "killed by SIGSEGV"),
    ],
    ids=["abort", "kill", "exit", "load", "sys.exit", "predict", "memory", "segfault"],
)
def test_a_broken_model_is_refused_with_its_reason(tmp_path: Path, broken: dict[str, str], why: str) -> None:
    folder = from_code(tmp_path / "m" / "1", **broken)
    with pytest.raises(UnfitError, match=why) as refusal:
        preparation.ensure_prepared(folder, info_of(folder), wanted())
    assert "version 1" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not (folder / "prepared.json").exists()


def test_a_model_sees_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "a-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    folder = from_code(tmp_path / "m" / "1", load="assert 'a-secret' not in os.environ.values()")
    preparation.ensure_prepared(folder, info_of(folder), wanted())
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "a-secret"


def test_nothing_is_left_when_the_server_is_killed_meanwhile(tmp_path: Path) -> None:
    folder = from_code(tmp_path / "m" / "1", load=f"open({str(tmp_path / 'loading')!r}, 'w').close(); time.sleep(600)")
    server = start(ENSURE, folder)
    end = time.monotonic() + 120
    while not (tmp_path / "loading").exists():
        assert server.poll() is None, server.communicate()[1].decode()
        assert time.monotonic() < end
        time.sleep(0.05)
    children = psutil.Process(server.pid).children(recursive=True)
    assert children
    server.send_signal(signal.SIGKILL)
    server.communicate()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
