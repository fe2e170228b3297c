"""The health that `status` derives from the answers of services."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from tidemill.components.targets.http_get import http_get
from tidemill.components.targets.operations import ServiceState
from tidemill.runtime.common.errors import UnreachableError
from tidemill.stacks.loading import load_stack
from tidemill.stacks.overview import ServiceView, model_view, overview

from tests.support.platform import ROOT

NAME = "serving-flights"


class Answers:
    """Operations of one service that answers `/healthz` with 200, and `/readyz` as the test says."""

    def __init__(self, status: int, body: Any, *, state: Any = "running") -> None:
        self.state, self.problem, self.gone = state, None, False
        content = json.dumps(body).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status if self.path == "/readyz" else 200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    def services(self) -> list[ServiceState]:
        return [ServiceState(NAME, self.state, pid=1, problem=self.problem)]

    def url(self, service: str) -> str:
        del service
        return f"http://127.0.0.1:{self.server.server_port}"

    def ask(self, service: str, path: str, *, token: str | None = None) -> tuple[int, bytes] | None:
        del token
        if self.gone and path == "/readyz":
            raise UnreachableError("it has just stopped")
        return http_get(f"{self.url(service)}{path}")

    def version(self, service: str) -> None: ...

    def log_place(self, name: str) -> str:
        return name


def view(answers: Answers) -> ServiceView:
    try:
        (found,) = overview(load_stack(Path(ROOT), "flights-dev"), answers).services  # type: ignore[arg-type]
    finally:
        answers.server.shutdown()
        answers.server.server_close()
    return found


READY = {"ready": True, "version": "1"}


@pytest.mark.parametrize(
    ("status", "body", "healthy", "problem", "degraded", "awaits"),
    [
        (200, READY, True, None, False, False),
        (200, {**READY, "error": "no alias"}, True, "no alias", True, False),
        (503, {"error": "no alias", "awaits_first_version": True}, False, "not ready: no alias", False, True),
        (503, {"error": "no alias"}, False, "not ready: no alias", False, False),
        (503, {"status": "the reconciler has stopped"}, False, "not ready: the reconciler has stopped", False, False),
        (503, ["odd"], False, "not ready: no reason given", False, False),
        (404, {}, True, None, False, False),
    ],
)
def test_a_service_that_is_not_ready_is_not_healthy(
    status: int, body: Any, healthy: bool, problem: str | None, degraded: bool, awaits: bool
) -> None:
    found = view(Answers(status, body))
    assert found.alive
    assert (found.healthy, found.problem, found.degraded) == (healthy, problem, degraded)
    assert found.awaits_first_version == awaits


def test_a_service_without_its_supervisor_is_not_healthy() -> None:
    found = view(Answers(200, READY, state="unsupervised"))
    assert (found.state, found.alive, found.healthy) == ("unsupervised", True, False)
    assert "not supervised" in (found.problem or "")
    assert "tidemill start" in (found.problem or "")


def test_a_service_that_stops_meanwhile_is_no_error() -> None:
    answers = Answers(200, READY)
    answers.gone = True
    with pytest.raises(UnreachableError):
        answers.ask(NAME, "/readyz")
    answers.problem = ""  # type: ignore[assignment]
    loaded = load_stack(Path(ROOT), "flights-dev")
    loaded.config.models.clear()
    try:
        (found,) = overview(loaded, answers).services  # type: ignore[arg-type]
    finally:
        answers.server.shutdown()
        answers.server.server_close()
    assert found.healthy


@pytest.mark.parametrize(("said", "trust"), [({"trust": ["pickle"]}, ["pickle"]), ({"trust": []}, []), ({}, [])])
def test_a_server_that_trusts_pickles_says_so(said: Any, trust: list[str]) -> None:
    answers = Answers(200, {**READY, **said})
    try:
        assert list(model_view(answers, "flights").trust) == trust  # type: ignore[arg-type]
    finally:
        answers.server.shutdown()
        answers.server.server_close()
