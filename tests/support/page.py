"""A stand-in for the model server behind its pages: it says what it is told to, also what no server says so soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tidemill.runtime.serving.page import pages
from tidemill.runtime.serving.telemetry.recent import merge_rates
from tidemill.runtime.serving.telemetry.status_schema import ShadowState, Status

from tests.support.servers import free_port

KEY = "a-key"
HOSTILE = (
    "<script>window.hit = 1</script>",
    "<img src=x onerror='window.hit = 1'>",
    "\"'`);window.hit = 1;//",
    "\u202eright to left \u05d0\u05d1\u05d2",
    "constructor",
    "__proto__",
    "a.b[0].c",
    "x" * 3000,
    "javascript:window.hit=1",
)


SHADOW: ShadowState = {
    "alias": "challenger",
    "version": "8",
    "rows": 12345,
    "disagreement": 0.0123,
    "disagreement_is": "mean absolute difference",
    "dropped": 17,
}


def rates(requests: Callable[[int], int] = lambda _: 0) -> Any:
    """Return the rates of traffic which was `requests(age)` strong so many seconds ago."""
    quiet = merge_rates([])
    counts = [requests(len(quiet["seconds"]) - index) for index in range(len(quiet["seconds"]))]
    return {
        **quiet,
        "requests": counts,
        "rows": counts,
        "p50_ms": [2.0 if count else None for count in counts],
        "p99_ms": [7.5 if count else None for count in counts],
        "batch_rows": [1.5 if count else None for count in counts],
    }


def status(**changes: Any) -> Status:
    told: Status = {
        "model": "flights",
        "alias": "champion",
        "ready": True,
        "registry": "reachable",
        "error": None,
        "trust": [],
        "serving": {
            "version": "7",
            "run_id": "4be1c6a1d0e94b0fa6cf3f2f2f6d6f0e",
            "loaded_at": "2026-11-25T08:01:02.123Z",
            "engine": "tl2cgen",
            "compiled": True,
            "engine_note": "within 6e-16 of the model itself on 1000 rows",
            "merges_requests": False,
            "merging_note": "requests are not merged: its rows depend on each other",
            "output": "score",
            "lineage": {"git_commit": "decade" * 6, "lake_repository": "flights", "lake_commit": "c0ffee" * 10},
            "metrics": {"roc_auc": 0.71723, "rows": 327346.0, "loss": 1.25e-7, "gain": None},
            "columns": [
                {"name": "distance", "kind": "double", "required": True},
                {"name": "hour", "kind": "long", "required": True},
                {"name": "carrier", "kind": "string", "required": False},
                {"name": "wind", "kind": "float", "required": False},
                {"name": "night", "kind": "boolean", "required": False},
                {"name": "planned", "kind": "datetime", "required": True},
                {"name": "embedding", "kind": "json", "required": True},
            ],
            "example": [
                {
                    "distance": 1400.5,
                    "hour": 9007199254740993,
                    "carrier": "UA",
                    "wind": None,
                    "night": True,
                    "planned": "2013-07-01T12:00:00Z",
                    "embedding": [0.5, 1],
                },
                {
                    "distance": 200,
                    "hour": 5,
                    "carrier": None,
                    "wind": 4.5,
                    "night": None,
                    "planned": "",
                    "embedding": 1,
                },
            ],
        },
        "shadow": SHADOW,
        "capture": {"written": 123456, "dropped": 3},
        "workers": [{"pid": 4242, "version": "7", "engine": "tl2cgen", "ready": True, "requests": 51234}],
        "swaps": [{"at": "2026-11-25T08:01:02Z", "from": None, "to": "7", "seconds": 4.31, "error": None}],
        "rates": rates(),
    }
    return {**told, **changes}


@dataclass
class StandIn:
    """Says what it is told to say."""

    port: int = field(default_factory=free_port)
    status: Status = field(default_factory=status)
    answer: tuple[int, dict[str, Any]] = (200, {})
    openapi: dict[str, Any] = field(default_factory=dict[str, Any])
    bodies: list[str] = field(default_factory=list[str])
    asked: int = 0
    ill: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def app(self) -> Starlette:
        async def page(request: Request) -> Response:
            code, headers, body = pages()[request.url.path].respond(request.headers.get("if-none-match"))
            return Response(body, code, headers=dict(headers))

        async def closed(request: Request) -> Response:
            if request.headers.get("authorization") != f"Bearer {KEY}":
                return JSONResponse({"detail": "no"}, 401)
            self.asked += 1
            if self.ill:
                return Response("upstream is gone", 502)
            return JSONResponse(self.status if request.url.path == "/status" else self.openapi)

        async def predict(request: Request) -> Response:
            self.bodies.append((await request.body()).decode())
            code, document = self.answer
            return JSONResponse(document, code)

        return Starlette(
            routes=[
                Route("/", page),
                Route("/docs", page),
                Route("/status", closed),
                Route("/openapi.json", closed),
                Route("/predict", predict, methods=["POST"]),
            ]
        )


@contextmanager
def stand_in() -> Iterator[StandIn]:
    server = StandIn()
    running = uvicorn.Server(uvicorn.Config(server.app(), port=server.port, log_level="warning", ws="none"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(20)


CONTRAST = """
const lightness = (color) => {
  const [red, green, blue] = color.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$/.test(color)) return color;
  }
  return getComputedStyle(document.documentElement).backgroundColor;
};
const poor = [];
for (const element of document.body.querySelectorAll('*')) {
  const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!says || !element.checkVisibility() || element.closest('svg, script')) continue;
  const [dark, light] = [lightness(getComputedStyle(element).color), lightness(ground(element))].sort((a, b) => a - b);
  if ((light + 0.05) / (dark + 0.05) < 4.5) poor.push(element.outerHTML.slice(0, 200));
}
return poor;
"""
UNLABELLED = """
return [...document.querySelectorAll('input, select, textarea, button, svg[role]')]
  .filter((one) => one.checkVisibility())
  .filter((one) => !one.labels?.length && !one.getAttribute('aria-label') && !one.textContent.trim())
  .map((one) => one.outerHTML.slice(0, 200));
"""

DESCRIPTION: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "flights", "version": "7", "description": "Will it be late?"},
    "paths": {
        "/predict": {
            "post": {
                "tags": ["predictions"],
                "summary": "Answer rows",
                "parameters": [{"name": "x-request-id", "in": "header", "schema": {"type": "string"}}],
                "requestBody": {
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/Rows"},
                            "examples": {"one": {"summary": "One row", "value": {"rows": [{"distance": 1}]}}},
                        }
                    }
                },
                "responses": {
                    "200": {"description": "One answer a row"},
                    "422": {"$ref": "#/components/responses/P"},
                },
            }
        },
        **{f"/{word}": {"get": {"summary": word, "responses": {}}} for word in HOSTILE},
    },
    "components": {
        "schemas": {
            "Rows": {
                "type": "object",
                "required": ["rows"],
                "properties": {"rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}},
            },
            "Row": {
                "type": "object",
                "properties": {
                    "distance": {"type": ["number", "null"], "minimum": 0, "description": "in miles"},
                    "again": {"$ref": "#/components/schemas/Row"},
                },
            },
            **{word: {"enum": [word]} for word in HOSTILE},
        },
        "responses": {"P": {"description": "Understood and wrong"}},
    },
}
