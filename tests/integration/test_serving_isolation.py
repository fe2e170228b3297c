"""Models whose requirements differ, run for real in an environment of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from tidemill.runtime.serving.contract.model_contract import Contract
from tidemill.runtime.serving.engines.errors import IsolatedModelError, UnfitError
from tidemill.runtime.serving.engines.outputs import Answer, AnswerError
from tidemill.runtime.serving.engines.scikit import ScikitEngine
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.inference.batch import Batch, Outputs
from tidemill.runtime.serving.isolation import environment
from tidemill.runtime.serving.isolation.engine import IsolatedEngine
from tidemill.runtime.serving.isolation.environment import UnbuildableError

from tests.support.archives import source_archive
from tests.support.foreign import REQUIREMENTS, SCIKIT_LEARN, foreign_environment, log_odd, log_pipeline
from tests.support.serving import ModelServer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign_environment(tmp_path_factory.mktemp("seed"))


@pytest.fixture(scope="module")
def odd(foreign: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return log_odd(foreign, tmp_path_factory.mktemp("odd") / "model")


@pytest.fixture(scope="module")
def engine(foreign: Path, odd: Path) -> Iterator[IsolatedEngine]:
    with IsolatedEngine(foreign, odd, contract_of(odd)) as one:
        yield one


def contract_of(folder: Path) -> Contract:
    return Contract.of(Model.load(str(folder)).get_input_schema())


def ask(engine: IsolatedEngine, what: str) -> Any:
    [answer] = engine.predict(Batch(1, [(what,)]))
    return answer


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Tell whether `pid` runs no more; one which nobody waits for is gone too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_model_of_another_scikit_learn_gives_its_own_answers(foreign: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    known = log_pipeline(foreign, folder)
    assert f"scikit-learn=={SCIKIT_LEARN}" in " ".join(environment.unmet_requirements(folder))
    rows = [tuple(row) for row in known["rows"]]
    contract = contract_of(folder)
    with IsolatedEngine(foreign, folder, contract) as engine:
        both = engine.predict(Batch(len(rows), rows))
        assert isinstance(both, np.ndarray)
        assert both.shape == (len(rows), 2)
        engine.output = "score"
        assert not engine.mergeable, "its classes are not checked in the server"
        assert by_row(engine.predict(Batch(len(rows), rows))) == known["scores"]
        assert by_row(engine.predict(Batch(1, rows[:1]))) == known["scores"][:1]
        arrow = contract.to_record_batch(Batch(len(rows), rows))
        assert by_row(engine.predict(Batch(len(rows), arrow))) == known["scores"]


def test_a_scikit_learn_model_gets_null_for_an_absent_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [1.0, np.nan, 3.0, 4.0]})
    fitted = make_pipeline(SimpleImputer(), LinearRegression()).fit(frame, 2 * frame["a"])
    inputs = Schema([ColSpec("double", "a"), ColSpec("double", "b", required=False)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of MLflow
        from mlflow.sklearn import save_model

        save_model(
            fitted,
            tmp_path / "model",
            signature=ModelSignature(inputs=inputs),
            serialization_format="skops",
            skops_trusted_types=["numpy.dtype"],
        )
    contract = contract_of(tmp_path / "model")
    absent = Batch(1, [(1.0, None)], absent=frozenset({1}))
    # The environment of the tests has what the model needs.
    environment_folder = tmp_path / "environment"
    environment_folder.symlink_to(sys.prefix)
    with IsolatedEngine(environment_folder, tmp_path / "model", contract) as engine:
        answers = [engine.predict(absent), engine.predict(Batch(1, [(1.0, None)]))]
    answers.append(ScikitEngine(fitted, "predict", contract).predict(absent))
    assert [by_row(answer) for answer in answers] == [[pytest.approx(2.0)]] * 3


def by_row(outputs: Outputs) -> list[Any] | None:
    return outputs.to_rows() if isinstance(outputs, Answer) else list(outputs)


def test_answers_of_every_form_come_through_exactly(engine: IsolatedEngine) -> None:
    frame, forecast = (engine.predict(Batch(2, [(what,), ("x",)])) for what in ("frame", "forecast"))
    assert isinstance(frame, Answer)
    assert repr(frame.to_rows()) == repr([{"n": 2**53 + 1, "x": float("nan"), "s": "é"}] * 2)
    assert isinstance(frame.parts[0], np.ndarray)
    assert isinstance(forecast, Answer)
    assert (forecast.rows, repr(forecast.to_mlflow())) == (None, "[1.0, inf, 3]")
    with pytest.raises(AnswerError, match="the model returned a generator, which is not a table, an array or JSON"):
        engine.predict(Batch(1, [("generator",)]))


def test_it_runs_there_and_knows_no_secret(foreign: Path, odd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "TIDEMILL_RUNTIME", "PYTHONPATH"):
        monkeypatch.setenv(name, "hidden from it")
    with IsolatedEngine(foreign, odd, contract_of(odd)) as engine:
        assert ask(engine, "version") == SCIKIT_LEARN
        assert "hidden from it" not in ask(engine, "environ").values()
        assert "hidden" not in str(ask(engine, "argv"))


def test_what_the_model_raises_is_said_and_it_goes_on(engine: IsolatedEngine) -> None:
    with pytest.raises(IsolatedModelError, match="KeyError: 'the model says no'"):
        ask(engine, "raise")
    assert ask(engine, "fine") == "fine"


def test_what_it_prints_goes_nowhere(engine: IsolatedEngine, capfd: pytest.CaptureFixture[str]) -> None:
    assert ask(engine, "print") == "print"
    assert "secret" not in "".join(capfd.readouterr())


def test_batches_and_answers_are_bounded(foreign: Path, odd: Path) -> None:
    with IsolatedEngine(foreign, odd, contract_of(odd), message_bytes=100_000) as engine:
        with pytest.raises(Problem) as refused:
            ask(engine, "x" * 200_000)
        assert refused.value.status == 413
        with pytest.raises(IsolatedModelError, match="more than the server takes"):
            ask(engine, "much 200000")
        assert len(ask(engine, "much 50000")) == 50_000
        assert engine.state["restarts"] == 0


@pytest.mark.parametrize("killed", ["model", "watcher"])
def test_a_killed_process_fails_its_call_alone_and_comes_back(
    foreign: Path, odd: Path, killed: str, engine: IsolatedEngine, tmp_path: Path
) -> None:
    with IsolatedEngine(foreign, odd, contract_of(odd)) as victim:
        pid, parent, grandchild = ask(victim, "fork")
        failed: list[Problem] = []
        started = tmp_path / "started"

        def call() -> None:
            with pytest.raises(Problem) as caught:
                ask(victim, f"hold {started}")
            failed.append(caught.value)

        thread = threading.Thread(target=call)
        thread.start()
        wait(started.exists)
        os.kill(pid if killed == "model" else parent, signal.SIGKILL)
        thread.join(60)
        assert [problem.status for problem in failed] == [503]
        assert int(failed[0].headers["Retry-After"]) >= 1
        assert "SIGKILL" in failed[0].detail
        assert ask(engine, "untouched") == "untouched"
        wait(lambda: victim.state["running"])
        assert ask(victim, "again") == "again"
        assert victim.state["restarts"] == 1
        assert victim.state["pid"] != pid
        wait(lambda: gone(pid) and gone(parent) and gone(grandchild))
        pid, parent, grandchild = ask(victim, "fork")
    assert gone(pid)
    assert gone(parent)
    wait(lambda: gone(grandchild))
    with pytest.raises(Problem):
        ask(victim, "closed")


def test_a_call_which_takes_too_long_ends_and_the_process_comes_back(foreign: Path, odd: Path) -> None:
    with IsolatedEngine(foreign, odd, contract_of(odd), call_seconds=2) as engine:
        with pytest.raises(Problem, match="did not answer in 2 s") as late:
            ask(engine, "sleep")
        assert late.value.status == 503
        wait(lambda: engine.state["running"])
        assert ask(engine, "again") == "again"


_WORKER = """
import sys
from pathlib import Path
from mlflow.models import Model
from tidemill.runtime.serving.inference.batch import Batch, Outputs
from tidemill.runtime.serving.contract.model_contract import Contract
from tidemill.runtime.serving.isolation.engine import IsolatedEngine
environment, model, started = map(Path, sys.argv[1:])
engine = IsolatedEngine(environment, model, Contract.of(Model.load(str(model)).get_input_schema()))
print(*engine.predict(Batch(1, [("fork",)]))[0], flush=True)
engine.predict(Batch(1, [(f"hold {started}",)]))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_child_outlives_a_killed_worker(foreign: Path, odd: Path, tmp_path: Path, number: int) -> None:
    argv = [sys.executable, "-c", _WORKER, str(foreign), str(odd), str(tmp_path / "started")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(pids) == 3
        wait((tmp_path / "started").exists)
        assert not any(gone(pid) for pid in pids)
        worker.send_signal(number)
        worker.wait(30)
    wait(lambda: all(gone(pid) for pid in pids))


def test_a_model_which_does_not_load_there_is_refused_with_the_reason(foreign: Path, odd: Path, tmp_path: Path) -> None:
    folder = log_odd(foreign, tmp_path / "model")
    [code] = folder.glob("*.py")
    code.write_text("import nothing_of_that_name\n")
    with pytest.raises(UnfitError, match="No module named 'nothing_of_that_name'"):
        IsolatedEngine(foreign, folder, contract_of(odd))
    code.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)\n")
    with pytest.raises(UnfitError, match="SIGSEGV"):
        IsolatedEngine(foreign, folder, contract_of(odd))


