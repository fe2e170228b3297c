"""Batch scoring with real models and real files: the model's own numbers, in constant memory, whole or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from tidemill.runtime import batch_scoring
from tidemill.runtime.batch_scoring import scorer
from tidemill.runtime.common.errors import NotFoundError, RefusedError, UserError
from tidemill.stacks.cli.app import run

from tests.support.saved import fitted, flights, save, table

pytestmark = [
    pytest.mark.integration,
    # Of SQLAlchemy, about how MLflow asks a database.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

LINEAGE = {
    "tidemill.git.commit": "a" * 40,
    "tidemill.git.dirty": "false",
    "tidemill.lake.repository": "flights",
    "tidemill.lake.commit": "b" * 64,
    "tidemill.lake.path": "departures",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "delays", fitted())


@pytest.fixture(autouse=True)
def place(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "MLFLOW_TRACKING")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TIDEMILL_CACHE", str(cache))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(rows: int, seed: int = 0) -> Any:
    """Return the probabilities which the model itself gives."""
    return fitted().predict_proba(flights(rows, seed).drop(columns="id"))[:, 1]


@pytest.mark.parametrize("compiled", [True, False])
def test_every_kind_of_file_gives_the_models_own_numbers(place: Path, folder: Path, compiled: bool) -> None:
    rows = table(1000)
    pq.write_table(rows, "in.parquet", row_group_size=300)
    pyarrow.csv.write_csv(rows, "in.csv")
    pyarrow.feather.write_feather(rows, "in.feather", chunksize=170)
    for name in ("in.parquet", "in.csv", "in.feather"):
        done = batch_scoring.score(
            str(folder), name, f"{name}.out.parquet", keep=["id"], compiled=compiled, overwrite=True
        )  # fmt: skip
        found = pq.read_table(f"{name}.out.parquet")
        assert (done.rows, done.files, done.columns) == (1000, 1, ("id", "score"))
        assert (done.engine in ("sklearn", "pyfunc")) is not compiled, done.engine_note
        assert found.column("id").to_pylist() == rows.column("id").to_pylist()
        assert found.schema.field("id").type == pa.string()
        np.testing.assert_allclose(found.column("score").to_numpy(), own(1000), rtol=0, atol=1e-9)


def test_folders_are_scored_in_order_and_all_columns_can_be_kept(place: Path, folder: Path) -> None:
    (place / "in").mkdir()
    pq.write_table(table(100, 1), "in/1.parquet")
    # The same columns in another order and of other types.
    other = table(50, 2).select(["carrier", "hour", "distance", "id"])
    other = other.set_column(1, "hour", other.column("hour").cast(pa.int32()))
    pq.write_table(other, "in/2.parquet", use_dictionary=["carrier"])
    seen: list[batch_scoring.Progress] = []
    done = batch_scoring.score(str(folder), "in", "out.arrow", keep="all", progress=seen.append)
    found = pyarrow.feather.read_table("out.arrow")
    assert done.files == 2
    assert found.schema.names == ["id", "distance", "hour", "carrier", "score"]
    assert found.drop_columns(["score"]).to_pylist() == table(100, 1).to_pylist() + table(50, 2).to_pylist()
    np.testing.assert_allclose(
        found.column("score").to_numpy(), np.concatenate([own(100, 1), own(50, 2)]), rtol=0, atol=1e-9
    )
    assert [progress.stage for progress in seen] == ["model", "rows", "rows", "publish"]
    assert (seen[-1].rows, seen[-1].files, seen[-1].total_files) == (150, 2, 2)


def test_several_classes_are_a_list_and_in_csv_a_column_each(place: Path) -> None:
    model = fitted(classes=3)
    where = save(place / "kinds", model)
    pq.write_table(table(40), "in.parquet")
    expected = model.predict_proba(flights(40).drop(columns="id"))
    for name in ("out.parquet", "out.csv"):
        batch_scoring.score(str(where), "in.parquet", name, keep=["id"])
    found = pq.read_table("out.parquet").column("scores").to_pylist()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    text = pd.read_csv("out.csv", dtype={"id": str})
    assert list(text.columns) == ["id", "scores_0", "scores_1", "scores_2"]
    assert text["id"].tolist() == flights(40)["id"].tolist()
    np.testing.assert_allclose(text[["scores_0", "scores_1", "scores_2"]], expected, rtol=0, atol=1e-6)


def test_a_matrix_is_the_columns_which_are_not_kept_and_an_answer_may_be_text(place: Path) -> None:
    from sklearn.linear_model import LogisticRegression

    frame = flights(60)
    matrix = frame[["distance", "hour"]].to_numpy()
    model = LogisticRegression(max_iter=5000).fit(matrix, np.where(frame["hour"] > 12, "late", "early"))
    where = save(place / "words", model, matrix[:5], method="predict")
    frame.drop(columns="carrier").to_csv("in.csv", index=False)
    done = batch_scoring.score(str(where), "in.csv", "out.csv", keep=["id"])
    found = pd.read_csv("out.csv", dtype=str)
    assert done.columns == ("id", "prediction")
    assert found["id"].tolist() == frame["id"].tolist()
    assert found["prediction"].tolist() == model.predict(matrix).tolist()
    assert set(found["prediction"]) == {"late", "early"}
    with pytest.raises(UserError, match="lacks the column input"):
        batch_scoring.score(str(where), "in.csv", "other.csv")


def test_no_rows_give_no_rows_and_the_same_columns(place: Path, folder: Path) -> None:
    for name in ("out.parquet", "out.csv", "out.arrow"):
        pq.write_table(table(3).slice(0, 0), "in.parquet")
        done = batch_scoring.score(str(folder), "in.parquet", name, keep=["hour"])
        assert (done.rows, done.columns) == (0, ("hour", "score"))
    assert pq.read_table("out.parquet").schema.types == [pa.int64(), pa.float64()]
    assert (place / "out.csv").read_text() == '"hour","score"\n'


def test_the_result_says_where_it_comes_from_and_is_the_same_each_time(place: Path, folder: Path) -> None:
    pq.write_table(table(200), "in.parquet")
    done = batch_scoring.score(str(folder), "in.parquet", "a.parquet")
    batch_scoring.score(str(folder), "in.parquet", "b.parquet")
    assert (place / "a.parquet").read_bytes() == (place / "b.parquet").read_bytes()
    kept = pq.read_schema("a.parquet").metadata
    told = {key.decode(): value.decode() for key, value in kept.items() if key.startswith(b"tidemill.")}
    assert told == done.lineage
    assert told["tidemill.model"] == "delays"
    assert told["tidemill.model.version"] == done.version
    assert told["tidemill.input"] == "in.parquet"
    assert told["tidemill.model.engine"] == done.engine


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda frame: frame.drop(columns="hour"), r"in.csv: lacks the column hour"),
        (lambda frame: frame.rename(columns={"hour": "Hour"}), r"is it Hour\?"),
        (lambda frame: frame.assign(hour=frame["hour"].astype(str).where(frame.index != 70_000, "noon")),
         r"in.csv, row 70001, column hour: expected an integer \(long\), got other text"),
        (lambda frame: frame.assign(carrier=frame["carrier"].where(frame.index != 5)),
         r"in.csv, row 6, column carrier: expected a string \(string\), got null"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_left(place: Path, folder: Path, change: Any, text: str) -> None:
    change(flights(70_100)).to_csv("in.csv", index=False)
    with pytest.raises(UserError, match=text):
        batch_scoring.score(str(folder), "in.csv", "out.parquet")
    assert sorted(path.name for path in place.iterdir()) == ["in.csv"]


def test_columns_to_keep_must_be_there_and_not_be_the_answers_own(place: Path, folder: Path) -> None:
    pq.write_table(table(3).append_column("score", pa.array([1, 2, 3])), "in.parquet")
    with pytest.raises(UserError, match=r"did you mean carrier\?"):
        batch_scoring.score(str(folder), "in.parquet", "out.parquet", keep=["carier"])
    with pytest.raises(UserError, match="the same name as the model's output"):
        batch_scoring.score(str(folder), "in.parquet", "out.parquet", keep="all")
    assert not (place / "out.parquet").exists()


def test_files_which_do_not_go_together_are_told_apart(place: Path, folder: Path) -> None:
    (place / "in").mkdir()
    pq.write_table(table(3), "in/1.parquet")
    for other, text in (
        (table(3).append_column("more", pa.array([1, 2, 3])), "in/2.parquet: has a column 'more'"),
        (table(3).set_column(0, "id", pa.array([[1]] * 3)), "in/2.parquet: the column id has another type"),
    ):
        pq.write_table(other, "in/2.parquet")
        with pytest.raises(UserError, match=text):
            batch_scoring.score(str(folder), "in", "out.parquet", keep="all")
    assert not (place / "out.parquet").exists()
    assert batch_scoring.score(str(folder), "in", "out.parquet", keep=["hour"]).rows == 6


def test_a_pickle_is_scored_only_with_trust(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(table(3), "in.parquet")
    folder = str(save(place / "pickled", fitted(), serialization_format="cloudpickle"))
    with pytest.raises(RefusedError, match="pickle"):
        batch_scoring.score(folder, "in.parquet", "out.parquet")
    assert run(["score", folder, "in.parquet", "out.parquet"]) == 1
    assert "--trust pickle" in capsys.readouterr().err
    assert not (place / "out.parquet").exists()
    assert run(["score", folder, "in.parquet", "out.parquet", "--trust", "pickle"]) == 0
    expected = fitted().predict_proba(flights(3).drop(columns="id"))[:, 1]
    np.testing.assert_allclose(pq.read_table("out.parquet")["score"].to_numpy(), expected)
    # What was prepared with trust is not read without it.
    assert run(["score", folder, "in.parquet", "again.parquet"]) == 1
    assert run(["score", folder, "in.parquet", "again.parquet", "--trust", "everything"]) == 2


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry in a database, with version 1 of `delays` as its champion."""
    import mlflow
    from mlflow.models import infer_signature

    place = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{place}/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("delays", artifact_location=str(place / "artifacts"))
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    example = flights(5).drop(columns="id")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mlflow.start_run(experiment_id=experiment):
            mlflow.sklearn.log_model(
                fitted(), name="model", signature=infer_signature(example, np.zeros((5, 2))), input_example=example,
                pyfunc_predict_fn="predict_proba", serialization_format="skops", registered_model_name="delays",
                pip_requirements=["scikit-learn"],
            )  # fmt: skip
    for key, value in LINEAGE.items():
        client.set_model_version_tag("delays", "1", key, value)
    client.set_registered_model_alias("delays", "champion", "1")
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])
    return uri


