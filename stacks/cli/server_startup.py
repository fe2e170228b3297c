"""Says what becomes of a server which this process turns into: what it waits for, and how it is asked once it can."""

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

__all__ = ["announce_beside", "curl_line", "url_of"]

_POLL_SECONDS, _LATER_SECONDS = 0.3, 2.0
_SOON = 60.0
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is where they answer on this machine


def url_of(listen: ListenSettings) -> str:
    """Return where the server answers, as seen from this machine."""
    host = _ANYWHERE.get(listen.host, listen.host)
    return f"{'https' if listen.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{listen.port}"


def announce_beside(settings: ServingSettings) -> None:
    """Have a process beside this one announce the server which this one becomes; it ends when it has, or with that."""
    server = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    # Twice, so that the server has no child which it knows nothing of.
    try:
        if os.fork() == 0:
            _announce(settings, server)
    finally:
        os._exit(0)


def _announce(settings: ServingSettings, server: int) -> None:
    said = ""
    began = time.monotonic()
    while _lives(server):
        state = _get(settings.listen, "/readyz")
        if state is not None and state.get("ready"):
            _say(f"ready: version {state['version']} of {settings.model} answers, engine {state['engine']}")
            _say(curl_line(settings.listen, _example(settings.listen)))
            return
        error = str(state.get("error", "")) if state is not None else ""
        if error and error != said:
            said = error
            _say(f"not ready: {error}; it goes on trying")
        time.sleep(_POLL_SECONDS if time.monotonic() - began < _SOON else _LATER_SECONDS)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _get(listen: ListenSettings, path: str, *, key: str | None = None) -> dict[str, Any] | None:
    host = _ANYWHERE.get(listen.host, listen.host)
    if listen.tls:
        context = ssl.create_default_context(cafile=str(listen.tls_cert_file))
        # The certificate is the server's own, whatever name it bears and whoever signed it.
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


def _example(listen: ListenSettings) -> Any:
    """Return a body which `/invocations` takes, as the server's own description gives it, or None."""
    from ...runtime.common.secrets import read_secret

    described = _get(listen, "/openapi.json", key=read_secret(listen.token_file))
    try:
        operation: Any = (described or {})["paths"]["/invocations"]["post"]
        content: Any = operation["requestBody"]["content"]["application/json"]
        body: Any = next(iter(content["examples"].values()))["value"]
    except (KeyError, TypeError, StopIteration):
        return None
    records = body.get("dataframe_records")
    # One row shows as much as several.
    return {"dataframe_records": records[:1]} if records else body


def curl_line(listen: ListenSettings, body: Any) -> str:
    """Return a command for bash or zsh which asks the server; the key stays in its file and off the process list.

    >>> from pathlib import Path
    >>> from tidemill.runtime.common.settings import ListenSettings
    >>> print(curl_line(ListenSettings(port=8080, token_file=Path("/k")), {"inputs": [1]}))
    curl -s http://127.0.0.1:8080/invocations -H @<(printf 'Authorization: Bearer %s' "$(cat /k)") \
-H 'Content-Type: application/json' -d '{"inputs": [1]}'
    """
    certificate = f" --cacert {shlex.quote(str(listen.tls_cert_file))}" if listen.tls else ""
    key = f"-H @<(printf 'Authorization: Bearer %s' \"$(cat {shlex.quote(str(listen.token_file))})\")"
    sent = shlex.quote(json.dumps(body)) if body is not None else "'{\"dataframe_records\": [...]}'"
    return f"curl -s{certificate} {url_of(listen)}/invocations {key} -H 'Content-Type: application/json' -d {sent}"
