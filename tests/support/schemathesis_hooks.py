"""What schemathesis has to know of the model server; named to it by SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def filter_case(_: Any, case: Any) -> bool:
    """Leave out what is more than a schema can say: CSV, Arrow, binary tensors, and one label for each row."""
    return case.media_type in (None, "application/json") and _has_label_for_each_row(case.body)


def _has_label_for_each_row(body: Any) -> bool:
    split = body.get("dataframe_split") if isinstance(body, dict) else None
    index, data = (split.get("index"), split.get("data")) if isinstance(split, dict) else (None, None)
    return not (isinstance(index, list) and isinstance(data, list)) or len(index) == len(data)


@schemathesis.hook
def map_body(_: Any, body: Any) -> Any:
    """To JSON Schema 3.0 is an integer; send whole numbers as such."""
    return _whole(body)


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 63:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value
