"""Labels which clients send when the truth is known."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from tidemill.runtime.capture import LABEL_SCHEMA
from tidemill.runtime.ids import parse_uuid7
from tidemill.runtime.serving.contract import refusal
from tidemill.runtime.serving.problems import FieldError, Problem

__all__ = ["label_table"]

_KEYS = ("request_id", "row", "label")


def label_table(document: dict[str, Any], limit: int) -> pa.Table:
    """Return the labels in `document`, the body of `POST /labels`, at most `limit` of them.

    Raises:
        Problem: 413 for too many, 422 for what is understood and wrong, naming the fields.
    """
    given = document.get("labels")
    errors = [FieldError(key, "unknown key") for key in document if key != "labels"]
    if not isinstance(given, list) or not given:
        raise refusal([*errors, FieldError("labels", "wants a list of at least one label")])
    if len(given) > limit:
        raise Problem(413, f"{len(given)} labels are more than the {limit} which one request may have")
    received = datetime.now(UTC)
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(given):
        try:
            rows.append({**_label(label, f"labels[{index}]"), "received_at": received})
        except FieldError as error:
            errors.append(error)
    if errors:
        raise refusal(errors)
    return pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)


def _label(label: Any, at: str) -> dict[str, Any]:
    if not isinstance(label, dict):
        raise FieldError(at, "wants an object with request_id, row and label")
    for key in label:
        if key not in _KEYS:
            raise FieldError(f"{at}.{key}", "unknown key")
    identifier, row, value = (label.get(key) for key in _KEYS)
    try:
        request_id = str(parse_uuid7(identifier)) if isinstance(identifier, str) else ""
    except ValueError:
        request_id = ""
    if not request_id:
        raise FieldError(f"{at}.request_id", "wants the request_id of an answer")
    if type(row) is not int or not 0 <= row < 1 << 31:
        raise FieldError(f"{at}.row", "wants the position of the row in its request, from 0")
    if type(value) is int and abs(value) < 1 << 53:
        value = float(value)
    if type(value) is not float or not math.isfinite(value):
        raise FieldError(f"{at}.label", "wants a finite number")
    return {"request_id": request_id, "row": row, "label": value}
