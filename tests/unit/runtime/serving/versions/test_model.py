"""Loading a version: its own code, never a pickle, and an answer before it may serve."""

from __future__ import annotations

import importlib
import io
import json
import math
import os
import pickle
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.tree import DecisionTreeClassifier
from tidemill.runtime.serving.codecs.answer_columns import arrow_array
from tidemill.runtime.serving.engines.errors import TemporaryError, UnfitError
from tidemill.runtime.serving.engines.mlmodel import MLmodel
from tidemill.runtime.serving.engines.outputs import Answer
from tidemill.runtime.serving.engines.prepared import Prepared
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.versions.model import ServedModel, load
from tidemill.runtime.serving.versions.preparation import ensure_prepared, output_name

from tests.support.versions import info_of, prepared, rows_of, save_version, served, wanted

FRAME = pd.DataFrame({"a": np.linspace(-1.0, 1.0, 40), "b": np.tile([0.5, 1.5], 20)})
ROWS = [(0.25, 1.0), (-2.0, 0.0)]
CLASSES = np.arange(40) % 2


def answers(model: ServedModel, rows: list[tuple[Any, ...]] = ROWS) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = rows_of(model.predict(Batch(len(rows), rows)))
    return given.tolist() if isinstance(given, np.ndarray) else given


def from_code(folder: Path, code: str, example: Any, **options: Any) -> Path:
    """Save the Python file `code`, which sets a model, as the version in `folder`."""
    script = folder.with_suffix(".py")
    script.write_text(code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            folder / "model",
            python_model=str(script),
            **{
                "input_example": None,
                "signature": None if example is None else infer_signature(example),
                "pip_requirements": ["numpy"],
                **options,
            },
        )
    return folder


PYTHON_MODEL = """
import mlflow, pandas as pd
from mlflow.pyfunc import PythonModel

class Model(PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        {body}

mlflow.models.set_model(Model())
"""


@pytest.mark.parametrize(("classes", "output"), [(2, "score"), (3, "scores")])
@pytest.mark.parametrize("engines", [None, []], ids=["compiled", "itself"])
def test_classifiers_give_probabilities(tmp_path: Path, classes: int, output: str, engines: Any) -> None:
    fitted = LogisticRegression().fit(FRAME, np.arange(40) % classes)
    with served(save_version(tmp_path / "1", fitted, FRAME), wanted(engines)) as model:
        probabilities = fitted.predict_proba(pd.DataFrame(ROWS, columns=["a", "b"]))
        assert model.output == output
        assert model.output_type.field(0).type == (pa.float64() if output == "score" else pa.list_(pa.float64()))
        assert np.allclose(answers(model), probabilities[:, 1] if output == "score" else probabilities)
        assert model.example[0].keys() == {"a", "b"}


