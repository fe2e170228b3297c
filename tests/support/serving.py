"""A small model in a real registry, and the real model server as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.servers import Server, free_port, secret_file

MODEL = "flights"


def small_pipeline(seed: int, columns: tuple[str, ...] = ("distance", "hour", "carrier")) -> tuple[Any, Any]:
    """Return a fitted pipeline, different for each seed, and the frame it was fitted on."""
    import numpy as np
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    random = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "distance": random.uniform(100, 2500, 200),
            "hour": random.integers(0, 24, 200),
            "carrier": random.choice(["UA", "B6", "DL"], 200),
            "extra": random.uniform(0, 1, 200),
        }
    )[list(columns)]
    late = (frame["hour"] * (1 if seed % 2 else -1) + random.normal(0, 5, 200)) > (10 if seed % 2 else -10)
    encode = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["carrier"]), remainder="passthrough")
    return make_pipeline(encode, LogisticRegression(max_iter=5000)).fit(frame, late.astype(int)), frame


@dataclass
class Registry:
    """One model in the registry of a test, as its administrator; several may share a server."""

    server: Server
    model: str = MODEL
    models: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def client(self) -> Any:
        import mlflow

        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = self.server.auth
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        mlflow.set_tracking_uri(self.server.url)
        mlflow.set_registry_uri(self.server.url)
        return mlflow.MlflowClient(self.server.url)

    def register(self, pipeline: Any, frame: Any, *, tags: dict[str, str] | None = None, **options: Any) -> str:
        """Log and register `pipeline` as a version; return its number."""
        import mlflow
        from mlflow.models import infer_signature

        client = self.client
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mlflow.set_experiment(self.model)
            with mlflow.start_run():
                logged = mlflow.sklearn.log_model(
                    pipeline,
                    name="model",
                    signature=infer_signature(frame, pipeline.predict_proba(frame)),
                    input_example=frame.head(3),
                    pyfunc_predict_fn="predict_proba",
                    registered_model_name=self.model,
                    pip_requirements=["scikit-learn"],
                    **{"serialization_format": "skops", **options},
                )
        version = str(logged.registered_model_version)
        for key, value in (tags or {}).items():
            client.set_model_version_tag(self.model, version, key, value)
        self.models[version] = pipeline
        return version

    def alias(self, version: str) -> None:
        self.client.set_registered_model_alias(self.model, "champion", version)

    def reader(self, password: str) -> str:
        """Make a user who may read the model and its experiment, as the platform does for its servers."""
        name = f"{self.model}-serving"
        experiment = self.client.get_experiment_by_name(self.model).experiment_id
        with httpx.Client(base_url=f"{self.server.url}/api", auth=self.server.auth, trust_env=False) as api:
            user = {"username": name, "password": password}
            api.post("/2.0/mlflow/users/create", json=user).raise_for_status()
            for kind, identifier in (("experiment", experiment), ("registered_model", self.model)):
                grant = {"username": name, "resource_type": kind, "resource_id": identifier, "permission": "READ"}
                api.post("/3.0/mlflow/users/permissions/grant", json=grant).raise_for_status()
        return name


@dataclass
class ModelServer:
    """The model server of a test; `start` after `stop` or `kill` keeps its port and its folders."""

    folder: Path
    registry_url: str
    user: str
    password_file: Path
    overrides: dict[str, Any] = field(default_factory=dict[str, Any])
    model: str = MODEL
    variables: dict[str, str] = field(default_factory=dict[str, str])
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.folder / "key").read_text()

    @property
    def capture(self) -> Path:
        return self.folder / "capture"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def client(self, **options: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False, **options)

    def start(self) -> None:
        if not (self.folder / "key").exists():
            secret_file(self.folder, "key")
        settings = {
            "listen": {"port": self.port, "token_file": str(self.folder / "key")},
            "model": self.model,
            "registry": {
                "tracking_uri": self.registry_url,
                "username": self.user,
                "password_file": str(self.password_file),
            },
            "capture": {"directory": str(self.capture), "segment_seconds": 0.3},
            "poll_seconds": 0.2,
            "cache": str(self.folder / "cache"),
            **self.overrides,
        }
        (self.folder / "settings.json").write_text(json.dumps(settings))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidemill.runtime.serving", "--settings", str(self.folder / "settings.json")],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.variables},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait(lambda: self.get("/healthz").status_code == 200)

    def get(self, path: str) -> httpx.Response:
        with self.client() as client:
            return client.get(path)

    def wait(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until `condition` holds."""
        end = time.monotonic() + seconds
        while True:
            assert self.process and self.process.poll() is None, f"the server ended:\n{self.log[-4000:]}"
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, f"waited in vain:\n{self.log[-4000:]}"
            time.sleep(0.05)

    def wait_version(self, version: str) -> None:
        self.wait(lambda: self.get("/readyz").json().get("version") == version)

    def stop(self) -> int:
        """End it with SIGTERM; return its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.terminate()
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)
        self.process = None


@contextmanager
def model_server(folder: Path, registry: Registry, **overrides: Any) -> Iterator[ModelServer]:
    """Serve the champion of `registry`, whose model exists, as a user of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    password = secret_file(folder, "password")
    user = registry.reader(password.read_text())
    server = ModelServer(folder, registry.server.url, user, password, overrides, registry.model)
    try:
        server.start()
        yield server
    finally:
        server.stop()
