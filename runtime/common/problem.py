"""Problem documents (RFC 9457), with the field `error` for clients of other protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

PROBLEM_TYPE = "application/problem+json"
"""The media type of a problem document."""


def problem_document(status: int, detail: str, extra: Mapping[str, str] | None = None) -> str:
    """Return a problem document as JSON.

    Args:
        status: HTTP status.
        detail: what is wrong, in one sentence without a full stop.
        extra: more members, for clients of other protocols.
    """
    title = HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail}
    return json.dumps({**document, **(extra or {})})
