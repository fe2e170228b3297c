"""What several parts of the OpenAPI document are made of."""

from __future__ import annotations

from typing import Any

__all__ = ["PROBLEM", "REFUSALS", "UUID7", "answer", "examples", "ref", "refusal", "refusals"]

PROBLEM = "application/problem+json"
REFUSALS = {
    "400": "The body cannot be read as what it says it is.",
    "401": "A valid API key is needed.",
    "406": "The answer cannot be given in a form which the request accepts.",
    "408": "The body did not come in time.",
    "413": "The body, or the number of its rows or columns, is larger than allowed.",
    "415": "The body is of a type, or packed in a way, which is not taken.",
    "422": "The body was understood, and a value in it is wrong; `errors` names the fields.",
    "429": "This API key has too many requests under way. Try again after `Retry-After` seconds.",
    "500": "The model failed on this request.",
    "503": "No version serves yet, or there is too much to do. Try again after `Retry-After` seconds.",
}
UUID7 = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"


def ref(kind: str, name: str) -> dict[str, Any]:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def refusal(status: str, text: str) -> dict[str, Any]:
    """Return a response which is a problem document."""
    response: dict[str, Any] = {
        "description": text,
        "content": {PROBLEM: {"schema": ref("schemas", "Problem")}},
    }
    if status in ("429", "503"):
        response["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string"}}}
    return response


def refusals(*without: str) -> dict[str, Any]:
    """Return references to all refusals but some."""
    return {status: ref("responses", status) for status in REFUSALS if status not in without}


def answer(text: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return a response which says where it comes from."""
    headers = {"X-Request-Id": ref("headers", "RequestId"), "X-Tidemill-Model-Version": ref("headers", "Version")}
    return {"description": text, "headers": headers, "content": content}


def examples(found: dict[str, Any]) -> dict[str, Any]:
    """Return the examples of a body, name -> value; nothing where there are none."""
    return {"examples": {name: {"value": value} for name, value in found.items()}} if found else {}