def test_a_pickle_is_refused_before_anything_is_started(foreign: Path, tmp_path: Path, odd: Path) -> None:
    folder = log_odd(foreign, tmp_path / "model")
    described = (folder / "MLmodel").read_text().replace("mlflow.pyfunc.loaders.code_model", "mlflow.statsmodels")
    (folder / "MLmodel").write_text(described)
    with pytest.raises(UnfitError, match="pickle"):
        IsolatedEngine(foreign, folder, contract_of(odd))


@contextmanager
def served(foreign: Path, model: Path, folder: Path, **overrides: Any) -> Iterator[ModelServer]:
    """The real model server with a model which is to be isolated, its environment there already."""
    folder.mkdir()
    settings = {"registry": None, "path": str(model), "capture": None, **overrides}
    server = ModelServer(folder, "", "", folder, settings, variables={"TIDEMILL_ENVIRONMENTS": str(foreign.parent)})
    try:
        server.start()
        server.wait(lambda: all_ready(server), 240)
        yield server
    finally:
        server.stop()


def all_ready(server: ModelServer) -> bool:
    """Tell whether every worker has a version."""
    answer = server.get("/readyz")
    return answer.status_code == 200 and all(worker["version"] for worker in answer.json().get("workers", []))


def below(server: ModelServer) -> list[int]:
    assert server.process
    return [child.pid for child in psutil.Process(server.process.pid).children(recursive=True)]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_serves_it_and_leaves_no_process(foreign: Path, tmp_path: Path, workers: int) -> None:
    known = log_pipeline(foreign, tmp_path / "model")
    body = {"dataframe_split": {"columns": ["distance", "carrier"], "data": known["rows"]}}
    with served(foreign, tmp_path / "model", tmp_path / "server", workers=workers) as server:
        state = server.get("/readyz").json()
        assert state["engine"] == "isolated"
        assert f"scikit-learn=={SCIKIT_LEARN}, the server has" in state["engine_note"]
        with server.client() as client:
            answer = client.post("/invocations", json=body)
            assert [late for _, late in answer.json()["predictions"]] == known["scores"]
            hosts = [pid for pid in below(server) if "isolation/host.py" in " ".join(psutil.Process(pid).cmdline())]
            assert len(hosts) == 2 * workers  # a watcher and a model each
            os.kill(hosts[-1], signal.SIGKILL)

            def again() -> bool:
                answer = client.post("/invocations", json=body)
                assert answer.status_code in (200, 503), answer.text
                return answer.status_code == 200 and not set(below(server)) & {hosts[-1]}

            server.wait(again, 240)
            again_answered = client.post("/invocations", json=body).json()["predictions"]
            assert [late for _, late in again_answered] == known["scores"]
        pids = below(server)
        assert server.stop() == 0
        wait(lambda: all(gone(pid) for pid in pids))
        server.start()
        server.wait(lambda: all_ready(server), 240)
        pids = below(server)
        server.kill()
        wait(lambda: all(gone(pid) for pid in pids))


