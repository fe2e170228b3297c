"""Traffic and labels as the model server keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from tidemill.runtime.capture import CAPTURE, LABEL_SCHEMA, LABELS, capture_schema, write_segment
from tidemill.runtime.ids import uuid7

OUTPUTS = pa.struct([("score", pa.float64())])


def write_traffic(
    directory: Path,
    features: pd.DataFrame,
    event_times: Sequence[datetime],
    *,
    version: str = "1",
    scores: Sequence[float] | None = None,
    role: str = "champion",
    received_at: datetime | None = None,
) -> list[str]:
    """Write one segment with a request for each row; return the request ids."""
    table = pa.Table.from_pandas(features, preserve_index=False).replace_schema_metadata()
    columns = table.combine_chunks().to_struct_array()
    structs = columns.combine_chunks() if isinstance(columns, pa.ChunkedArray) else columns
    count = len(features)
    ids = [str(uuid7()) for _ in range(count)]
    values: dict[str, Any] = {
        "request_id": ids,
        "client_request_id": [None] * count,
        "row": [0] * count,
        "received_at": [received_at or datetime.now(UTC)] * count,
        "event_time": list(event_times),
        "model": ["flights"] * count,
        "version": [version] * count,
        "role": [role] * count,
        "features": structs,
        "outputs": pa.array([{"score": score} for score in scores or [0.5] * count], OUTPUTS),
    }
    write_segment(pa.table(values, schema=capture_schema(structs.type, OUTPUTS)), directory, CAPTURE)
    return ids


def write_labels(directory: Path, ids: Sequence[str], labels: Sequence[float]) -> None:
    """Write one segment with a label for row 0 of each request."""
    now = [datetime.now(UTC)] * len(ids)
    values = {"request_id": list(ids), "row": [0] * len(ids), "label": [float(x) for x in labels], "received_at": now}
    write_segment(pa.table(values, schema=LABEL_SCHEMA), directory, LABELS)