def test_other_models_give_predictions(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(FRAME, FRAME["a"] * 2)
    with served(save_version(tmp_path / "1", fitted, FRAME, method="predict")) as model:
        assert model.output == "prediction"
        assert model.output_type == pa.struct([("prediction", pa.float64())])
        assert answers(model) == pytest.approx([0.5, -4.0])


def test_the_reference_sample_comes_before_the_example(tmp_path: Path) -> None:
    folder = save_version(tmp_path / "1", LinearRegression().fit(FRAME, FRAME["a"]), FRAME, method="predict")
    reference = pa.table({"prediction": [0.0, 0.0], "b": [7.0, 8.0], "a": [5.0, 6.0]})
    pq.write_table(reference, folder / "reference_sample.parquet")
    with served(folder) as model:
        assert model.example == [{"a": 5.0, "b": 7.0}, {"a": 6.0, "b": 8.0}]


def test_a_model_without_an_example_is_tried_with_rows_which_are_made_up(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(FRAME, FRAME["a"])
    with served(save_version(tmp_path / "1", fitted, FRAME, method="predict", input_example=None)) as model:
        assert model.engine.name == "linear"
        assert len(model.example) == 1


def test_each_version_runs_the_code_it_came_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[ServedModel] = []
    path = list(sys.path)
    for factor in (1, 3):
        source = tmp_path / f"source{factor}"
        source.mkdir()
        (source / "own_features.py").write_text(f"def scale(frame):\n    return frame * {factor}\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(source)
            patch.delitem(sys.modules, "own_features", raising=False)
            scale = importlib.import_module("own_features").scale
            model = make_pipeline(FunctionTransformer(scale), LinearRegression())
            model.fit(FRAME, FRAME["a"])
            # Fitted alike, so that only the code differs.
            model[-1].coef_, model[-1].intercept_ = np.array([1.0, 0.0]), 0.0
            folder = save_version(
                tmp_path / "cache" / str(factor),
                model,
                FRAME,
                method="predict",
                code_paths=[str(source / "own_features.py")],
                skops_trusted_types=["own_features.scale"],
            )
            del sys.modules["own_features"]
        models.append(prepared(folder))
    try:
        assert [answers(model)[0] for model in models] == pytest.approx([0.25, 0.75])
        # One which fails leaves things as they were.
        broken = tmp_path / "cache" / "9"
        shutil.copytree(tmp_path / "cache" / "1", broken)
        (broken / "model" / "code" / "own_features.py").write_text("raise RuntimeError('broken')\n")
        seen = sys.modules["own_features"], list(sys.path)
        with pytest.raises(Exception, match="broken"):
            prepared(broken)
        assert (sys.modules["own_features"], sys.path) == seen
    finally:
        sys.path[:] = path
        sys.modules.pop("own_features", None)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.file),)


def plant(folder: Path, trap: bytes) -> None:
    """Put a pickle wherever a model may be read from."""
    for path in (folder / "model").glob("*.skops"):
        path.write_bytes(trap)
    for name in ("python_model.pkl", "model.pkl", "model.joblib", "artifacts.pkl", "custom_objects.cloudpickle"):
        (folder / "model" / name).write_bytes(trap)


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda _: None,
    lambda flavors: flavors["sklearn"].update(serialization_format="cloudpickle"),
    lambda flavors: flavors["sklearn"].update(serialization_format="pickle"),
    lambda flavors: flavors["sklearn"].pop("serialization_format"),
    lambda flavors: flavors["python_function"].update(model_path="model.pkl"),
    lambda flavors: flavors["python_function"].update(loader_module="mlflow.pyfunc.model", python_model="model.pkl"),
    lambda flavors: flavors["python_function"].update(loader_module="mlflow.pyfunc.model"),
    lambda flavors: flavors["python_function"].update(
        loader_module="mlflow.pyfunc.loaders.code_model", model_code_path="x.py", python_model="python_model.pkl"
    ),
    lambda flavors: flavors["python_function"].update(loader_module="mlflow.statsmodels", data="model.pkl"),
    lambda flavors: flavors["python_function"].update(loader_module="mlflow.pytorch", data="."),
    lambda flavors: flavors["python_function"].update(loader_module="joblib"),
    lambda flavors: (
        flavors["python_function"].update(loader_module="mlflow.lightgbm", data="model.pkl")
        or flavors.update(lightgbm={"model_class": "lightgbm.sklearn.LGBMClassifier", "data": "model.pkl"})
    ),
    lambda flavors: (
        flavors["python_function"].update(loader_module="mlflow.xgboost", data="model.pkl")
        or flavors.update(xgboost={"model_class": "joblib.load", "data": "model.pkl"})
    ),
    lambda flavors: flavors.pop("python_function"),
    lambda flavors: flavors["python_function"].update(model_path="../../elsewhere.skops"),
]