def needing(folder: Path, *lines: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")
    return folder


def leavings(cache: Path) -> list[str]:
    """Return what a build left which is no environment and no lock."""
    root = cache / environment.FOLDER
    return [path.name for path in root.iterdir() if path.name.startswith(".")] if root.exists() else []


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["numpy==1.99999"], "numpy==1.99999"),
        (["numpy==2.3.5", "numpy==2.3.4"], "numpy"),
    ],
)
def test_what_cannot_be_had_is_refused_with_uvs_reason(tmp_path: Path, lines: list[str], reason: str) -> None:
    with pytest.raises(UnbuildableError, match=reason) as refused:
        environment.ensure_environment(needing(tmp_path / "model", *lines), tmp_path / "cache", seconds=120)
    assert "tidemill image" in str(refused.value)
    assert leavings(tmp_path / "cache") == []


def test_no_source_archive_runs_while_an_environment_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, ran = source_archive(tmp_path)
    target = ["--target", str(tmp_path / "target"), str(archive)]
    subprocess.run([*environment.find_uv(), "pip", "install", "--quiet", *target], check=False, capture_output=True)
    assert ran.exists(), "the archive does not do what this test is about"
    ran.unlink()

    monkeypatch.setenv("UV_FIND_LINKS", str(archive.parent))  # the platform's index has it, but no wheel of it
    model = tmp_path / "model"
    model.mkdir()
    shutil.copy(archive, model)
    # Settings of uv and pip in the model's folder have no effect.
    (model / "uv.toml").write_text("no-build = false\n")
    (model / "pyproject.toml").write_text("[tool.uv]\nno-build = false\n")
    for line in (
        "tidemill-tests-odd==1.0",
        f"./{archive.name}",
        f"tidemill-tests-odd @ {archive.as_uri()}",
        f"--find-links {archive.parent}\ntidemill-tests-odd==1.0",
        f"tidemill-tests-odd==1.0 --find-links {archive.parent}",
        f"-e {archive.parent}",
    ):
        needing(model, line)
        with pytest.raises(UnbuildableError) as refused:
            environment.ensure_environment(model, tmp_path / "cache", seconds=120)
        said = str(refused.value).replace("_", "-")
        assert "tidemill-tests-odd" in said or str(archive.parent) in str(refused.value)
        assert not ran.exists(), line
    needing(model, "numpy")
    (model / "MLmodel").write_text(f"mlflow_version: '3.0\\n--find-links {archive.parent}'\n".replace("'", '"'))
    with pytest.raises(UnbuildableError, match="find-links"):
        environment.ensure_environment(model, tmp_path / "cache", seconds=120)
    assert leavings(tmp_path / "cache") == []


