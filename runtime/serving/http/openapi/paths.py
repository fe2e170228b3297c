"""The Open Inference Protocol's paths, and those for whoever runs the server, in the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...codecs.tensors import DATATYPES, datatype_of
from ...protocols.open_inference import HEADER_LENGTH
from ...settings import LimitSettings, ServingSettings
from ..content_negotiation import JSON, OCTETS
from .parts import PROBLEM, answer, examples, ref, refusals

if TYPE_CHECKING:
    from ...versions.model import ServedModel

__all__ = ["inference_paths", "management_paths"]

_OPEN: list[dict[str, Any]] = []
_CLOSED = ("400", "406", "408", "413", "415", "422", "429", "500", "503")


def inference_paths(model: ServedModel | None, settings: ServingSettings) -> dict[str, Any]:
    """Return the paths of the protocol, for `model` where one serves."""
    name: dict[str, Any] = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "enum": [settings.model]},
    }
    served: dict[str, Any] = {"type": "string"}
    if model is not None:
        served["enum"] = [model.info.version]
    number = {"name": "version", "in": "path", "required": True, "schema": served}
    paths: dict[str, Any] = {
        "/v2": {"get": _get("v2Server", "Say what this server is", _server_metadata(), *_CLOSED)},
        "/v2/health/live": {"get": _probe("v2Live", "Say whether the server lives")},
        "/v2/health/ready": {"get": _probe("v2Ready", "Say whether it can answer")},
    }
    for path, parameters, suffix in (
        ("/v2/models/{name}", [name], ""),
        ("/v2/models/{name}/versions/{version}", [name, number], "OfVersion"),
    ):
        missing = {"404": _problem("There is no such model or version here.")}
        about = _get(f"v2Model{suffix}", "Say what the model takes and gives", _model_metadata(), *_CLOSED[:-1])
        about["responses"] |= missing
        ready = _get(f"v2ModelReady{suffix}", "Say whether the model can answer", _readiness(), *_CLOSED[:-1])
        ready["responses"] |= missing
        infer = _infer(model, settings.limits, suffix)
        infer["responses"] |= missing
        paths[path] = {"parameters": parameters, "get": about}
        paths[f"{path}/ready"] = {"parameters": parameters, "get": ready}
        paths[f"{path}/infer"] = {"parameters": parameters, "post": infer}
    return paths


def management_paths() -> dict[str, Any]:
    """Return the paths by which the server is watched."""
    status = {"type": "object", "properties": {"model": {"type": "string"}, "ready": {"type": "boolean"}}}
    ready = {"200": _json("It can answer.", _readiness()), "503": _json("It cannot answer.", _readiness())}
    text: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    page: dict[str, Any] = {"text/html": {"schema": {"type": "string"}}}
    metrics = _get("metrics", "Give the metrics, as Prometheus takes them", {}, *_CLOSED)
    metrics["responses"]["200"] = {"description": "The metrics of all workers.", "content": text}
    return {
        "/healthz": {"get": _probe("healthz", "Say whether the server lives")},
        "/readyz": {"get": {**_about("readyz", "Say which version serves"), "security": _OPEN, "responses": ready}},
        "/metrics": {"get": metrics},
        "/status": {"get": _get("status", "Say what serves, how busy it is, and what was swapped", status, *_CLOSED)},
        "/openapi.json": {"get": _get("openapi", "Give this document", {"type": "object"}, *_CLOSED)},
        "/": {
            "get": {
                **_about("page", "Show what serves, with a form to try it"),
                "security": _OPEN,
                "responses": {"200": {"description": "A page.", "content": page}},
            }
        },
    }


def _about(operation: str, summary: str) -> dict[str, Any]:
    tag = "open inference protocol" if operation.startswith("v2") else "operation"
    return {"operationId": operation, "tags": [tag], "summary": summary}


def _get(operation: str, summary: str, schema: dict[str, Any], *without: str) -> dict[str, Any]:
    responses = {"200": _json("So it is.", schema), **refusals(*without)}
    return {**_about(operation, summary), "responses": responses}


def _probe(operation: str, summary: str) -> dict[str, Any]:
    schema = {"type": "object"}
    responses = {"200": _json("It does.", schema)}
    if operation == "v2Ready":
        responses["503"] = _json("It does not.", schema)
    return {**_about(operation, summary), "security": _OPEN, "responses": responses}


def _json(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {JSON: {"schema": schema}}}


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {PROBLEM: {"schema": ref("schemas", "Problem")}}}


def _server_metadata() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {"name": text, "version": text, "extensions": {"type": "array", "items": text}},
        "required": ["name", "version", "extensions"],
    }


def _readiness() -> dict[str, Any]:
    return {"type": "object", "properties": {"ready": {"type": "boolean"}}, "required": ["ready"]}


def _model_metadata() -> dict[str, Any]:
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string", "enum": list(DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer"}},
        },
        "required": ["name", "datatype", "shape"],
    }
    tensors = {"type": "array", "items": tensor}
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "versions": {"type": "array", "items": {"type": "string"}},
            "platform": {"type": "string"},
            "inputs": tensors,
            "outputs": tensors,
        },
        "required": ["name", "platform", "inputs", "outputs"],
    }


def _infer(model: ServedModel | None, limits: LimitSettings, suffix: str) -> dict[str, Any]:
    tensor = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "A column, or any other name for one tensor of all columns."},
            "datatype": {"type": "string", "enum": list(DATATYPES)},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1, "maxItems": 16},
            "parameters": {"type": ["object", "null"]},
            "data": {"type": "array", "items": {}},
        },
        "required": ["name", "datatype", "shape"],
        "additionalProperties": False,
    }
    named: dict[str, Any] = {"type": "string"} if model is None else {"type": "string", "enum": [model.output]}
    output = {
        "type": "object",
        "properties": {"name": named, "parameters": {"type": ["object", "null"]}},
        "required": ["name"],
    }
    schema = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"], "description": "Said again in the answer."},
            "parameters": {"type": ["object", "null"]},
            "inputs": {"type": "array", "items": tensor, "minItems": 1, "maxItems": limits.columns},
            "outputs": {"type": "array", "items": output, "maxItems": 1},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }
    answered = {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": {"type": "object"}},
        },
        "required": ["model_name", "model_version", "outputs"],
    }
    binary = {
        "schema": {
            "type": "string",
            "contentMediaType": OCTETS,
            "description": f"JSON, its length in {HEADER_LENGTH}, followed by the tensors.",
        }
    }
    return {
        **_about(f"v2Infer{suffix}", "Predict, by the Open Inference Protocol"),
        "description": "One tensor a column, of the shape [n] or [n, 1]; or, where all columns are numbers, one tensor "
        "[n, k] with the columns in their order. Times are RFC 3339 text in BYTES. The binary tensor data extension is "
        "spoken both ways. The shapes have to fit the data and one another, which this schema cannot say.",
        "parameters": [ref("parameters", "RequestId")],
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": schema, **examples(_infer_example(model))}, OCTETS: binary},
        },
        "responses": {
            "200": answer("One prediction a row, in one tensor.", {JSON: {"schema": answered}, OCTETS: binary}),
            **refusals("406"),
        },
    }


def _infer_example(model: ServedModel | None) -> dict[str, Any]:
    if model is None or not model.example or model.contract.is_tensor:
        return {}
    rows = model.example
    if any(column.kind == "json" for column in model.contract.columns):
        return {}
    inputs = [
        {
            "name": column.name,
            "datatype": datatype_of(column),
            "shape": [len(rows)],
            "data": [row.get(column.name) for row in rows],
        }
        for column in model.contract.columns
    ]
    return {"columns": {"id": "1", "inputs": inputs}}
