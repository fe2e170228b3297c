"""`tidemill serve` as a process: what it says is true and works, and signals and exit codes are the server's own."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from tidemill.runtime.capture import CAPTURE, list_segments, read_segment

from tests.support.documented import PAGE
from tests.support.saved import fitted, flights, save
from tests.support.servers import free_port

pytestmark = [
    pytest.mark.integration,
    # Of SQLAlchemy, about how MLflow asks a database.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
]

TIDEMILL = str(Path(sys.executable).with_name("tidemill"))
ROWS = flights(4).drop(columns="id")


class Served:
    """A server which `tidemill serve` became."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        with self.process.stderr as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def close(self) -> None:
        """End it, if it has not ended, and wait until nobody holds its standard error any more."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(30)
        assert not self._reader.is_alive(), "something it started lives on"

    def until(self, pattern: str, seconds: float = 120) -> str:
        """Return the first line on standard error, said or to come, which `pattern` is found in."""
        for line in self.said:
            if re.search(pattern, line):
                return line
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError("\n".join(["waited in vain for", pattern, *self.said])) from None
            assert line is not None, "\n".join(["it ended", *self.said])
            self.said.append(line)
            if re.search(pattern, line):
                return line

    @property
    def url(self) -> str:
        return self.until("^serving ").rpartition(" at ")[2]

    @property
    def key(self) -> str:
        return Path(self.until("API key is in ").rpartition(" is in ")[2]).read_text()

    def ask(self, key: str | None = None, **options: Any) -> httpx.Response:
        document = {"dataframe_records": ROWS.to_dict("records")}
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        with httpx.Client(trust_env=False, timeout=30, **options) as client:
            return client.post(f"{self.url}/invocations", json=document, headers=headers)

    def readiness(self) -> dict[str, Any]:
        return httpx.get(f"{self.url}/readyz", trust_env=False, timeout=30).json()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("models") / "delays", fitted())


@contextmanager
def serving(home: Path, *words: str, log: Any = subprocess.DEVNULL, **more: str) -> Iterator[Served]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "MLFLOW_DISABLE_TELEMETRY": "true", **more}
    process = subprocess.Popen(
        [TIDEMILL, "serve", *words], cwd=home, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=log, stderr=subprocess.PIPE,
    )  # fmt: skip
    server = Served(process)
    try:
        yield server
    finally:
        server.close()


def wait(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_the_line_which_it_prints_can_be_pasted(home: Path, folder: Path) -> None:
    with serving(home, str(folder), "--port", "0", "--no-compile") as server:
        line = server.until("^curl ")
        assert server.key not in "\n".join(server.said)
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
        )
        answer = json.loads(done.stdout)
        assert answer["model"] == "delays"
        assert all(0 < score < 1 for score in answer["predictions"])
        np.testing.assert_allclose(
            server.ask().json()["predictions"], fitted().predict_proba(ROWS)[:, 1], rtol=0, atol=1e-9
        )
        assert server.ask(key="wrong").status_code == 401
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert server.end() == 0
        assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_the_documentation_says_what_is_answered(home: Path, folder: Path) -> None:
    told = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)]
    answer, problem, labels = told
    [command] = re.findall(r"```bash\n(curl .*?)```", PAGE.read_text(), flags=re.DOTALL)
    body = json.loads(re.search(r"-d '(.*)'", command)[1])  # pyright: ignore[reportOptionalSubscript]
    with serving(
        home, str(folder), "--port", "0", "--no-compile", "--capture", "documented", "--name", "flights"
    ) as server:
        server.until("^ready")
        with httpx.Client(
            base_url=server.url, headers={"X-API-Key": server.key}, trust_env=False, timeout=30
        ) as client:
            found = client.post("/invocations", json=body).json()
            assert found.keys() == answer.keys()
            assert (found["model"], len(found["predictions"])) == ("flights", 1)
            body["dataframe_records"][0]["hour"] = "noon"
            refused = client.post("/invocations", json=body)
            assert refused.headers["content-type"] == "application/problem+json"
            assert {**refused.json(), "request_id": ""} == {**problem, "request_id": ""}
            labels["labels"][0]["request_id"] = found["request_id"]
            assert client.post("/labels", json=labels).json()["accepted"] == 1
            rows = {"rows": ROWS.to_dict("records")}
            assert list(client.post("/predict", json=rows).json()["predictions"][0]) == ["score"]
            for path in re.findall(r"`(?:GET )?(/[a-z0-9/.]*)`", PAGE.read_text()):
                if path not in ("/versions/VERSION", "/labels", "/invocations", "/predict"):
                    assert client.get(path.replace("NAME", "flights")).status_code == 200, path


def test_named_keys_come_and_go_while_it_serves(home: Path, folder: Path) -> None:
    file = str(home / "keys.json")

    def keys(*words: str) -> str:
        done = subprocess.run([TIDEMILL, "keys", *words, "--file", file], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with serving(home, str(folder), "--port", "0", "--no-compile", "--keys-file", file) as server:
        server.until("^ready")
        key = keys("add", "dashboard")
        wait(lambda: server.ask(key=key).status_code == 200)
        keys("revoke", "dashboard")
        wait(lambda: server.ask(key=key).status_code == 401)
        assert server.ask().status_code == 200


def test_a_pickle_is_served_only_with_trust_and_that_is_said(home: Path, tmp_path: Path) -> None:
    pickled = save(tmp_path / "delays", fitted(), serialization_format="cloudpickle")
    with serving(home, str(pickled), "--port", "0") as server:
        refused = server.until("may hold a pickle")
        for way in ("--trust pickle", "serve.trust: [pickle]", "tidemill convert MODEL@VERSION"):
            assert way in refused
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        serving(home, str(pickled), "--port", "0", "--trust", "pickle", log=output) as server,
    ):
        server.until("^pickle is trusted")
        server.until("^ready")
        state = server.readiness()
        assert state["trust"] == ["pickle"]
        assert "pickle is trusted: the model is stored as mlflow.sklearn with cloudpickle" in state["engine_note"]
        expected = fitted().predict_proba(ROWS)[:, 1]
        np.testing.assert_allclose(np.asarray(server.ask().json()["predictions"]).reshape(4, -1)[:, -1], expected)
        status = httpx.get(f"{server.url}/status", headers={"Authorization": f"Bearer {server.key}"}, trust_env=False)
        assert status.json()["trust"] == ["pickle"]
    said = [json.loads(line)["message"] for line in log.read_text().splitlines() if "pickle is trusted" in line]
    assert [line.partition(":")[0] for line in said] == ["pickle is trusted", "loading a version; pickle is trusted"]


def test_it_waits_for_an_alias_and_says_so(home: Path, tmp_path: Path) -> None:
    import mlflow
    from mlflow.models import infer_signature

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("delays", artifact_location=str(tmp_path / "artifacts"))
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mlflow.start_run(experiment_id=experiment):
                mlflow.sklearn.log_model(
                    fitted(), name="model", signature=infer_signature(ROWS, np.zeros((4, 2))), input_example=ROWS,
                    pyfunc_predict_fn="predict_proba", serialization_format="skops", registered_model_name="delays",
                    pip_requirements=["scikit-learn"],
                )  # fmt: skip
    finally:
        mlflow.set_tracking_uri(before[0])
        mlflow.set_registry_uri(before[1])
    with serving(
        home, "models:/delays@champion", "--port", "0", "--no-compile", "--capture", "kept", MLFLOW_TRACKING_URI=uri
    ) as server:
        server.until("not ready: the registry has no alias champion of delays")
        assert server.ask().status_code == 503
        client.set_registered_model_alias("delays", "champion", "1")
        server.until("^ready: serving version 1 of delays")
        assert server.ask().json()["version"] == "1"
        assert server.end() == 0
    rows = [row for segment in list_segments(home / "kept", CAPTURE) for row in read_segment(segment).to_pylist()]
    assert [(row["model"], row["version"], row["role"]) for row in rows] == [("delays", "1", "champion")] * 4


def test_beyond_loopback_it_speaks_tls(home: Path, folder: Path, tmp_path: Path) -> None:
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    self_signed(certificate, private)
    with serving(
        home, str(folder), "--host", "0.0.0.0", "--port", "0", "--no-compile",  # noqa: S104
        "--tls-cert", str(certificate), "--tls-key", str(private),
    ) as server:  # fmt: skip
        line = server.until("^curl ")
        assert server.url.startswith("https://127.0.0.1:")
        assert f"--cacert {certificate}" in line
        assert server.ask(verify=ssl.create_default_context(cafile=certificate)).status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url.replace("https", "http"), trust_env=False)


def self_signed(certificate: Path, private: Path) -> None:
    from datetime import UTC, datetime, timedelta
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
        .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False).sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def test_several_workers_end_with_it(home: Path, folder: Path) -> None:
    with serving(home, str(folder), "--port", str(port := free_port()), "--workers", "2", "--no-compile") as server:
        server.until("^ready")
        assert server.url.endswith(f":{port}")
        wait(lambda: len(server.readiness().get("workers", [])) == 2)
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert len(children) >= 2
        assert server.end(signal.SIGINT) == 0
        assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_port_which_is_taken_meanwhile_is_exit_code_3(home: Path, folder: Path) -> None:
    with serving(home, str(folder), "--port", "0", "--no-compile") as server:
        port = server.url.rpartition(":")[2]
        server.until("^ready")
        done = subprocess.run(
            [TIDEMILL, "serve", str(folder), "--port", port], env={"PATH": os.environ["PATH"], "HOME": str(home)},
            capture_output=True, text=True, check=False, cwd=home,
        )  # fmt: skip
        assert done.returncode == 3
        assert f"127.0.0.1:{port}" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert server.ask().status_code == 200
