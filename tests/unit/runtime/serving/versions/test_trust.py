"""Trust in pickles: refused by default with the ways out, loaded through MLflow where the user trusts them."""

from __future__ import annotations

import os
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression
from tidemill.components.settings import ServeConfig
from tidemill.runtime.common.settings import ListenSettings
from tidemill.runtime.serving.engines.errors import UnfitError
from tidemill.runtime.serving.engines.mlmodel import PICKLE_SWITCH, MLmodel, limit_pickle
from tidemill.runtime.serving.engines.outputs import Answer
from tidemill.runtime.serving.engines.prepared import fingerprint
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.settings import CompileSettings, ServingSettings
from tidemill.runtime.serving.versions.model import ServedModel, load
from tidemill.runtime.serving.versions.preparation import PreparationSettings

from tests.support.versions import info_of, prepared, save_version, served

FRAME = pd.DataFrame({"a": np.linspace(-1.0, 1.0, 40), "b": np.tile([0.5, 1.5], 20)})
ROWS = [(0.25, 1.0), (-2.0, 0.0)]
CLASSES = np.arange(40) % 2
TRUSTING = PreparationSettings(trust=["pickle"])
UNCOMPILED = PreparationSettings(CompileSettings(engines=[]), trust=["pickle"])
WAYS = ("--trust pickle", "serve.trust: [pickle]", "tidemill convert MODEL@VERSION")


class Trap:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.folder,)


