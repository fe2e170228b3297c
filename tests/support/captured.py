"""Traffic and labels as the model server keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tidemill.runtime.capture import CAPTURE, LABEL_SCHEMA, LABELS, capture_schema, write_segment
from tidemill.runtime.capture.columns import Privacy
from tidemill.runtime.common.ids import uuid7, uuid7_at
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.inference.batch import Batch, Outputs
from tidemill.runtime.serving.recording.writer import CapturedRequest

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
    privacy: Privacy | None = None,
    key: str | None = None,
) -> list[str]:
    """Write one segment with a request for each row; return the request ids."""
    kept = privacy or Privacy()
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
        "key": [key] * count,
        "features": kept.apply(structs),
        "outputs": pa.array([{"score": score} for score in scores or [0.5] * count], OUTPUTS),
        "answer": [None] * count,
    }
    schema = capture_schema(kept.type_of(structs.type), OUTPUTS, kept.omitted(structs.type))
    write_segment(pa.table(values, schema=schema), directory, CAPTURE)
    return ids


def write_labels(directory: Path, ids: Sequence[str], labels: Sequence[float], *, key: str | None = None) -> None:
    """Write one segment with a label for row 0 of each request."""
    now = [datetime.now(UTC)] * len(ids)
    values = {"request_id": list(ids), "row": [0] * len(ids), "label": [float(x) for x in labels], "received_at": now}
    values["key"] = [key] * len(ids)
    values["output"] = [None] * len(ids)
    write_segment(pa.table(values, schema=LABEL_SCHEMA), directory, LABELS)


def served_model(version: str = "1", *columns: Column, output: str = "score", of: pa.DataType | None = None) -> Any:
    """Return what the capture needs to know of a loaded version; by default of a number and a text."""
    given = columns or (Column("distance", "double"), Column("carrier", "string", required=False))
    return SimpleNamespace(
        info=SimpleNamespace(model="flights", version=version, alias="champion"),
        contract=Contract(given),
        output=output,
        output_type=pa.struct([(output, of or pa.float64())]),
    )


def labels(*values: float, request_id: str) -> pa.Table:
    """Return a label for each row of a request."""
    now = datetime.now(UTC)
    rows = [
        {"request_id": request_id, "row": row, "label": value, "received_at": now} for row, value in enumerate(values)
    ]
    return pa.Table.from_pylist(rows, schema=LABEL_SCHEMA)


_MODEL = served_model()


def captured(
    rows: int = 1,
    *,
    model: Any = None,
    request_id: str | None = None,
    role: str = "champion",
    values: list[tuple[Any, ...]] | pa.RecordBatch | None = None,
    received_at: float | None = None,
    event_times: Sequence[datetime] | None = None,
    outputs: Outputs | None = None,
) -> CapturedRequest:
    """Return a request of `rows` rows as the server captures it."""
    moment = datetime.now(UTC).timestamp() if received_at is None else received_at
    given = [(float(row), None) for row in range(rows)] if values is None else values
    return CapturedRequest(
        str(uuid7_at(moment)) if request_id is None else request_id,
        None,
        moment,
        model or _MODEL,
        role,
        Batch(rows, given, event_times),
        np.full(rows, 0.5) if outputs is None else outputs,
    )
