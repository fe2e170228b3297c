"""Every service of ours, without credentials: huge heads, bodies and trailers, slow clients, foreign Host headers."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.alone import server_of
from tests.support.servers import Server
from tests.support.services import Service, idle_settings
from tests.support.serving import small_pipeline

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MB = 1 << 20
SENT = 50 * MB
GROWTH = 20 * MB
"""Allowed growth of a service's memory, less than an attack sends."""


@contextmanager
def running(name: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Run the service `name`, which also answers to the name `models.example`; yield its port and process."""
    folder.mkdir()
    if name == "serving":
        pipeline, frame = small_pipeline(1)
        with server_of(folder, pipeline, frame) as server:
            assert server.process
            yield server.port, server.process.pid
        return
    service = Service(name, folder, idle_settings(name, folder))
    settings = json.loads((folder / "settings.json").read_text())
    settings["listen"]["hosts"] = ["models.example"]
    (folder / "settings.json").write_text(json.dumps(settings))
    service.start()
    try:
        yield httpx.URL(service.url).port or 0, service.pid
    finally:
        service.stop()


def wait_until_ready(port: int) -> None:
    """Wait until the service has imported its libraries in the background."""
    end = time.monotonic() + 60
    while httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 503:
        assert time.monotonic() < end
        time.sleep(0.1)


def memory(pid: int) -> int:
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in [process, *process.children(recursive=True)])


def send(port: int, start: bytes, part: bytes) -> tuple[bool, bytes]:
    """Send `start`, then `part` until SENT bytes; return whether the server accepted all, and its answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as made:
        try:
            made.sendall(start)
            for _ in range(SENT // len(part)):
                made.sendall(part)
            made.shutdown(socket.SHUT_WR)
            took = True
        except OSError:
            took = False
        try:
            return took, made.recv(4096)
        except OSError:
            return took, b""


def chunked(path: str, method: str = "POST", more: str = "Transfer-Encoding: chunked") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n\r\n".encode()


PATHS = {
    "retraining": "/alerts",
    "retraining.runner": "/jobs",
    "monitor": "/status",
    "validation": "/hooks/lakefs",
    "serving": "/invocations",
}


@pytest.mark.parametrize("name", list(PATHS))
def test_a_client_without_credentials_costs_no_memory_and_no_connection(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path / "service") as (port, pid):
        wait_until_ready(port)
        before = memory(pid)
        block = b"a" * MB
        took, answer = send(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: ", block)
        assert not took
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
        took, _ = send(port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", b"X-A: b\r\n" * 10_000)
        assert not took
        for path in (PATHS[name], "/healthz"):
            took, _ = send(port, chunked(path) + b"1\r\na\r\n0\r\nX-A: ", block)
            assert not took, f"a trailer without an end to {path}"
            _, answer = send(port, chunked(path), b"100000\r\n" + block + b"\r\n")
            assert answer == b"" or answer.split()[1] in (b"401", b"404", b"405", b"413"), answer
        assert memory(pid) - before < GROWTH
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200


def test_a_head_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    address = "127.0.0.1"
    with (
        running("retraining", tmp_path / "service") as (port, _),
        socket.create_connection((address, port), timeout=60) as silent,
        socket.create_connection((address, port), timeout=60) as answered,
        socket.create_connection((address, port), timeout=60) as refused,
    ):
        silent.sendall(b"GET /healthz HT")
        # The second client sends a byte of the next head after its answer, which ends uvicorn's keep-alive timer.
        answered.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answered.recv(4096).startswith(b"HTTP/1.1 200")
        answered.sendall(b"G")
        # The third never completes the body of a request that is already answered.
        refused.sendall(chunked("/alerts"))
        assert refused.recv(4096).startswith(b"HTTP/1.1 401")
        refused.sendall(b"1\r\na\r\n")
        for waiting in (silent, answered, refused):
            with contextlib.suppress(ConnectionResetError):
                while waiting.recv(4096):  # until the server closes it
                    pass


def ask(port: int, *hosts: str, path: str = "/healthz", method: str = "GET", version: str = "1.1") -> tuple[int, bytes]:
    lines = [f"{method} {path} HTTP/{version}", *(f"Host: {host}" for host in hosts), "Connection: close"]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as made:
        made.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b"".join(iter(lambda: made.recv(65536), b""))
    return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("name", ["monitor", "serving"])
def test_a_foreign_host_header_is_refused(name: str, tmp_path: Path) -> None:
    with running(name, tmp_path / "service") as (port, _):
        for host in ("localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:9", "10.1.2.3", "models.example:443"):
            if name == "serving" and host.startswith("models"):
                continue
            assert ask(port, host)[0] == 200, host
        paths = [("/healthz", "GET"), (PATHS[name], "POST"), ("/metrics", "GET"), ("/no/such/path", "GET")]
        for path, method in paths:
            status, body = ask(port, "evil.example:80", path=path, method=method)
            assert status == 421
            problem = json.loads(body)
            assert problem["status"] == 421
            assert "evil.example" in problem["detail"]
        for hosts in ((), ("localhost", "evil.example"), ("evil.example", "localhost"), ("localhost/x",), ("a b",)):
            assert ask(port, *hosts)[0] == 400, hosts
        for host in ("localhost.evil.example", "127.0.0.1.evil.example", "0x7f.1", "evil.example.", "monitor"):
            assert ask(port, host)[0] == 421, host


def test_a_body_in_chunks_is_limited_with_credentials_too(tmp_path: Path) -> None:
    folder = tmp_path / "service"
    folder.mkdir()
    service = Service("retraining", folder, idle_settings("retraining", folder))
    service.start()
    try:
        with service.client() as client:
            blocks = (b" " * 100_000 for _ in range(1000))
            assert client.post("/alerts", content=blocks).status_code == 413
            assert client.post("/alerts", content=iter([b'{"version": "4", ', b'"alerts": []}'])).json() == {
                "alerts": []
            }
    finally:
        service.stop()


def test_the_registry_limits_heads_and_trailers(shared_mlflow: Server) -> None:
    port = httpx.URL(shared_mlflow.url).port or 0
    block = b"a" * MB
    assert not send(port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ", block)[0]
    path = "/api/2.0/mlflow/experiments/search"
    assert not send(port, chunked(path) + b"1\r\na\r\n0\r\nX-A: ", block)[0]
    assert httpx.get(f"{shared_mlflow.url}/health").status_code == 200


def test_the_registry_reads_no_large_body_except_uploads(shared_mlflow: Server) -> None:
    port, pid = httpx.URL(shared_mlflow.url).port or 0, shared_mlflow.pid
    token = base64.b64encode(":".join(shared_mlflow.auth).encode()).decode()
    login = f"Authorization: Basic {token}\r\nContent-Type: application/json"
    block, length, chunks = b"a" * MB, f"Content-Length: {SENT}", "Transfer-Encoding: chunked"
    search, artifacts = "/api/2.0/mlflow/experiments/search", "/api/2.0/mlflow-artifacts/artifacts"

    def flood(method: str, path: str, *more: str) -> int:
        """Send a body of 50 MB; return the status of the answer, or 0 if the connection ended before it."""
        part = b"100000\r\n" + block + b"\r\n" if chunks in more else block
        _, answer = send(port, chunked(path, method, "\r\n".join(more)), part)
        return int(answer.split()[1]) if answer else 0

    with httpx.Client(base_url=shared_mlflow.url, auth=shared_mlflow.auth, timeout=60) as client:
        client.post(search, json={"max_results": 1}).raise_for_status()
        before = memory(pid)
        for declared in (length, chunks):
            # The health check reads no body.
            assert flood("GET", "/health", declared) in (0, 200, 413)
            assert flood("GET", "/static-files/none", declared) in (0, 413)
            assert flood("POST", search, declared) in (0, 401)
        assert memory(pid) - before < GROWTH
        for path in (search, "/graphql", "/api/2.0/mlflow/runs/log-batch", "/api/2.0/mlflow-artifacts/mpu/create/x"):
            for declared in (length, chunks):
                assert flood("POST", path, declared, login) in (0, 413), path
        assert memory(pid) - before < 2 * GROWTH
        for body in (b" " * SENT, (b" " * MB for _ in range(20)), b" " * (16 * MB + 1)):
            assert client.post(search, content=body).status_code == 413
        largest = json.dumps({"max_results": 1}).ljust(16 * MB).encode()
        kind = {"Content-Type": "application/json"}
        assert client.post(search, content=largest, headers=kind).status_code == 200
        assert client.get("/static-files/none", headers={"Content-Length": "0"}).status_code == 404
        before = memory(pid)
        for declared in (length, chunks):
            size = {"Content-Length": str(SENT)} if declared == length else {}
            blocks = (block for _ in range(SENT // MB))
            assert client.put(f"{artifacts}/large/file", content=blocks, headers=size).status_code == 200
            assert (shared_mlflow.folder / "artifacts" / "large" / "file").stat().st_size == SENT
        assert memory(pid) - before < GROWTH
        client.delete(f"{artifacts}/large/file").raise_for_status()
