"""Checks each request before MLflow does: its account, and whether the table permits the route to this account.

The answer is 401 without valid credentials, and 403 if the table does not permit the route. MLflow's own checks of
permissions on single experiments and models come after it. Bodies are limited, except uploads.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from .accounts import ADMIN, CURRENT, Account, role_names, service_of
from .mlflow_bodies import WholeBody, answer
from .mlflow_routes import PUBLIC, TABLE, Route, canonical, permits

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flask import Flask
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    from starlette.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("tidemill.registry")
_CHALLENGE = ((b"www-authenticate", b'Basic realm="mlflow"'),)
# MLflow reads credentials from this header too.
_SECOND_CREDENTIALS = b"x-mlflow-authorization"
_HINTS = {"experiments/create": "add the model to `models` in the stack config and run `tidemill up`"}
_CACHED = 1000
# MLflow holds the whole body in memory. Its largest requests are of 1 MB: 1,000 metrics, parameters and tags.
_BODY_BYTES = 16 * 1024 * 1024
_BODY_SECONDS = 60.0
# MLflow writes the bodies of these routes to a file as they arrive.
_STREAMED = frozenset(
    ("PUT", f"/{prefix}/2.0/mlflow-artifacts/artifacts/<artifact_path>") for prefix in ("api", "ajax-api")
)
_UPLOAD = re.compile(r"/(?:ajax-)?api/2\.0/mlflow-artifacts/(?:artifacts|mpu/\w+)/(.*)", re.DOTALL)
# The parts of a path whose writes the log records.
_RECORDED = re.compile(r"/(?:alias|model-versions|registered-models|experiments|users|roles|webhooks|gateway)\b")


class Routes:
    """The routes that an MLflow application registers, and the one that serves a request."""

    def __init__(self, app: FastAPI, flask: Flask) -> None:
        from fastapi.routing import iter_route_contexts
        from starlette.routing import compile_path

        self._native: list[tuple[frozenset[str], re.Pattern[str], str]] = []
        for context in iter_route_contexts(app.routes):
            if context.path and context.methods:
                self._native.append((frozenset(context.methods), compile_path(context.path)[0], context.path))
        self._flask = flask.url_map

    def all(self) -> frozenset[Route]:
        """Return every route, with its path as in the table; a route of both frameworks is one."""
        native = {(method, canonical(path)) for methods, _, path in self._native for method in methods}
        flask = {
            (method, canonical(rule.rule))
            for rule in self._flask.iter_rules()
            for method in rule.methods or frozenset()
        }
        # Flask adds these two to each route.
        return frozenset(route for route in native | flask if route[0] not in ("HEAD", "OPTIONS"))

    def find(self, method: str, path: str) -> Route | None:
        """Return the route that serves `method` and `path`, or None; FastAPI's come first, as in MLflow."""
        for methods, pattern, template in self._native:
            if method in methods and pattern.match(path):
                return method, canonical(template)
        try:
            rule, _ = self._flask.bind("localhost").match(path, method=method, return_rule=True)
        except (HTTPException, RequestRedirect):
            return None
        return "GET" if method == "HEAD" else method, canonical(rule.rule)


class Credentials:
    """Finds the account of a request in MLflow's database; a change there applies to the next request."""

    def __init__(self, store: SqlAlchemyStore) -> None:
        self._store = store
        # Verifying a password takes 0.1 s or more. An entry is valid as long as the stored hash is the same.
        self._verified: dict[tuple[str, bytes], str] = {}
        self._key = secrets.token_bytes(32)

    def account(self, headers: Iterable[tuple[bytes, bytes]]) -> Account | None:
        """Return the account whose name and password are in `headers`, or None."""
        from mlflow.exceptions import MlflowException

        login = _basic([value for name, value in headers if name == b"authorization"])
        if login is None:
            return None
        username, password = login
        try:
            user = self._store.get_user(username)
        except MlflowException:
            # As slow as a wrong password, so that the time does not tell which names exist.
            self._store.authenticate_user(ADMIN, password)
            return None
        key = (username, hmac.new(self._key, password.encode(), hashlib.sha256).digest())
        if self._verified.get(key) != user.password_hash:
            if not self._store.authenticate_user(username, password):
                return None
            if len(self._verified) >= _CACHED:
                self._verified.clear()
            self._verified[key] = user.password_hash
        if user.is_admin:
            return Account(username, frozenset(), admin=True)
        if service := service_of(username):
            return Account(username, frozenset({service}))
        return Account(username, role_names(role.name for role in self._store.list_user_roles(user.id)))


