"""tidemill and its peers: how each is started, asked, and understood."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from tests.benchmarks.serving.environments import environment
from tests.benchmarks.serving.models import Model
from tests.benchmarks.serving.processes import Running, running
from tests.support.ports import free_ports

APPS = Path(__file__).parent / "apps"
JSON = {"Content-Type": "application/json"}
OURS, OWN = "tidemill", "tidemill, own engine"
"""Compiled, and scikit-learn's own."""

PEERS = ("mlserver", "bentoml", "litserve")
"""Those which batch; `mlflow` does not."""

# One thread for the model's own pools: with their default, two, they and the load share two cores, and all of the peers
# are slower (facts of a tree model: one row 57 ms on a busy machine, against 1 ms).
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Served:
    """A running server, with the way to ask it.

    Attributes:
        server: its process.
        path: of predictions.
        headers: sent with each request.
        body: makes the body which asks for some rows of the model.
        read: takes the probabilities out of an answer's body.
    """

    server: Running
    path: str
    headers: dict[str, str]
    body: Callable[[Sequence[Sequence[Any]]], bytes]
    read: Callable[[bytes], list[float]]

    @property
    def name(self) -> str:
        return self.server.name

    def request(self, body: bytes) -> bytes:
        """Return a whole HTTP request."""
        lines = [f"POST {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.server.port}"]
        lines += [f"{key}: {value}" for key, value in self.headers.items()]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def _compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _mlflow_probabilities(answer: bytes) -> list[float]:
    """Return the probability of class 1 in each row of an answer of `/invocations`."""
    return [row[1] for row in json.loads(answer)["predictions"]]


def _split(model: Model) -> Callable[[Sequence[Sequence[Any]]], bytes]:
    return lambda rows: _compact({"dataframe_split": {"columns": model.columns, "data": rows}})


@contextmanager
def mlflow(model: Model, folder: Path, *, one_thread: bool = False) -> Iterator[Served]:
    """`mlflow models serve`, as its documentation starts it."""
    programs = environment("mlflow")
    (port,) = free_ports(1)
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        **(_ONE_THREAD if one_thread else {}),
    }
    argv = [
        programs / "mlflow", "models", "serve", "--model-uri", model.mlflow, "--env-manager", "local",
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    name = "mlflow, one thread" if one_thread else "mlflow"
    with running(name, argv, port=port, folder=folder, env=env, health="/ping") as server:
        yield Served(
            server,
            "/invocations",
            JSON,
            _split(model),
            _mlflow_probabilities,
        )


@contextmanager
def mlserver(model: Model, folder: Path, *, batches: bool = False) -> Iterator[Served]:
    """MLServer with adaptive batching and its scikit-learn runtime; for mixed columns a runtime of two tensors."""
    programs = environment("mlserver")
    http, grpc, metrics = free_ports(3)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "http_port": http,
                "grpc_port": grpc,
                "metrics_port": metrics,
                # The model in the process which answers: one worker, and faster here than a second process.
                "parallel_workers": 0,
                "debug": False,
            }
        )
    )
    texts = model.texts
    runtime = "mixed_runtime.MixedModel" if texts else "mlserver_sklearn.SKLearnModel"
    settings: dict[str, Any] = {
        "name": "model",
        "implementation": runtime,
        "parameters": {"uri": str(model.joblib), "extra": {"predict_fn": "predict_proba"}},
    }
    if not batches:
        # Tried: 1, 2, 5, 10, 20 ms. The shortest is best at 8 connections and within a few percent at 64.
        settings |= {"max_batch_size": 64, "max_batch_time": 0.001}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": str(APPS), "DO_NOT_TRACK": "true", **_ONE_THREAD
    }  # fmt: skip

    def body(rows: Sequence[Sequence[Any]]) -> bytes:
        width = len(model.columns) - texts
        numbers = [value for row in rows for value in row[:width]]
        inputs = [{"name": "numbers", "datatype": "FP64", "shape": [len(rows), width], "data": numbers}]
        if texts:
            words = ["" if value is None else value for row in rows for value in row[width:]]
            inputs.append({"name": "texts", "datatype": "BYTES", "shape": [len(rows), texts], "data": words})
        return _compact({"inputs": inputs})

    def read(answer: bytes) -> list[float]:
        data = json.loads(answer)["outputs"][0]["data"]
        return data if texts else data[1::2]

    argv = [programs / "mlserver", "start", folder]
    with running("mlserver", argv, port=http, folder=folder, env=env, health="/v2/health/ready") as server:
        yield Served(server, "/v2/models/model/infer", JSON, body, read)


