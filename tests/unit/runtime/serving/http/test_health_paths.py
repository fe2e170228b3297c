"""MLflow's health paths of a server that has no version to serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import metadata
from pathlib import Path

import httpx
from tidemill.runtime.serving.app import create_app
from tidemill.runtime.serving.settings import ServingSettings

from tests.support.servers import free_port, secret_file


def ask(folder: Path, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run `work` with a client of a server whose registry does not answer."""
    settings = {
        "listen": {"port": 1, "token_file": str(secret_file(folder, "key", "key"))},
        "model": "flights",
        "registry": {"tracking_uri": f"http://127.0.0.1:{free_port()}"},
        "cache": str(folder / "cache"),
    }
    app = create_app(ServingSettings.model_validate(settings))

    async def inside() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
        ):
            await work(client)

    asyncio.run(inside())


def test_a_server_without_a_model_is_alive_and_not_healthy(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        for path in ("/ping", "/health"):
            answer = await client.get(path)
            # As the code of MLflow's scoring server without a model.
            assert (answer.status_code, answer.text) == (404, "\n")
            assert answer.headers["content-type"] == "application/json"
        assert (await client.get("/version")).json()["error_code"] == "UNAUTHENTICATED"
        for headers in ({"Authorization": "Bearer key"}, {"X-API-Key": "key"}):
            assert (await client.get("/version", headers=headers)).text == metadata.version("mlflow-skinny")
        assert (await client.get("/version", auth=("any", "key"))).text == metadata.version("mlflow-skinny")

    ask(tmp_path, work)


def test_errors_have_the_media_type_that_clients_of_their_protocol_read(tmp_path: Path) -> None:
    async def work(client: httpx.AsyncClient) -> None:
        for method, path, media_type in (
            ("GET", "/status", "application/problem+json"),
            ("GET", "/nothing", "application/problem+json"),
            ("GET", "/v2", "application/json"),
            ("GET", "/v2/models/flights", "application/json"),
            ("POST", "/invocations", "application/problem+json"),
            ("POST", "/v2/models/flights/infer", "application/json"),
        ):
            answer = await client.request(method, path, content=b"{}" if method == "POST" else None)
            assert answer.headers["content-type"] == media_type, path
            assert answer.json()["error"] == answer.json()["detail"] == answer.json()["message"]
        foreign = await client.get("/ping", headers={"Host": "elsewhere.example.org"})
        assert (foreign.status_code, foreign.json()["error_code"]) == (421, "BAD_REQUEST")

    ask(tmp_path, work)