class Guard:
    """ASGI middleware that lets a request pass to `app` if the table permits it to the request's account.

    `upload_problem` returns why a path of the artifact store cannot be written, or None.
    """

    def __init__(
        self, app: ASGIApp, routes: Routes, credentials: Credentials, upload_problem: Callable[[str], str | None]
    ) -> None:
        self._app = app
        self._limited = WholeBody(app, limit=_BODY_BYTES, seconds=_BODY_SECONDS)
        self._without_body = WholeBody(app, limit=0, seconds=_BODY_SECONDS)
        self._routes = routes
        self._credentials = credentials
        self._upload_problem = upload_problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, 403 or 404, or pass the request on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        method, path = scope["method"], scope["path"]
        route = self._routes.find(method, path)
        if route and TABLE.get(route) == PUBLIC:
            await self._without_body(scope, receive, send)
            return
        account = await run_in_threadpool(self._credentials.account, scope["headers"])
        if account is None:
            await answer(send, 401, "UNAUTHENTICATED", "a user name and its password are required", _CHALLENGE)
            return
        if not account.admin and (route is None or not permits(route, account.roles)):
            await self._refuse(send, account, route, f"{method} {path}")
            return
        # The stores read it.
        CURRENT.set(account)
        if not account.admin and route and (upload := _UPLOAD.match(path)) and route[0] != "GET":
            problem = await run_in_threadpool(self._upload_problem, upload[1])
            if problem:
                await answer(send, 403, "PERMISSION_DENIED", f"cannot write {upload[1]}: {problem}")
                return
        if route and route[0] != "GET" and _RECORDED.search(route[1]) and not route[1].endswith("/search"):
            log.info("request", extra={"account": account.name, "method": method, "route": route[1]})
        headers = [pair for pair in scope["headers"] if pair[0] != _SECOND_CREDENTIALS]
        await (self._app if route in _STREAMED else self._limited)({**scope, "headers": headers}, receive, send)

    async def _refuse(self, send: Send, account: Account, route: Route | None, request: str) -> None:
        if route is None:
            await answer(send, 404, "ENDPOINT_NOT_FOUND", f"there is no route {request}")
            return
        log.warning("refused", extra={"account": account.name, "method": route[0], "route": route[1]})
        roles = ", ".join(sorted(account.roles)) or "none"
        hint = _HINTS.get(route[1].rpartition("/mlflow/")[2], "ask the administrator")
        message = f"the account {account.name} (roles: {roles}) may not use {' '.join(route)}; {hint}"
        await answer(send, 403, "PERMISSION_DENIED", message)


def _basic(values: Sequence[bytes]) -> tuple[str, str] | None:
    """Return name and password of the only value of the header `Authorization`, or None if it is not well-formed.

    >>> _basic([b"Basic YW5hOnM6MQ=="])
    ('ana', 's:1')
    >>> [_basic(values) for values in ([], [b"Bearer x"], [b"Basic !"], [b"Basic eA=="], [b"Basic eDp5"] * 2)]
    [None, None, None, None, None]
    """
    if len(values) != 1:
        return None
    scheme, _, encoded = values[0].partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        # MLflow's two parsers differ outside of ASCII.
        username, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("ascii").partition(":")
    except ValueError:
        return None
    well_formed = username and colon and password and (username + password).isprintable()
    return (username, password) if well_formed else None