@pytest.mark.parametrize("change", CHANGES, ids=range(len(CHANGES)))
def test_nothing_is_unpickled(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    folder = save_version(tmp_path / "1", LogisticRegression().fit(FRAME, CLASSES), FRAME)
    plant(folder, pickle.dumps(Trap(tmp_path / "sprung")))
    (tmp_path / "elsewhere.skops").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    file = folder / "model" / "MLmodel"
    described = yaml.safe_load(file.read_text())
    change(described["flavors"])
    file.write_text(yaml.safe_dump(described))
    with pytest.raises((UnfitError, zipfile.BadZipFile)):
        prepared(folder)
    assert not (tmp_path / "sprung").exists()
    # It would have gone off.
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # noqa: S301
    assert (tmp_path / "sprung").exists()


def test_skops_makes_nothing_which_nobody_trusts(tmp_path: Path) -> None:
    import skops.io

    folder = save_version(tmp_path / "1", LogisticRegression().fit(FRAME, CLASSES), FRAME)
    (folder / "model" / "model.skops").write_bytes(
        skops.io.dumps(make_pipeline(FunctionTransformer(os.mkdir), LogisticRegression()))
    )
    with pytest.raises(Exception, match="mkdir"):
        prepared(folder)
    # A pickle inside of the archive is never looked at.
    whole = folder / "model" / "model.skops"
    whole.write_bytes(skops.io.dumps(LogisticRegression().fit(FRAME, CLASSES)))
    with zipfile.ZipFile(whole, "a") as archive:
        for name in ("model.pkl", "0.pkl", "data.pkl"):
            archive.writestr(name, pickle.dumps(Trap(tmp_path / "sprung")))
    prepared(folder).close()
    # An array in it which is a pickle is refused.
    content = io.BytesIO()
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(content, "w") as changed:
        for name in archive.namelist():
            trapped = io.BytesIO()
            np.save(trapped, np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
            changed.writestr(name, trapped.getvalue() if name.endswith(".npy") else archive.read(name))
    whole.write_bytes(content.getvalue())
    with pytest.raises(ValueError, match="allow_pickle=False"):
        prepared(folder)
    assert not (tmp_path / "sprung").exists()


def test_a_model_does_not_unpack_to_far_more_than_its_size(tmp_path: Path) -> None:
    folder = save_version(tmp_path / "1", LogisticRegression().fit(FRAME, CLASSES), FRAME)
    with zipfile.ZipFile(folder / "model" / "more.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"0" * 100_000)
        archive.infolist()[0].file_size = 2**31  # what the archive says when it is closed
    with pytest.raises(UnfitError, match=r"more\.zip unpacks to 2147483648 bytes"):
        prepared(folder)


@pytest.mark.parametrize("damage", ["version", "directory"])
def test_a_damaged_archive_of_a_model_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    folder = save_version(tmp_path / "1", LogisticRegression().fit(FRAME, CLASSES), FRAME)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("part", b"content")
    damaged = bytearray(content.getvalue())
    if damage == "version":  # of the format that one needs to unpack it
        damaged[damaged.index(b"PK\x01\x02") + 6] = 255
    else:  # its size
        damaged[-10:-6] = b"\xff\xff\xff\x00"
    (folder / "model" / "more.zip").write_bytes(damaged)
    with pytest.raises(UnfitError, match=r"more\.zip is a damaged zip archive \(.+\); log the model again"):
        MLmodel.read(folder / "model").check()


@pytest.mark.parametrize("name", ["os.system", "posix.system", "builtins.eval", "subprocess.Popen", "pickle.loads"])
def test_a_model_cannot_have_everything_trusted(tmp_path: Path, name: str) -> None:
    folder = save_version(tmp_path / "1", LogisticRegression().fit(FRAME, CLASSES), FRAME)
    file = folder / "model" / "MLmodel"
    described = yaml.safe_load(file.read_text())
    described["flavors"]["sklearn"]["skops_trusted_types"] = [name]
    file.write_text(yaml.safe_dump(described))
    with pytest.raises(UnfitError, match="can run any code"):
        MLmodel.read(folder / "model").check()


@pytest.mark.parametrize("engines", [None, []], ids=["compiled", "itself"])
def test_a_model_that_answers_nan_serves(tmp_path: Path, engines: Any) -> None:
    fitted = LinearRegression().fit(FRAME, FRAME["a"])
    fitted.coef_ = np.array([np.nan, 0.0])
    with served(save_version(tmp_path / "1", fitted, FRAME, method="predict"), wanted(engines)) as model:
        assert np.isnan(answers(model)).all()
        assert not model.by_request


def test_a_folder_without_a_signature_or_a_model_does_not_serve(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(FRAME, FRAME["a"])
    with pytest.raises(UnfitError, match="signature"):
        prepared(save_version(tmp_path / "2", fitted, FRAME, method="predict", signature=False, input_example=None))
    with pytest.raises(UnfitError, match="no MLmodel file"):
        prepared(tmp_path / "3")


def test_what_cannot_be_read_is_taken_as_absent(tmp_path: Path) -> None:
    folder = save_version(tmp_path / "1", LinearRegression().fit(FRAME, FRAME["a"]), FRAME, method="predict")
    prepared(folder).close()
    for text in ("{", "[]", "{}", json.dumps({"contract": 1})):
        (folder / "prepared.json").write_text(text)
        assert Prepared.read(folder) is None
    with pytest.raises(UnfitError, match="not prepared"):
        load(info_of(folder), folder, wanted())


def test_models_from_code_may_give_what_they_like(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0], "when": pd.to_datetime(["2020-01-01", "2021-01-01"]), "text": ["a", "b"]})
    body = (
        "return pd.DataFrame({'twice': model_input['n'] * 2, 'year': model_input['when'].dt.year.astype('Int64'),"
        " 'text': model_input['text'].str.upper(), 'when': model_input['when']})"
    )
    folder = from_code(tmp_path / "1", PYTHON_MODEL.format(body=body), frame)
    with served(folder) as model:
        assert model.engine.name == "pyfunc"
        assert not model.engine.mergeable
        assert "batch.rows_independent: true" in model.merging_note
        moment = pd.Timestamp("2022-02-02", tz="UTC").to_pydatetime()
        expected = {"twice": 6.0, "year": 2022, "text": "X", "when": "2022-02-02T00:00:00"}
        assert answers(model, [(3.0, moment, "x")]) == [expected]
        assert str(model.output_type.field(0).type) == "struct<twice: double, year: int64, text: string, when: string>"
        assert (model.form, model.by_request) == ("frame", False)
        assert [(each["name"], each["datatype"], each["shape"]) for each in model.tensors] == [
            ("twice", "FP64", [-1]),
            ("year", "INT64", [-1]),
            ("text", "BYTES", [-1]),
            ("when", "BYTES", [-1]),
        ]
        assert "mlflow.pyfunc" in model.engine_note


DEPENDENT = (
    "return (model_input['n'] - model_input['n'].mean()).tolist()",
    "return [len(model_input)] * len(model_input)",
)


@pytest.mark.parametrize("body", [*DEPENDENT, "return (model_input['n'] * 2).tolist()"])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("example", [True, False])
def test_code_of_others_is_not_merged_by_default(tmp_path: Path, body: str, rows: int, example: bool) -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0]})
    given = {"input_example": frame[:rows]} if example else {}
    with served(from_code(tmp_path / "1", PYTHON_MODEL.format(body=body), frame, **given)) as model:
        assert not model.engine.mergeable
        assert not model.rows_independent
        assert model.merging_note.startswith("requests are not merged: ")


