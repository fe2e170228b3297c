"""Example requests, built from the example rows of the served version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...codecs.tensors import datatype_of

if TYPE_CHECKING:
    from ...versions.model import ServedModel

_REQUEST_ID = "0198c0de-0000-7000-8000-000000000001"


def label_examples(model: ServedModel | None) -> dict[str, Any]:
    """Return an example for `/labels`, with the last class of a classifier."""
    classes = model.target.classes if model is not None else None
    label = classes[-1] if classes else 1.0
    value = int(label) if label.is_integer() else label
    return {"label": {"labels": [{"request_id": _REQUEST_ID, "row": 0, "label": value}]}}


def invocation_examples(model: ServedModel | None) -> dict[str, Any]:
    """Return an example in each of MLflow's JSON formats."""
    if model is None or not model.example:
        return {}
    rows, names = model.example, model.contract.names
    data = [[row.get(name) for name in names] for row in rows]
    return {
        "records": {"dataframe_records": rows},
        "split": {"dataframe_split": {"columns": list(names), "data": data}},
        "instances": {"instances": rows},
        "inputs": {"inputs": {name: [row.get(name) for row in rows] for name in names}},
    }


def predict_examples(model: ServedModel | None) -> dict[str, Any]:
    """Return an example for `/predict`."""
    return {"rows": {"rows": model.example}} if model is not None and model.example else {}


def inference_examples(model: ServedModel | None) -> dict[str, Any]:
    """Return an example for the Open Inference Protocol; none if a column has no tensor type."""
    if model is None or not model.example or model.contract.is_tensor:
        return {}
    columns, rows = model.contract.columns, model.example
    if any(column.kind == "json" for column in columns):
        return {}
    inputs = [
        {
            "name": column.name,
            "datatype": datatype_of(column),
            "shape": [len(rows)],
            "data": [row.get(column.name) for row in rows],
        }
        for column in columns
    ]
    return {"columns": {"id": "1", "inputs": inputs}}
