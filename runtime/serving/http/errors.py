"""Problem documents (RFC 9457), the answers to failed requests, with members for clients of other protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from json.encoder import encode_basestring_ascii

from starlette.responses import Response

from ...common.problem import PROBLEM_TYPE, problem_document

_MAX_ERRORS = 20
# The names of MLflow's `ErrorCode`. Its scoring server answers 400 where we answer 422.
_ERROR_CODES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}


def problem_media_type(path: str) -> str:
    """Return the media type of problem documents at `path`.

    Clients of the Open Inference Protocol, such as KServe's, read `error` only from `application/json`.
    """
    return "application/json" if path.startswith("/v2") else PROBLEM_TYPE


def mlflow_members(status: int, detail: str) -> dict[str, str]:
    """Return `error_code` and `message`, as in the error documents of MLflow's servers."""
    return {"error_code": _ERROR_CODES.get(status, "BAD_REQUEST"), "message": detail}


class FieldError(ValueError):
    """A value of a request is invalid.

    Args:
        field: its position, such as `dataframe_records[0].distance`.
        message: what is wrong and what is expected.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class Problem(Exception):  # noqa: N818 - its name in RFC 9457
    """A request fails and is answered with a problem document.

    Args:
        status: HTTP status.
        detail: what is wrong, in one sentence without a full stop.
        errors: the invalid fields.
        headers: additional response headers.
    """

    def __init__(
        self, status: int, detail: str, *, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def encoded(self, request_id: str | None = None, client_request_id: str | None = None) -> bytes:
        """Return the document as JSON, with the ids that the request has."""
        # The standard library's JSON can encode half a surrogate pair, which a field's name may contain.
        text = _start(self.status, self.detail)
        if self.errors:
            errors = [{"field": error.field, "message": error.message} for error in self.errors[:_MAX_ERRORS]]
            text += f', "errors": {json.dumps(errors)}'
        if request_id is not None:
            text += f', "request_id": {encode_basestring_ascii(request_id)}'
        if client_request_id is not None:
            text += f', "client_request_id": {encode_basestring_ascii(client_request_id)}'
        return f"{text}}}".encode()

    def response(self, path: str) -> Response:
        """Return the response to a request to `path` without an id."""
        media_type = problem_media_type(path)
        return Response(self.encoded(), status_code=self.status, headers=self.headers, media_type=media_type)


@lru_cache(maxsize=64)
def _start(status: int, detail: str) -> str:
    """Return the first members of a document; cached, because a busy server refuses many requests equally."""
    return problem_document(status, detail, mlflow_members(status, detail)).removesuffix("}")