@pytest.mark.parametrize("setting", [None, True, False])
@pytest.mark.parametrize("declared", [None, True, False])
def test_what_is_declared_decides(tmp_path: Path, setting: bool | None, declared: bool | None) -> None:
    code = PYTHON_MODEL.format(body="return (model_input['n'] * 2).tolist()")
    metadata = {} if declared is None else {"tidemill.rows_independent": declared}
    folder = from_code(tmp_path / "1", code, pd.DataFrame({"n": [1.0, 2.0]}), metadata=metadata)
    prepared(folder).close()
    model = load(info_of(folder), folder, wanted(), rows_independent=setting)
    merged = declared is True if setting is None else setting
    assert (model.engine.mergeable, model.rows_independent) == (merged, merged)
    assert bool(model.merging_note) != merged
    if setting is False or (setting is None and declared is False):
        assert "declares" in model.merging_note
    model.close()


@pytest.mark.parametrize("body", DEPENDENT)
def test_what_contradicts_a_declaration_is_said(tmp_path: Path, body: str) -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0]})
    folder = from_code(tmp_path / "1", PYTHON_MODEL.format(body=body), frame, input_example=frame)
    prepared(folder).close()
    model = load(info_of(folder), folder, wanted(), rows_independent=True)
    assert model.engine.mergeable
    assert "although its output for a row of its sample depends on the other rows" in model.merging_note
    model.close()