def test_without_a_network_it_is_refused_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A proxy where nothing listens, and nothing downloaded before.
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://user:secret@127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(UnbuildableError, match=r"(?i)failed to fetch.*refused") as refused:
        environment.ensure_environment(needing(tmp_path / "model", *REQUIREMENTS), tmp_path / "cache", seconds=120)
    assert "secret" not in str(refused.value)
    assert leavings(tmp_path / "cache") == []


def test_what_takes_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnbuildableError, match="in the time"):
        environment.ensure_environment(needing(tmp_path / "model", *REQUIREMENTS), tmp_path / "cache", seconds=0.01)
    assert leavings(tmp_path / "cache") == []


def build_command(model: Path, cache: Path) -> list[str]:
    return [sys.executable, "-m", "tidemill.runtime.serving.isolation.environment", str(model), str(cache)]


def test_a_cache_which_is_only_read_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    command = build_command(needing(tmp_path / "model", *REQUIREMENTS), tmp_path / "cache")
    if os.geteuid() == 0:  # whom no mode of a folder stops
        mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", mount, str(tmp_path / "cache"), *command]
    else:
        (tmp_path / "cache").chmod(0o500)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (tmp_path / "cache").chmod(0o700)
    assert done.returncode == 3, done.stderr
    assert "cannot be built" in done.stderr
    assert "`tidemill image`" in done.stderr