@contextmanager
def bentoml(model: Model, folder: Path, *, batches: bool = False) -> Iterator[Served]:
    """A BentoML service with adaptive batching."""
    programs = environment("bentoml")
    (port,) = free_ports(1)
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        # Services which share a home reset each other's counters.
        "BENTOML_HOME": str(folder / "home"),
        "BENTOML_DO_NOT_TRACK": "True",
        "BENCHMARK_MODEL": str(model.folder),
        "BENCHMARK_BATCH": "10000" if batches else "100",
        **_ONE_THREAD,
    }
    argv = [
        programs / "bentoml", "serve", "bento_app:Service", "--working-dir", APPS,
        "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    with running("bentoml", argv, port=port, folder=folder, env=env, health="/readyz") as server:
        yield Served(server, "/predict", JSON, lambda rows: _compact({"rows": rows}), json.loads)


@contextmanager
def litserve(model: Model, folder: Path) -> Iterator[Served]:
    """A LitServe API with batching; it takes one row a request."""
    programs = environment("litserve")
    (port,) = free_ports(1)
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "BENCHMARK_MODEL": str(model.folder),
        "DO_NOT_TRACK": "true",
        **_ONE_THREAD,
    }
    argv = [programs / "python", APPS / "lit_app.py", str(port)]
    with running("litserve", argv, port=port, folder=folder, env=env, health="/health") as server:
        yield Served(
            server,
            "/predict",
            JSON,
            lambda rows: _compact({"row": rows[0]}),
            lambda answer: [json.loads(answer)["output"]],
        )


@contextmanager
def tidemill(model: Model, folder: Path, *, compiled: bool = True, **overrides: Any) -> Iterator[Served]:
    """tidemill as its users start it: validation, API key, capture of everything, metrics, access log; one worker."""
    (port,) = free_ports(1)
    folder.mkdir(parents=True, exist_ok=True)
    key = secrets.token_urlsafe(32)
    key_file = folder / "key"
    key_file.touch(0o600)
    key_file.write_text(key)
    settings: dict[str, Any] = {
        "listen": {"port": port, "token_file": str(key_file)},
        "model": model.name,
        "path": str(model.mlflow),
        "capture": {"directory": str(folder / "capture")},
        # Kept over the rounds, as a user's is over restarts: a version is compiled once.
        "cache": str(model.folder / ("cache-compiled" if compiled else "cache-own")),
        **({} if compiled else {"compile": {"engines": []}}),
        **overrides,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    argv = [sys.executable, "-m", "tidemill.runtime.serving", "--settings", folder / "settings.json"]
    name = OURS if compiled else OWN
    with running(name, argv, port=port, folder=folder, env={}, health="/readyz") as server:
        yield Served(
            server,
            "/invocations",
            {**JSON, "Authorization": f"Bearer {key}"},
            _split(model),
            _mlflow_probabilities,
        )


Start: TypeAlias = Callable[[Model, Path], AbstractContextManager[Served]]

STARTS: dict[str, Start] = {
    OURS: tidemill,
    OWN: lambda model, folder: tidemill(model, folder, compiled=False),
    "mlflow": mlflow,
    "mlflow, one thread": lambda model, folder: mlflow(model, folder, one_thread=True),
    "mlserver": mlserver,
    "bentoml": bentoml,
    "litserve": litserve,
}