def test_a_known_model_can_be_declared_dependent(tmp_path: Path) -> None:
    folder = save_version(tmp_path / "1", LogisticRegression().fit(FRAME, CLASSES), FRAME)
    prepared(folder).close()
    for setting, merged in ((None, True), (False, False)):
        model = load(info_of(folder), folder, wanted(), rows_independent=setting)
        assert model.engine.mergeable is merged
        model.close()


def test_a_function_in_a_pipeline_is_not_known(tmp_path: Path) -> None:
    frame = FRAME.abs() + 1
    fitted = make_pipeline(FunctionTransformer(np.log1p), LinearRegression()).fit(frame, FRAME["a"])
    with served(save_version(tmp_path / "1", fitted, frame, method="predict")) as model:
        assert not model.engine.mergeable
        assert "log1p" in model.merging_note


@pytest.mark.parametrize(
    ("body", "value", "example"),
    [
        ("return [1.0, 2.0, 3.0]", [1.0, 2.0, 3.0], 2),
        # The counts agree by chance for the example, for one row, or for three.
        ("return [1.0, 2.0, 3.0]", [1.0, 2.0, 3.0], 3),
        ("return [1.0]", [1.0], 1),
        ("return float(len(model_input))", None, 1),
        ("return model_input['n'].tolist()[:2]", [0.5, -2.0], 2),
        ("return {'low': [1.0], 'high': [2.0]}", {"low": [1.0], "high": [2.0]}, 1),
        ("return []", [], 2),
    ],
)
def test_a_model_which_gives_another_number_of_rows_answers_by_request(
    tmp_path: Path, body: str, value: Any, example: int
) -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0, 3.0]}).head(example)
    folder = from_code(tmp_path / "1", PYTHON_MODEL.format(body=body), frame, input_example=frame)
    with served(folder) as model:
        assert (model.by_request, model.engine.mergeable) == (True, False)
        assert "an answer does not have one value for each row" in model.merging_note
        for rows in ([(0.5,), (-2.0,)], [(0.5,), (-2.0,), (1.0,)]):
            answer = model.predict(Batch(len(rows), rows))
            assert isinstance(answer, Answer)
            assert answer.to_rows() is None
            assert answer.to_mlflow() == (value if value is not None else float(len(rows)))
        assert str(model.output_type.field(0).type) == "string"


def test_arrays_of_targets_and_of_rows_are_told_apart(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1.0, 2.0]})
    of_rows = PYTHON_MODEL.format(body="import numpy as np; return [np.full((3, 2), v) for v in model_input['n']]")
    of_targets = PYTHON_MODEL.format(
        body="import numpy as np; return [np.full((len(model_input), 2), t + 0.5) for t in range(3)]"
    )
    with served(from_code(tmp_path / "1", of_rows, frame, input_example=frame)) as model:
        assert model.form == ""
        # By chance, each of the three arrays has as many rows as the request.
        assert answers(model, [(1.0,), (2.0,), (3.0,)]) == [
            np.full((3, 2), value).tolist() for value in (1.0, 2.0, 3.0)
        ]
    with served(from_code(tmp_path / "2", of_targets, frame, input_example=frame)) as model:
        assert model.form == "targets"
        assert answers(model, [(1.0,), (2.0,), (3.0,)]) == [[[0.5, 0.5], [1.5, 1.5], [2.5, 2.5]]] * 3


