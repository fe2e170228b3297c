"""Models of each flavour that MLflow 2 and 3 saved: the real server gives the answers that MLflow gives there."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tidemill.runtime.serving.isolation.environment import building_environment
from tidemill.stacks.cli.app import run

from tests.compat.flavours import BODIES, FLAVOURS, Flavour
from tests.compat.oracle import same
from tests.compat.table import Key, record
from tests.support.foreign import cache_folder
from tests.support.serving import ModelServer

pytestmark = [pytest.mark.slow, pytest.mark.integration]

KIND = "columns"
ROWS = [Key(flavour.name, flavour.mlflow, KIND) for flavour in FLAVOURS]
# Of compiled engines, and of numbers in single precision.
_TOLERANCE = 1e-6


@contextmanager
def serving(model: Path, folder: Path, *trust: str) -> Generator[ModelServer]:
    """The real model server; it finds the environments of the flavours."""
    folder.mkdir()
    settings = {"registry": None, "path": str(model), "capture": None, "trust": list(trust)}
    # With the user's certificates and index, for an environment that is not ready.
    ready = {**building_environment(), "TIDEMILL_ENVIRONMENTS": str(cache_folder() / "@environments")}
    server = ModelServer(folder, "", "", folder, settings, variables=ready)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def answers(server: ModelServer) -> list[Any]:
    with server.client() as client:
        return [client.post("/invocations", json=body).json()["predictions"] for body in BODIES]


@pytest.mark.parametrize("flavour", FLAVOURS, ids=lambda flavour: f"{flavour.name}, {flavour.mlflow}")
def test_flavour(flavour: Flavour, tmp_path: Path) -> None:
    theirs = flavour.save(tmp_path / "model")
    assert [status for status, _ in theirs] == [200] * len(BODIES)
    expected = [document["predictions"] for _, document in theirs]
    trust = ["pickle"] if flavour.trust else []
    with serving(tmp_path / "model", tmp_path / "server", *trust) as server:
        server.wait(lambda: server.get("/readyz").status_code == 200, 240)
        state = server.get("/readyz").json()
        assert (state["engine"] == "isolated") is flavour.isolated, state["engine_note"]
        assert ("pickle is trusted" in state["engine_note"]) is flavour.trust
        ours = answers(server)
    print(ours, expected, sep="\n")
    equal = same(ours, expected, _TOLERANCE)
    record(
        flavour.name, flavour.mlflow, KIND, True, state["engine"], equal, "`--trust pickle`" if flavour.trust else ""
    )


def of(name: str, version: str) -> Flavour:
    return next(flavour for flavour in FLAVOURS if (flavour.name, flavour.mlflow) == (name, version))


def test_a_model_with_only_a_conda_file_is_served_in_the_environment_that_it_describes(tmp_path: Path) -> None:
    model = tmp_path / "model"
    [(_, document), *_] = of("LightGBM, booster", "2.22").save(model)
    (model / "requirements.txt").unlink()
    (model / "python_env.yaml").unlink()
    with serving(model, tmp_path / "server") as server:
        server.wait(lambda: server.get("/readyz").status_code == 200, 240)
        assert server.get("/readyz").json()["engine"] == "isolated"
        assert same(answers(server)[0], document["predictions"], _TOLERANCE)


def test_without_trust_a_pickle_of_mlflow_2_is_refused_before_its_environment_is_built(tmp_path: Path) -> None:
    of("scikit-learn, pickle", "2.22").save(tmp_path / "model")
    with serving(tmp_path / "model", tmp_path / "server") as server:
        server.wait(lambda: "error" in server.get("/readyz").json(), 120)
        said = server.get("/readyz").json()["error"]
        for way in ("--trust pickle", "serve.trust: [pickle]", "tidemill convert"):
            assert way in said
    assert not (tmp_path / "server" / "cache" / "@environments").exists()


def test_a_pickle_of_mlflow_2_is_converted_with_the_libraries_that_trained_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, new = tmp_path / "model", tmp_path / "new"
    [(_, document), *_] = of("scikit-learn, cloudpickle", "2.22").save(model)
    monkeypatch.setenv("TIDEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TIDEMILL_ENVIRONMENTS", str(cache_folder() / "@environments"))
    assert run(["convert", str(model), str(new), "--trust", "pickle"]) == 0
    assert "differ by at most 0.0e+00 on 3 rows of its input example" in capsys.readouterr().out
    assert "scikit-learn==1.6.1" in (new / "requirements.txt").read_text().splitlines()
    shutil.rmtree(model)
    monkeypatch.delenv("TIDEMILL_ENVIRONMENTS")
    with serving(new, tmp_path / "server") as server:
        server.wait(lambda: server.get("/readyz").status_code == 200, 240)
        assert same(answers(server)[0], document["predictions"], _TOLERANCE)
