"""What schemathesis has to know of the model server; named to it by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def filter_case(_: Any, case: Any) -> bool:
    """CSV, Arrow and binary tensors are more than a schema can say, so only JSON is drawn from it."""
    return case.media_type in (None, "application/json")


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    """Say what a schema cannot: 3.0 is an integer in JSON Schema, and `index` has one label for each row."""
    split = body.get("dataframe_split") if isinstance(body, dict) else None
    if isinstance(split, dict) and isinstance(split.get("index"), list) and isinstance(split.get("data"), list):
        body = {**body, "dataframe_split": {**split, "index": list(range(len(split["data"])))}}
    return _whole(body)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 63:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value
