"""HTTP responses of the hot routes: status, body and head lines."""

from __future__ import annotations

import logging
import re
import secrets
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..engines.errors import kind_and_message
from ..protocols.base import EncodedResponse
from .errors import Problem, problem_media_type
from .request_context import RequestContext

_log = logging.getLogger(__name__)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,99}")
_LOGGED_CHARACTERS = 2_000


@dataclass(slots=True)
class HttpResponse:
    """A response; `headers` are those that only this response has."""

    status: int
    body: bytes
    media_type: str
    headers: Mapping[str, str]


def build_response(context: RequestContext, result: EncodedResponse | Exception) -> HttpResponse:
    """Return the response for `result`; log an exception that is not a Problem."""
    if isinstance(result, EncodedResponse):
        return HttpResponse(200, result.body, result.media_type, result.headers)
    problem = result if isinstance(result, Problem) else _failure(context, result)
    body = problem.encoded(context.request_id, context.client_request_id)
    return HttpResponse(problem.status, body, problem_media_type(context.path), problem.headers)


def _failure(context: RequestContext, error: Exception) -> Problem:
    """Log an exception of the model; return the problem, which names only its type: its message may quote features."""
    kind, message = kind_and_message(error)
    where = "".join(traceback.format_tb(error.__traceback__))
    text = f"{kind}: {message}"[:_LOGGED_CHARACTERS]
    _log.error("a request failed", extra={"request_id": context.request_id, "error": text, "where": where})
    shown = f" ({kind})" if _TYPE_NAME.fullmatch(kind) else ""
    return Problem(500, f"the model failed on this request{shown}")


def head_lines(context: RequestContext, response: HttpResponse) -> tuple[str, bool]:
    """Return the header lines of `response`, each with its line end, and whether to close the connection after it.

    The lines do not contain `connection: close`: a connection can also close for other reasons.
    """
    lines = (
        f"{_line('content-type', response.media_type)}content-length: {len(response.body)}\r\n"
        f"x-request-id: {context.request_id}\r\n{_line('x-tidemill-model-version', context.version)}"
    )
    if context.trace is not None:
        # The client's trace, with a span of ours.
        trace = context.trace
        lines += f"traceparent: {trace[:36]}{secrets.token_hex(8)}{trace[52:]}\r\n"
    close = False
    for name, value in response.headers.items():
        if (name, value) == ("Connection", "close"):
            close = True
        else:
            lines += _line(name.lower(), value)
    return lines, close


@lru_cache(maxsize=256)
def _line(name: str, value: str) -> str:
    """Return one header line, without control characters; empty if `value` is empty."""
    return f"{name}: {_CONTROL.sub('', value)}\r\n" if value else ""