@pytest.mark.slow
def test_one_killed_and_two_at_once_make_one_environment(tmp_path: Path) -> None:
    model, cache = needing(tmp_path / "model", *REQUIREMENTS), tmp_path / "cache"
    command = build_command(model, cache)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as first:
        wait(lambda: any((cache / environment.FOLDER).glob(".py*/venv/bin/python")))
        first.kill()
    assert not any((cache / environment.FOLDER).glob("py*/tidemill.json"))
    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [json.loads(builder.communicate(timeout=300)[0]) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert said[0]["environment"] == said[1]["environment"]
    built = Path(said[0]["environment"])
    assert built.parent == cache / environment.FOLDER
    assert leavings(cache) == []
    # As those of an image: found where it only is read, whatever the cache.
    found = subprocess.run(
        build_command(model, tmp_path / "other"),
        env={**os.environ, "TIDEMILL_ENVIRONMENTS": str(built.parent), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout)["environment"] == str(built)
    assert not (tmp_path / "other").exists()


def test_a_model_of_another_python_gets_that_python(tmp_path: Path) -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    found = [text for text in ("3.10", "3.11", "3.12", "3.13") if text != own and environment.find_python(text) != text]
    if not found:
        pytest.skip("no other Python than the one of the tests is on PATH")
    model = needing(tmp_path / "model", "numpy", "pandas<3")
    (model / "python_env.yaml").write_text(f"python: {found[0]}.0\n")
    built = environment.ensure_environment(model, tmp_path / "cache", seconds=600)
    told = subprocess.run(
        [str(built / "bin" / "python"), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == found[0]


def test_environments_which_nobody_wants_are_removed(tmp_path: Path, foreign: Path) -> None:
    cache = tmp_path / "cache"
    root = cache / environment.FOLDER
    model = needing(cache / "flights" / "3" / "model", "numpy==1.0")
    (model / "MLmodel").write_text("flavors: {}\n")
    cached = environment.environment_key(environment.ModelRequirements.of(model))
    for name in (cached, "py3.11-used", "py3.11-recent", "py3.11-old"):
        (root / name / "bin").mkdir(parents=True)
        (root / name / "bin" / "python").symlink_to(foreign / "bin" / "python")
        (root / name / "tidemill.json").write_text("{}")
        if name != "py3.11-recent":
            os.utime(root / name, (0, 0))
    with environment.environment_in_use(root / "py3.11-used"):
        assert environment.prune(cache) == ["py3.11-old"]
    assert sorted(path.name for path in root.glob("py*-*") if path.is_dir()) == sorted(
        [cached, "py3.11-used", "py3.11-recent"]
    )
    assert environment.prune(cache) == ["py3.11-used"]
    assert leavings(cache) == []