def test_a_version_of_a_registry_brings_its_lineage(place: Path, registry: str) -> None:
    pq.write_table(table(20), "in.parquet")
    done = batch_scoring.score("models:/delays@champion", "in.parquet", "out.parquet", tracking_uri=registry)
    assert (done.model, done.version) == ("delays", "1")
    assert done.run_id
    kept = pq.read_schema("out.parquet").metadata
    assert {key: kept[key.encode()].decode() for key in LINEAGE} == LINEAGE
    assert kept[b"tidemill.model.run_id"].decode() == done.run_id
    same = batch_scoring.score("models:/delays/1", "in.parquet", "again.parquet", tracking_uri=registry)
    assert same.lineage == done.lineage


def test_a_version_which_is_not_there_is_said(place: Path, registry: str) -> None:
    pq.write_table(table(3), "in.parquet")
    for uri, text in (
        ("models:/delays@newest", "no alias newest of delays"),
        ("models:/delays/7", "no version 7 of delays"),
        ("models:/boats/1", "no version 1 of boats"),
    ):
        with pytest.raises(NotFoundError, match=text):
            batch_scoring.score(uri, "in.parquet", "out.parquet", tracking_uri=registry)
    assert not (place / "out.parquet").exists()


def test_the_command_says_what_it_did(
    place: Path, folder: Path, registry: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(table(30), "in.parquet")
    code = run(["score", "models:/delays@champion", "in.parquet", "out.csv", "--keep", "id,hour", "--json",
                "--tracking-uri", registry])  # fmt: skip
    told = json.loads(capsys.readouterr().out)
    assert code == 0
    assert (told["rows"], told["columns"], told["version"]) == (30, ["id", "hour", "score"], "1")
    assert told["lineage"]["tidemill.lake.commit"] == "b" * 64
    assert run(["score", str(folder), "in.parquet", "out.csv"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run(["score", str(folder), "in.parquet", "out.csv", "--overwrite", "--keep", "all"]) == 0
    said = capsys.readouterr()
    assert "30 rows of in.parquet scored by delays version folder-" in said.out
    assert run(["score", str(folder), "in.parquet", "new.csv", "--keep", "nothing"]) == 2
    assert (
        run(["score", "models:/delays@champion", "in.parquet", "new.csv", "--tracking-uri", "http://127.0.0.1:1"]) == 3
    )
    assert "Traceback" not in capsys.readouterr().err


def big(path: Path, rows: int) -> None:
    """Write `rows` flights without ever holding them all."""
    block = table(50_000)
    with pq.ParquetWriter(path, block.schema) as writer:
        for _ in range(rows // block.num_rows):
            writer.write_table(block)


def peak(place: Path, folder: Path, source: str, output: str) -> int:
    """Score in a process of its own and return the most memory it had, in KiB."""
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("tidemill")), "score", str(folder), source, output, "--keep", "id"],
        cwd=place, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss if sys.platform == "linux" else usage.ru_maxrss // 1024


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_memory_does_not_grow_with_the_data(place: Path, folder: Path, suffix: str) -> None:
    rows = 200_000 if suffix == "parquet" else 100_000
    big(place / "small.parquet", rows)
    big(place / "large.parquet", 20 * rows)
    if suffix == "csv":
        for name in ("small", "large"):
            with pyarrow.csv.CSVWriter(f"{name}.csv", table(1).schema) as writer:
                for batch in pq.ParquetFile(f"{name}.parquet").iter_batches():
                    writer.write_batch(batch)
    # The first run fills the cache, which the two which are compared then find.
    peak(place, folder, f"small.{suffix}", f"first.{suffix}")
    small = peak(place, folder, f"small.{suffix}", f"small-out.{suffix}")
    large = peak(place, folder, f"large.{suffix}", f"large-out.{suffix}")
    assert (place / f"large-out.{suffix}").stat().st_size > 10 * (place / f"small-out.{suffix}").stat().st_size
    assert large < small * 1.15, f"{small} KiB for {rows} rows, {large} KiB for {20 * rows}"


def test_a_run_which_is_ended_leaves_nothing(place: Path, folder: Path) -> None:
    big(place / "large.parquet", 4_000_000)
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("tidemill")), "score", str(folder), "large.parquet", "out.parquet"],
        cwd=place, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not list(place.glob(".out.parquet.*")):
            assert process.poll() is None, "it ended before it was ended"
            assert time.monotonic() < end, "it never began to write"
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, "Traceback" in said) == (130, False), said
    assert sorted(path.name for path in place.iterdir() if path.name != "state") == ["large.parquet"]


