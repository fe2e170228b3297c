"""Operations and responses of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....common.problem import PROBLEM_TYPE
from ..content_negotiation import JSON
from .body_schemas import ref

REFUSALS = {
    "400": "The body cannot be parsed.",
    "401": "A valid API key is required.",
    "403": "This API key does not have this use; `tidemill keys list` shows its uses.",
    "406": "No media type that the request accepts is available.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large, or has too many rows or columns; `detail` names the limit and how to raise it.",
    "415": "The media type or the compression of the body is not supported.",
    "422": "The body contains an invalid value; `errors` names the fields and shows the values.",
    "429": "This API key has too many requests in flight. Try again after `Retry-After` seconds.",
    "500": "The model failed on this request; `detail` has the type of its exception.",
    "503": "No version is served yet, or the server is too busy. Try again after `Retry-After` seconds.",
}


def operation(
    identifier: str,
    tag: str,
    summary: str,
    responses: Mapping[str, Any],
    *,
    description: str | None = None,
    request_body: Mapping[str, Any] | None = None,
    public: bool = False,
) -> dict[str, Any]:
    """Return an operation; a `public` one needs no API key."""
    made: dict[str, Any] = {"operationId": identifier, "tags": [tag], "summary": summary, "responses": responses}
    if description is not None:
        made["description"] = description
    if request_body is not None:
        made |= {"parameters": [ref("parameters", "RequestId")], "requestBody": request_body}
    if public:
        made["security"] = []
    return made


def body(schema: Any, examples: Mapping[str, Any], *, other: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a request body: JSON with examples (name -> value), or another media type (media type -> schema)."""
    content: dict[str, Any] = _content({JSON: schema, **(other or {})})
    if examples:
        content[JSON]["examples"] = {name: {"value": value} for name, value in examples.items()}
    return {"required": True, "content": content}


def response(text: str, schema: Any, media_type: str = JSON) -> dict[str, Any]:
    """Return a response with one media type."""
    return {"description": text, "content": _content({media_type: schema})}


def answer(text: str, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response with predictions, by media type, and the headers that name its request and version."""
    headers = {"X-Request-Id": ref("headers", "RequestId"), "X-Tidemill-Model-Version": ref("headers", "Version")}
    return {"description": text, "headers": headers, "content": _content(schemas)}


def problem(text: str) -> dict[str, Any]:
    """Return a response with a problem document; below `/v2`, its media type is that of JSON."""
    schema = ref("schemas", "Problem")
    return {"description": text, "content": _content({PROBLEM_TYPE: schema, JSON: schema})}


def refusals(*statuses: str, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return references to the refusals with `statuses`, or to all except `without`."""
    return {status: ref("responses", status) for status in statuses or REFUSALS if status not in without}


def _content(schemas: Mapping[str, Any]) -> dict[str, Any]:
    return {media_type: {"schema": schema} for media_type, schema in schemas.items()}