def test_an_object_that_is_no_answer_is_refused_with_its_name(tmp_path: Path) -> None:
    body = "return (value for value in model_input['n'])"
    frame = pd.DataFrame({"n": [1.0, 2.0]})
    folder = from_code(tmp_path / "1", PYTHON_MODEL.format(body=body), frame, input_example=frame)
    with pytest.raises(UnfitError, match=r"the model returned a generator, .*; return a list"):
        prepared(folder)


# Models that refuse rows that nobody would send.
PICKY = {
    "log": "import math; return [math.log(value) for value in model_input['n']]",
    "look-up": "return [{1.5: 2.0}[value] for value in model_input['n']]",
    "two rows": "assert len(model_input) == 2 and model_input['n'].min() > 1; return model_input['n'].tolist()",
    "text": "return ['low' if {1.5: True}[value] else 'high' for value in model_input['n']]",
    "not finite": "import numpy as np; return np.where(model_input['n'] == 1.5, 2.0, np.nan)",
    "exits": "import sys; return [2.0] if model_input['n'].tolist() == [1.5] else sys.exit(3)",
}


@pytest.mark.parametrize("name", PICKY)
def test_rows_that_are_invented_do_not_decide_whether_a_model_serves(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame({"n": [1.5, 1.5]})
    folder = from_code(tmp_path / "1", PYTHON_MODEL.format(body=PICKY[name]), frame)
    with served(folder) as model:
        assert not model.engine.mergeable
        rows = [(1.5,), (1.5,)] if name == "two rows" else [(1.5,)]
        expected = {"log": [math.log(1.5)], "two rows": [1.5, 1.5], "text": ["low"]}.get(name, [2.0])
        assert model.answered == (name in ("log", "not finite"))
        assert model.by_request is not model.answered
        if model.by_request:
            answer = model.predict(Batch(len(rows), rows))
            assert isinstance(answer, Answer)
            assert answer.rows is None
            assert answer.to_mlflow() == expected
            assert "refused the rows that tidemill made up" in model.merging_note
        else:
            assert answers(model, rows) == expected
        assert model.example
        field = model.output_type.field(0)
        assert field.name == "prediction"
        if name not in ("not finite", "log"):
            # Any answer can be kept as text.
            assert field.type == pa.string()
            assert arrow_array([{"any": [1]}, 2.0], field.type).to_pylist() == ['{"any": [1]}', "2.0"]


FORECAST = "[{'EUR': 1}[each] for each in model_input['currency']]; return [0.5] * 5"
LOOK_UP = "return [{'EUR': 1.5}[each] for each in model_input['currency']]"


@pytest.mark.parametrize(("body", "by_request"), [(FORECAST, True), (LOOK_UP, False)])
def test_a_model_that_refuses_invented_rows_learns_from_rows_of_data(
    tmp_path: Path, body: str, by_request: bool
) -> None:
    """A forecast of five steps agrees with five rows by chance."""
    folder = from_code(tmp_path / "1", PYTHON_MODEL.format(body=body), pd.DataFrame({"currency": ["EUR"]}))
    with served(folder) as model:
        rows: list[tuple[Any, ...]] = [("EUR",)] * 5
        batch = Batch(5, model.contract.to_record_batch(Batch(5, rows)))
        for given in (batch, Batch(5, rows)):
            answer = model.predict(given)
            assert isinstance(answer, Answer)
            assert answer.rows is None
        learnt = model.predict_and_learn(batch)
        assert model.by_request is by_request
        assert rows_of(learnt) == (None if by_request else [1.5] * 5)
    if not by_request:
        with closing(load(info_of(folder), folder, wanted(), rows_independent=True)) as declared:
            assert rows_of(declared.predict(batch)) == [1.5] * 5


@pytest.mark.parametrize("kind", ["double", "long", "string", "boolean"])
def test_the_type_of_unknown_answers_is_that_of_the_signature(tmp_path: Path, kind: str) -> None:
    signature = ModelSignature(Schema([ColSpec("double", "n")]), Schema([ColSpec(kind)]))
    code = PYTHON_MODEL.format(body="return [{1.5: None}[value] for value in model_input['n']]")
    with served(from_code(tmp_path / "1", code, None, signature=signature)) as model:
        expected = {"double": pa.float64(), "long": pa.int64(), "string": pa.string(), "boolean": pa.bool_()}
        assert model.output_type.field(0).type == expected[kind]


@pytest.mark.parametrize(("classes", "output"), [(2, "score"), (3, "scores")])
def test_the_name_of_probabilities_does_not_depend_on_invented_rows(tmp_path: Path, classes: int, output: str) -> None:
    """An encoder that refuses unknown categories refuses every invented row."""
    frame = pd.DataFrame({"currency": np.tile(["EUR", "USD"], 20)})
    fitted = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, np.arange(40) % classes)
    with served(save_version(tmp_path / "1", fitted, frame, input_example=None)) as model:
        assert model.output == output
        assert "has no example" in model.engine_note
        # The method answers by row.
        assert (model.answered, model.by_request) == (False, False)
        assert len(answers(model, [("EUR",), ("USD",)])) == 2