SHARES = """
import mlflow
from mlflow.pyfunc import PythonModel

class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        return (model_input["x"] / model_input["x"].sum()).to_list()

mlflow.models.set_model(Model())
"""


def test_a_model_whose_rows_may_depend_on_each_other_gets_all_rows_in_one_call(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "share.py").write_text(SHARES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import infer_signature

        mlflow.pyfunc.save_model(
            place / "share",
            python_model=str(place / "share.py"),
            signature=infer_signature(pd.DataFrame({"x": [1.0]})),
            pip_requirements=["pandas"],
        )
    monkeypatch.setattr(scorer, "_MAX_BATCH_ROWS", scorer._MIN_BATCH_ROWS)
    (place / "in").mkdir()
    sizes = (1500, 2500)
    for number, rows in enumerate(sizes):
        pq.write_table(pa.table({"x": np.full(rows, number + 1.0), "id": np.arange(rows)}), f"in/{number}.parquet")
    total = sizes[0] + 2 * sizes[1]
    expected = np.repeat([1 / total, 2 / total], sizes)
    seen: list[batch_scoring.Progress] = []
    done = batch_scoring.score("share", "in", "out.parquet", keep=["id"], progress=seen.append)
    found = pq.read_table("out.parquet")
    np.testing.assert_allclose(found.column("prediction").to_numpy(), expected, rtol=1e-12)
    assert found.column("id").to_pylist() == [*range(sizes[0]), *range(sizes[1])]
    assert (done.rows, done.files) == (4000, 2)
    assert [progress.rows for progress in seen if progress.stage == "read"] == sorted(
        progress.rows for progress in seen if progress.stage == "read"
    )

    batch_scoring.score("share", "in", "parts.parquet", rows_independent=True)
    assert pq.read_table("parts.parquet").column("prediction").to_numpy().sum() > 2, "declared, so it gets parts"

    monkeypatch.setattr(scorer, "_MAX_WHOLE_BYTES", 10_000)
    with pytest.raises(UserError, match=r"more rows than the model can get in one call.*--rows-independent"):
        batch_scoring.score("share", "in", "refused.parquet")
    assert not Path("refused.parquet").exists()
    # A model that is known to treat rows independently has no such limit.
    save(place / "delays", fitted())
    pq.write_table(table(3000), "flights.parquet")
    assert batch_scoring.score(str(place / "delays"), "flights.parquet", "scores.parquet").rows == 3000


FRAMES = SHARES.replace(
    'return (model_input["x"] / model_input["x"].sum()).to_list()',
    'return model_input[["x"]].assign(p=model_input["x"] * 2).rename(columns={"x": "q"})',
)


@pytest.mark.parametrize("independent", [None, True])
def test_all_columns_are_kept_in_the_order_of_the_first_file(place: Path, independent: bool | None) -> None:
    (place / "frames.py").write_text(FRAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import infer_signature

        mlflow.pyfunc.save_model(
            place / "frames",
            python_model=str(place / "frames.py"),
            signature=infer_signature(pd.DataFrame({"x": [1.0]})),
            pip_requirements=["pandas"],
        )
    (place / "in").mkdir()
    pq.write_table(pa.table({"x": [1.0, 2.0], "a": [10, 20], "b": [-1, -2]}), "in/0.parquet")
    pq.write_table(pa.table({"x": [3.0], "b": [-3], "a": [30]}), "in/1.parquet")
    batch_scoring.score("frames", "in", "out.parquet", keep="all", rows_independent=independent)
    assert pq.read_table("out.parquet").to_pylist() == [
        {"x": x, "a": int(10 * x), "b": -int(x), "q": x, "p": 2 * x} for x in (1.0, 2.0, 3.0)
    ]


def test_a_file_is_not_called_a_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "MLmodel").write_text("flavors: {}")
    pq.write_table(table(3), "in.parquet")
    assert run(["score", "MLmodel", "in.parquet", "out.parquet"]) == 2
    assert "it is a file" in capsys.readouterr().err


def without_example(folder: Path, body: str) -> None:
    """Save a model of texts, which refuses the texts that tidemill makes up."""
    folder.with_suffix(".py").write_text(TEXTS.replace("ANSWER", body))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlflow.pyfunc
        from mlflow.models import infer_signature

        mlflow.pyfunc.save_model(
            folder,
            python_model=str(folder.with_suffix(".py")),
            signature=infer_signature(pd.DataFrame({"x": ["a"]})),
            pip_requirements=["pandas"],
        )


TEXTS = """
import mlflow, pandas as pd
from mlflow.pyfunc import PythonModel

PRICES = {"a": 1, "b": 2, "gone": None}

class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        prices = [PRICES[each] for each in model_input["x"]]
        return ANSWER

mlflow.models.set_model(Model())
"""


@pytest.mark.parametrize("independent", [None, True])
def test_a_model_without_an_example_is_scored_with_one_value_for_each_row(
    place: Path, independent: bool | None
) -> None:
    without_example(place / "prices", 'pd.DataFrame({"price": prices})')
    (place / "in").mkdir()
    pq.write_table(pa.table({"x": ["a", "b", "a"]}), "in/0.parquet")
    pq.write_table(pa.table({"x": ["b", "gone"]}), "in/1.parquet")
    batch_scoring.score("prices", "in", "out.parquet", rows_independent=independent)
    found = pq.read_table("out.parquet").column("price")
    assert found.type == (pa.int64() if independent else pa.float64())
    assert [None if value != value else value for value in found.to_pylist()] == [1, 2, 1, 2, None]


def test_a_forecast_of_as_many_steps_as_rows_is_no_score(place: Path) -> None:
    without_example(place / "steps", "[0.5] * 5")
    pq.write_table(pa.table({"x": ["a"] * 5}), "in.parquet")
    with pytest.raises(UserError, match="5 values for 5 rows; a table of scores needs one value for each row"):
        batch_scoring.score("steps", "in.parquet", "out.parquet")