def python_model(folder: Path) -> Path:
    """Save a PythonModel, which MLflow stores as a pickle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        class Doubles(pyfunc.PythonModel):
            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
                return model_input["a"] * 2

        pyfunc.save_model(
            folder / "model", python_model=Doubles(), signature=infer_signature(FRAME), pip_requirements=["numpy"]
        )
    return folder


def own_loader(folder: Path) -> Path:
    """Save a model that a module of its own loads from a pickle."""
    code = folder.with_name("own_loader_of_test.py")
    code.write_text(
        "import pathlib, pickle\n\n\n"
        "class Loaded:\n    def __init__(self, factor):\n        self.factor = factor\n\n"
        "    def predict(self, data, params=None):\n        return data['a'] * self.factor\n\n\n"
        "def _load_pyfunc(path):\n    return Loaded(pickle.loads(pathlib.Path(path).read_bytes()))\n"
    )
    data = folder.with_name("factor.pkl")
    data.write_bytes(pickle.dumps(np.float64(2.0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import pyfunc

        pyfunc.save_model(
            folder / "model", loader_module="own_loader_of_test", data_path=str(data), code_paths=[str(code)],
            signature=infer_signature(FRAME), pip_requirements=["numpy"],
        )  # fmt: skip
    return folder


def pickled(folder: Path, serialization_format: str = "cloudpickle") -> Path:
    fitted = LogisticRegression().fit(FRAME, CLASSES)
    return save_version(folder, fitted, FRAME, serialization_format=serialization_format, skops_trusted_types=None)


def answers(model: ServedModel) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = model.predict(Batch(2, list(ROWS)))
    return (given.to_rows() or []) if isinstance(given, Answer) else list(given)


@pytest.mark.parametrize("stored", ["pickle", "cloudpickle"])
@pytest.mark.parametrize(("settings", "engine"), [(TRUSTING, "linear"), (UNCOMPILED, "sklearn")])
def test_a_trusted_pickle_of_scikit_learn_serves_with_every_engine(
    tmp_path: Path, stored: str, settings: PreparationSettings, engine: str
) -> None:
    with served(pickled(tmp_path / "1", stored), settings) as model:
        assert model.engine.name == engine
        assert "pickle is trusted: the model is stored as mlflow.sklearn with" in model.engine_note
        expected = LogisticRegression().fit(FRAME, CLASSES).predict_proba(pd.DataFrame(ROWS, columns=["a", "b"]))[:, 1]
        np.testing.assert_allclose(answers(model), expected, atol=1e-12)


@pytest.mark.parametrize("make", [python_model, own_loader])
def test_other_trusted_pickles_serve(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "1")
    with pytest.raises(UnfitError, match="pickle") as refused:
        prepared(folder)
    assert all(way in str(refused.value) for way in WAYS)
    with served(folder, TRUSTING) as model:
        assert model.engine.name == "pyfunc"
        assert "pickle is trusted" in model.engine_note
        assert answers(model) == [0.5, -4.0]


def test_a_refused_pickle_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(UnfitError, match="with cloudpickle, which may hold a pickle") as refused:
        prepared(pickled(tmp_path / "1"))
    assert all(way in str(refused.value) for way in WAYS)
    assert "scikit-learn models" not in str(refused.value)  # it is one


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"loader_module": "mlflow.statsmodels"}, "loaded by mlflow.statsmodels, which may read a pickle"),
        ({"loader_module": "mlflow.pytorch"}, "loaded by mlflow.pytorch, which may read a pickle"),
        ({"loader_module": "own_module"}, "loaded by own_module, which may read a pickle"),
        ({"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"}, "stored as a pickle (python_mo"),
    ],
)
def test_every_loader_that_may_unpickle_is_trusted_or_refused(tmp_path: Path, changes: Any, reason: str) -> None:
    folder = save_version(tmp_path / "1", LogisticRegression().fit(FRAME, CLASSES), FRAME)
    file = folder / "model" / "MLmodel"
    described = yaml.safe_load(file.read_text())
    described["flavors"]["python_function"] |= changes
    file.write_text(yaml.safe_dump(described))
    mlmodel = MLmodel.read(folder / "model")
    with pytest.raises(UnfitError) as refused:
        mlmodel.check()
    assert reason in str(refused.value)
    assert all(way in str(refused.value) for way in WAYS)
    mlmodel.check(["pickle"])


@pytest.mark.parametrize(
    ("loader", "flavor", "trusting"),
    [
        ("mlflow.lightgbm", {"model_class": "lightgbm.sklearn.LGBMClassifier"}, True),
        ("mlflow.lightgbm", {"model_class": "lightgbm.basic.Booster"}, False),
        ("mlflow.xgboost", {"model_class": "own.Wrapper"}, True),
        ("mlflow.xgboost", {"model_class": "xgboost.sklearn.XGBClassifier"}, False),
        ("mlflow.catboost", {}, False),
        ("mlflow.onnx", {}, False),
    ],
)
def test_only_formats_that_hold_a_pickle_need_trust(
    tmp_path: Path, loader: str, flavor: dict[str, Any], trusting: bool
) -> None:
    flavors = {"python_function": {"loader_module": loader}, loader.removeprefix("mlflow."): flavor}
    mlmodel = MLmodel(tmp_path, flavors, {}, {})
    assert (mlmodel.pickle_reason() is not None) is trusting
    mlmodel.check(["pickle"])


def test_trust_covers_neither_other_files_nor_types_that_run_code(tmp_path: Path) -> None:
    def model(**flavor: Any) -> MLmodel:
        function = {"loader_module": "mlflow.sklearn", "model_path": flavor.pop("path", "model.skops")}
        return MLmodel(tmp_path, {"python_function": function, "sklearn": flavor}, {}, {})

    model(serialization_format="skops").check(["pickle"])
    with pytest.raises(UnfitError, match="outside the model's folder"):
        model(serialization_format="pickle", path="../../elsewhere.pkl").check(["pickle"])
    with pytest.raises(UnfitError, match="can run any code"):
        model(serialization_format="skops", skops_trusted_types=["os.system"]).check(["pickle"])


def test_trust_is_the_permission_to_run_code(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "1")
    trap = tmp_path / "sprung"
    (folder / "model" / "model.pkl").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(UnfitError):
        prepared(folder)
    assert not trap.exists()
    with pytest.raises(Exception, match="predict"):
        prepared(folder, TRUSTING)
    assert trap.exists()


def test_what_was_prepared_with_trust_does_not_serve_without_it(tmp_path: Path) -> None:
    folder = pickled(tmp_path / "1")
    prepared(folder, UNCOMPILED).close()
    plain = PreparationSettings(CompileSettings(engines=[]))
    assert fingerprint(folder, UNCOMPILED) != fingerprint(folder, plain)
    with pytest.raises(UnfitError, match="pickle"):
        load(info_of(folder), folder, plain)


@pytest.mark.parametrize(("trust", "switch"), [((), "false"), (["pickle"], "true")])
def test_mlflow_itself_unpickles_only_with_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trust: list[str], switch: str
) -> None:
    mlmodel = MLmodel(tmp_path, {"python_function": {"loader_module": "mlflow.pyfunc.model"}}, {}, {})
    monkeypatch.setenv(PICKLE_SWITCH, "as before")
    with limit_pickle(mlmodel, trust):
        assert os.environ[PICKLE_SWITCH] == switch
    assert os.environ[PICKLE_SWITCH] == "as before"


def test_trust_is_one_word_everywhere_and_off_by_default(tmp_path: Path) -> None:
    listen = ListenSettings(port=1, token_file=Path("key"))
    settings = ServingSettings(listen=listen, model="m", path=tmp_path, cache=tmp_path)
    assert (settings.trust, ServeConfig().trust) == ([], [])
    assert ServeConfig.model_validate({"trust": ["pickle"]}).trust == ["pickle"]
    for model in (ServeConfig, ServingSettings):
        with pytest.raises(ValueError, match="pickle"):
            model.model_validate({"trust": ["everything"]})


def test_the_switch_is_for_one_version_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two versions load in threads of their own; the second waits, and the switch is as before at the end."""
    monkeypatch.delenv(PICKLE_SWITCH, raising=False)
    model = MLmodel(tmp_path, {"python_function": {"loader_module": "mlflow.sklearn"}}, {}, {})
    seen: list[str] = []
    entered = threading.Event()

    def load_second() -> None:
        with limit_pickle(model):
            seen.append(os.environ[PICKLE_SWITCH])
            entered.set()

    second = threading.Thread(target=load_second)
    with limit_pickle(model, ["pickle"]):
        second.start()
        assert not entered.wait(0.5)
        assert os.environ[PICKLE_SWITCH] == "true"
    second.join()
    assert seen == ["false"]
    assert PICKLE_SWITCH not in os.environ
