"""Prints the start-up progress of a model server and an example request."""

from __future__ import annotations

import http.client
import json
import os
import shlex
import ssl
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...runtime.common.settings import ListenSettings
    from ...runtime.serving.settings import ServingSettings

_POLL_SECONDS, _LATER_POLL_SECONDS = 0.3, 2.0
_LATER_AFTER_SECONDS = 60.0
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - addresses to connect to, not to listen on


def url_of(listen: ListenSettings) -> str:
    """Return the URL of the server on this machine."""
    host = _LOOPBACK.get(listen.host, listen.host)
    return f"{'https' if listen.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{listen.port}"


def announce_in_background(settings: ServingSettings) -> None:
    """Start a process that waits until this process, as the server, is ready; it ends then or with the server."""
    server = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    # Fork twice, so that the server does not get a child it does not know.
    try:
        if os.fork() == 0:
            _announce(settings, server)
    finally:
        os._exit(0)


def _announce(settings: ServingSettings, server: int) -> None:
    said: set[str] = set()
    began = time.monotonic()
    while _is_running(server):
        state = _get_json(settings.listen, "/readyz")
        if state is not None and state.get("ready"):
            _write_line(f"ready: serving version {state['version']} of {settings.model} with engine {state['engine']}")
            _write_line(curl_line(settings.listen, _example_body(settings.listen)))
            return
        error = str(state.get("error", "")) if state is not None else ""
        if state is not None and state.get("gives_up"):
            return  # the server itself says why it ends
        if error and error not in said:
            said.add(error)
            _write_line(f"not ready: {error}; trying again")
        time.sleep(_POLL_SECONDS if time.monotonic() - began < _LATER_AFTER_SECONDS else _LATER_POLL_SECONDS)


def _write_line(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _is_running(process: int) -> bool:
    import psutil

    try:
        # An ended process stays until its parent asks for it, and the parent may be waiting for our output first.
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _get_json(listen: ListenSettings, path: str, *, key: str | None = None) -> dict[str, Any] | None:
    host = _LOOPBACK.get(listen.host, listen.host)
    if listen.tls:
        context = ssl.create_default_context(cafile=str(listen.tls_cert_file))
        # Trust exactly the server's own certificate, for any host name and issuer.
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        connection = http.client.HTTPSConnection(host, listen.port, timeout=5, context=context)
    else:
        connection = http.client.HTTPConnection(host, listen.port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        found = json.loads(connection.getresponse().read())
        return found if isinstance(found, dict) else None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _example_body(listen: ListenSettings) -> Any:
    """Return the example body for `/invocations` from the server's OpenAPI document, or None."""
    from ...runtime.common.secrets import read_secret

    document = _get_json(listen, "/openapi.json", key=read_secret(listen.token_file))
    try:
        operation: Any = (document or {})["paths"]["/invocations"]["post"]
        content: Any = operation["requestBody"]["content"]["application/json"]
        body: Any = next(iter(content["examples"].values()))["value"]
    except (KeyError, TypeError, StopIteration):
        return None
    records = body.get("dataframe_records")
    # One row is enough for an example.
    return {"dataframe_records": records[:1]} if records else body


def curl_line(listen: ListenSettings, body: Any) -> str:
    """Return a bash or zsh command that sends a request; the key stays in its file, out of the process list.

    >>> from pathlib import Path
    >>> from tidemill.runtime.common.settings import ListenSettings
    >>> print(curl_line(ListenSettings(port=8080, token_file=Path("/k")), {"inputs": [1]}))
    curl -s http://127.0.0.1:8080/invocations -H @<(printf 'Authorization: Bearer %s' "$(cat /k)") \
-H 'Content-Type: application/json' -d '{"inputs": [1]}'
    """
    certificate = f" --cacert {shlex.quote(str(listen.tls_cert_file))}" if listen.tls else ""
    key = f"-H @<(printf 'Authorization: Bearer %s' \"$(cat {shlex.quote(str(listen.token_file))})\")"
    data = shlex.quote(json.dumps(body)) if body is not None else "'{\"dataframe_records\": [...]}'"
    return f"curl -s{certificate} {url_of(listen)}/invocations {key} -H 'Content-Type: application/json' -d {data}"