@pytest.mark.parametrize(
    ("shape", "estimator", "given", "output"),
    [
        ((-1, 2), None, None, "score"),
        ((-1, 3), None, None, "scores"),
        ((-1, -1), None, None, "prediction"),
        (None, None, None, "prediction"),
        (None, None, np.zeros((1, 2)), "score"),
        (None, None, np.zeros((1, 3)), "scores"),
        (None, None, [1], "prediction"),
        (None, LogisticRegression().fit(FRAME, CLASSES), None, "score"),
        (None, LogisticRegression().fit(FRAME, np.arange(40) % 3), None, "scores"),
    ],
)
def test_the_name_of_probabilities(tmp_path: Path, shape: Any, estimator: Any, given: Any, output: str) -> None:
    spec = {"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": shape}}
    signature = {"outputs": json.dumps([spec])} if shape else {}
    function = {"loader_module": "mlflow.sklearn", "predict_fn": "predict_proba"}
    assert output_name(MLmodel(tmp_path, {"python_function": function}, signature, {}), estimator, given) == output
    other = MLmodel(tmp_path, {"python_function": {**function, "predict_fn": "predict"}}, signature, {})
    assert output_name(other, estimator, given) == "prediction"


def test_logarithms_of_probabilities_serve_without_an_example(tmp_path: Path) -> None:
    fitted = DecisionTreeClassifier(max_depth=1).fit(FRAME, CLASSES)
    options = {"method": "predict_log_proba", "input_example": None}
    with served(save_version(tmp_path / "1", fitted, FRAME, **options)) as model, np.errstate(divide="ignore"):
        assert model.output == "prediction"
        assert len(answers(model)) == 2


def test_an_example_that_fails_is_still_a_refusal(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1.0]})
    code = PYTHON_MODEL.format(body="raise ZeroDivisionError('no such price')")
    with pytest.raises(UnfitError, match=r"own example \(ZeroDivisionError: no such price"):
        prepared(from_code(tmp_path / "1", code, frame, input_example=frame))


