"""`tidemill convert` with a real MLflow and real folders: the new version answers the same, without a pickle."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression
from tidemill.runtime.serving.engines.mlmodel import MLmodel
from tidemill.stacks.cli.app import run

from tests.support.saved import fitted, flights, save, table
from tests.support.servers import mlflow_server
from tests.support.serving import Registry

pytestmark = [
    pytest.mark.integration,
    # Of SQLAlchemy, about how MLflow asks a database.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

TREES = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
NUMBERS = ["distance", "hour"]
LINEAGE = {
    "tidemill.git.commit": "a" * 40,
    "tidemill.lake.repository": "flights",
    "tidemill.lake.commit": "b" * 64,
    "tidemill.lake.path": "departures",
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield Registry(server)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TIDEMILL_RUNTIME", raising=False)
    monkeypatch.setenv("TIDEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trees() -> tuple[Any, Any]:
    frame = flights(300)[NUMBERS]
    return HistGradientBoostingClassifier(max_iter=5).fit(frame, (frame["hour"] > 12).astype(int)), frame


def scores(model: str, *words: str) -> Any:
    pq.write_table(table(50), "in.parquet")
    assert run(["score", model, "in.parquet", "out.parquet", "--overwrite", "--no-compile", *words]) == 0
    return pq.read_table("out.parquet").column(-1).to_numpy(zero_copy_only=False)


def test_a_version_becomes_a_new_version_without_a_pickle(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    model, frame = trees()
    old = registry.register(model, frame, tags={**LINEAGE, "owner": "ana"}, serialization_format="cloudpickle")
    client = registry.client
    before = client.get_model_version(registry.model, old)
    client.log_metric(before.run_id, "roc_auc", 0.7)
    client.log_text(before.run_id, "{}", "tidemill/reference_profile.json")
    uri = ["--tracking-uri", registry.server.url]
    command = ["convert", f"{registry.model}@{old}", *uri]

    assert run(command) == 1
    assert "add --trust pickle" in capsys.readouterr().err
    assert run([*command, "--trust", "pickle"]) == 2
    assert f"--trust-type {TREES}" in capsys.readouterr().err
    assert {each.version for each in client.search_model_versions(f"name='{registry.model}'")} == {old}

    assert run([*command, "--trust", "pickle", "--trust-type", TREES, "--json"]) == 0
    done = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (done["converted_from"], done["to"], done["trusted_types"]) == (old, "skops", [TREES])
    assert (done["rows"], done["sample"]) == (3, "input example")
    assert done["difference"] <= 1e-6

    made = client.get_model_version(registry.model, done["version"])
    tags = {name: value for name, value in made.tags.items() if name != "tidemill.account"}
    assert tags == {**LINEAGE, "tidemill.converted.from": f"{registry.model}@{old}"}
    new = client.get_run(made.run_id)
    assert made.run_id == done["run_id"] != before.run_id
    assert new.info.status == "FINISHED"
    assert new.data.tags["tidemill.converted.from"] == f"{registry.model}@{old}"
    assert new.data.metrics == {"roc_auc": 0.7}
    assert [item.path for item in client.list_artifacts(made.run_id, "tidemill")] == ["tidemill/reference_profile.json"]
    # The new version needs no trust.
    new_scores = scores(f"models:/{registry.model}/{done['version']}", *uri)
    old_scores = scores(f"models:/{registry.model}/{old}", *uri, "--trust", "pickle")
    np.testing.assert_array_equal(new_scores, old_scores)
    # MLflow loads it as well.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "true"  # MLflow treats skops like a pickle
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import pyfunc

            loaded = pyfunc.load_model(f"models:/{registry.model}/{done['version']}")
            np.testing.assert_array_equal(loaded.predict(frame), model.predict_proba(frame))
    finally:
        del os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"]


@pytest.mark.parametrize("to", ["skops", "onnx"])
def test_a_folder_becomes_another_folder(place: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    save(place / "old", fitted(), serialization_format="cloudpickle")
    tolerance = ["--tolerance", "1e-5"]
    assert run(["convert", "old", "new", "--to", to, "--trust", "pickle", *tolerance]) == 0
    assert "converted old@folder-" in capsys.readouterr().out
    new = MLmodel.read(place / "new")
    new.check()
    assert new.pickle_reason() is None
    assert not list((place / "new").rglob("*.pkl"))
    np.testing.assert_allclose(scores("new"), scores("old", "--trust", "pickle"), atol=1e-5)
    assert pq.read_schema("out.parquet").names == ["score"]
    assert run(["convert", "old", "new", "--trust", "pickle"]) == 2
    assert "the folder exists" in capsys.readouterr().err


class Reporting:
    """Pickled, it writes the names of the environment variables of each process that loads it, and becomes `model`."""

    def __init__(self, model: Any, report: Path) -> None:
        self._model, self._report = model, report

    def __reduce__(self) -> tuple[Any, ...]:
        write = f"open({str(self._report)!r}, 'a').write(' '.join(__import__('os').environ) + '\\n')"
        return eval, (f"({write}, __import__('pickle').loads({pickle.dumps(self._model)!r}))[1]",)


def test_a_pickle_meets_no_credentials(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"GITHUB_TOKEN", "GOOGLE_APPLICATION_CREDENTIALS", "LAKECTL_CREDENTIALS_SECRET", "UV_INDEX_OWN_PASSWORD"}
    for name in secrets:
        monkeypatch.setenv(name, "hidden")
    frame = flights(300)[NUMBERS]
    model = LinearRegression().fit(frame, frame["hour"])
    save(place / "old", model, frame, "predict", serialization_format="cloudpickle")
    report = place / "report.txt"
    (place / "old" / "model.pkl").write_bytes(pickle.dumps(Reporting(model, report)))
    assert run(["convert", "old", "new", "--trust", "pickle"]) == 0
    # To write the new file, and to compare.
    processes = [set(line.split()) for line in report.read_text().splitlines()]
    assert len(processes) == 2
    assert all("PATH" in names and not names & secrets for names in processes)


def test_answers_that_differ_or_cannot_be_compared_are_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(place / "old", fitted(), serialization_format="cloudpickle")
    command = ["convert", "old", "new", "--to", "onnx", "--trust", "pickle"]
    assert run([*command, "--tolerance", "0"]) == 1
    assert "the answers differ by up to" in capsys.readouterr().err
    assert not (place / "new").exists()
    document = yaml.safe_load((place / "old" / "MLmodel").read_text())
    del document["saved_input_example_info"]
    (place / "old" / "MLmodel").write_text(yaml.safe_dump(document))
    command = ["convert", "old", "new", "--trust", "pickle"]
    assert run(command) == 1
    assert "no rows to compare" in capsys.readouterr().err
    assert run([*command, "--accept-difference"]) == 0
    assert "its answers were not compared" in capsys.readouterr().out
    shutil.rmtree(place / "new")


def test_what_cannot_be_converted_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = flights(50)[NUMBERS]
    save(place / "skops", LinearRegression().fit(frame, frame["hour"]), frame, "predict")
    assert run(["convert", "skops"]) == 2
    assert "OUT" in capsys.readouterr().err
    assert run(["convert", "skops", "new"]) == 2
    assert "already stored with skops" in capsys.readouterr().err
    document = yaml.safe_load((place / "skops" / "MLmodel").read_text())
    document["flavors"]["python_function"]["loader_module"] = "mlflow.statsmodels"
    (place / "skops" / "MLmodel").write_text(yaml.safe_dump(document))
    assert run(["convert", "skops", "new", "--trust", "pickle"]) == 2
    assert "only scikit-learn models" in capsys.readouterr().err
    (place / "skops" / "MLmodel").write_text("flavors: {python_function: {loader_module: mlflow.sklearn}}")
    assert run(["convert", "skops", "new", "--trust", "pickle"]) == 1
    assert not (place / "new").exists()