@pytest.mark.parametrize("body", ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_a_process_that_ends_with_invented_rows_is_tried_without(tmp_path: Path, body: str) -> None:
    folder = from_code(tmp_path / "1", PYTHON_MODEL.format(body=body), pd.DataFrame({"n": [1.0]}))
    ensure_prepared(folder, info_of(folder), wanted())
    found = Prepared.read(folder)
    assert found is not None
    assert not found.has_example
    assert found.warm_rows(folder).num_rows == 0
    assert not list(folder.glob(".invented*"))


def test_a_model_with_parameters_can_be_merged(tmp_path: Path) -> None:
    code = PYTHON_MODEL.format(body="return model_input['n'].tolist()")
    frame = pd.DataFrame({"n": [1.0, 2.0]})
    folder = from_code(tmp_path / "1", code, frame, signature=infer_signature(frame, params={"depth": 3}))
    prepared(folder).close()
    model = load(info_of(folder), folder, wanted(), rows_independent=True)
    assert model.engine.mergeable
    model.close()


def test_tensors_go_in_and_out(tmp_path: Path) -> None:
    code = PYTHON_MODEL.format(body="return {'sum': model_input.sum(axis=(1, 2)), 'first': model_input[:, 0]}")
    folder = from_code(tmp_path / "1", code, np.zeros((2, 2, 3), dtype=np.float32))
    with served(folder) as model:
        row = (np.arange(6, dtype=np.float32).reshape(2, 3),)
        assert answers(model, [row]) == [{"sum": 15.0, "first": [0.0, 1.0, 2.0]}]
        assert [(each["name"], each["shape"]) for each in model.tensors] == [("sum", [-1]), ("first", [-1, 3])]
        packed = model.contract.to_record_batch(Batch(2, [row, row]))
        assert len(model.predict(Batch(2, packed))) == 2


def boosted(library: str, folder: Path, classes: int) -> tuple[Path, Any]:
    """Save a booster of `library` as the version in `folder`; return it with what predicts frames."""
    module = importlib.import_module(library)
    target = np.arange(40) % classes
    frame = FRAME.where(FRAME["a"] < 0.9)
    if library == "lightgbm":
        kind = {"objective": "binary"} if classes == 2 else {"objective": "multiclass", "num_class": classes}
        fitted = module.train({**kind, "min_data_in_leaf": 2, "verbose": -1}, module.Dataset(frame, target), 5)
        predict = fitted.predict
    else:
        several = {"objective": "multi:softprob", "num_class": classes}
        fitted = module.train(
            {"objective": "binary:logistic"} if classes == 2 else several, module.DMatrix(frame, target), 5
        )

        def predict(asked: Any) -> Any:
            return fitted.predict(module.DMatrix(asked))

    flavor = importlib.import_module(f"mlflow.{library}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flavor.save_model(
            fitted,
            folder / "model",
            signature=infer_signature(FRAME, predict(FRAME)),
            input_example=FRAME.head(9),
            pip_requirements=[library if library == "lightgbm" else "numpy"],
        )
    return folder, predict


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_boosters_of_other_libraries_are_compiled(tmp_path: Path, library: str, classes: int) -> None:
    folder, predict = boosted(library, tmp_path / "1", classes)
    for engines in (["tl2cgen"], ["treelite"]):
        with served(folder, wanted(engines)) as model:
            assert model.engine.name == engines[0], model.engine_note
            assert np.allclose(answers(model), predict(pd.DataFrame(ROWS, columns=["a", "b"])), atol=1e-6)
    with served(folder, wanted([])) as model:
        assert model.engine.name == "pyfunc"
        assert np.allclose(answers(model), predict(pd.DataFrame(ROWS, columns=["a", "b"])), atol=1e-6)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("foo @ https://example.invalid/foo-1.0-py3-none-any.whl", "foo @ https://example.invalid"),
        ("-r ../other.txt", "outside the model's folder"),
        ("no-such-package-of-tidemill==1.0", "cannot be built"),
    ],
)
def test_requirements_that_can_never_be_built_are_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, why: str
) -> None:
    """A package index that does not answer may do so later."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    frame = pd.DataFrame({"n": [1.0]})
    code = PYTHON_MODEL.format(body="return model_input['n']")
    (tmp_path / "cache" / "m").mkdir(parents=True)
    folder = from_code(tmp_path / "cache" / "m" / "1", code, frame, input_example=frame)
    (folder / "model" / "requirements.txt").write_text(f"{line}\n")
    with pytest.raises(UnfitError, match=why) as error:
        prepared(folder)
    assert isinstance(error.value, TemporaryError) is line.startswith("no-such")
