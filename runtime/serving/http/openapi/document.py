"""The OpenAPI document of a server, made from the signature of the version which serves."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ...contract.json_schemas import any_value, column_schema, output_schema, row_schema, time_schema
from ...contract.model_contract import Contract
from ...settings import LimitSettings, ServingSettings
from ..content_negotiation import ARROW, CSV, JSON
from .parts import PROBLEM, REFUSALS, UUID7, answer, examples, ref, refusal, refusals
from .paths import inference_paths, management_paths

if TYPE_CHECKING:
    from ...versions.model import ServedModel

__all__ = ["openapi"]

_REQUEST_ID = "0198c0de-0000-7000-8000-000000000001"


def openapi(model: ServedModel | None, settings: ServingSettings) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server.

    Args:
        model: the version which serves; without one, rows are described as objects of any values.
        settings: those of the server.
    """
    name = settings.model
    serves = f"Version {model.info.version} serves." if model is not None else "No version serves yet."
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": f"tidemill: {name}",
            "version": version("tidemill"),
            "description": f"Predictions of the model `{name}`. {serves} Every answer names the version it comes from.",
        },
        "security": [{"bearer": []}, {"key": []}],
        "paths": {
            "/invocations": {"post": _invocations(model, settings.limits)},
            "/predict": {"post": _predict(model, settings.limits)},
            "/labels": {"post": _labels(settings.limits)},
            **inference_paths(model, settings),
            **management_paths(),
        },
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as bearer token."},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "parameters": _parameters(),
            "headers": {
                "RequestId": {
                    "description": "The id by which this request is found again, a UUID of version 7.",
                    "schema": {"type": "string", "pattern": UUID7},
                },
                "Version": {"description": "The version which answered.", "schema": {"type": "string"}},
            },
            "responses": {status: refusal(status, text) for status, text in REFUSALS.items()},
            "schemas": _schemas(model, settings.limits),
        },
    }


def _parameters() -> dict[str, Any]:
    return {
        "RequestId": {
            "name": "X-Request-Id",
            "in": "header",
            "required": False,
            "description": "The client's own id, which is said again as `client_request_id` and captured.",
            "schema": {"type": "string", "maxLength": 128, "pattern": "^[!-~](?:[ -~]*[!-~])?$"},
        }
    }


def _schemas(model: ServedModel | None, limits: LimitSettings) -> dict[str, Any]:
    output = output_schema(model.output_type.field(0).type) if model is not None else {}
    name = model.output if model is not None else "prediction"
    about = {
        "model": {"type": "string"},
        "version": {"type": "string"},
        "request_id": {"type": "string", "pattern": UUID7},
        "client_request_id": {"type": "string"},
    }
    required = ["predictions", "model", "version", "request_id"]
    named = {"type": "object", "properties": {name: output}, "required": [name], "additionalProperties": False}
    schemas: dict[str, Any] = {
        "AnyValue": any_value(limits),
        "Row": row_schema(model.contract, limits) if model is not None else {"type": "object"},
        "Predictions": {
            "type": "object",
            "properties": {"predictions": {"type": "array", "items": output}, **about},
            "required": required,
        },
        "NamedPredictions": {
            "type": "object",
            "properties": {"predictions": {"type": "array", "items": named}, **about},
            "required": required,
        },
        "Problem": {
            "type": "object",
            "description": "A problem document (RFC 9457).",
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "error": {"type": "string", "description": "The detail again, for clients of the V2 protocol."},
                "errors": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
                        "required": ["field", "message"],
                    },
                },
                "request_id": {"type": "string"},
                "client_request_id": {"type": "string"},
            },
            "required": ["type", "title", "status", "detail", "error"],
        },
    }
    return schemas


def _event_time() -> dict[str, Any]:
    schema = time_schema()
    schema["type"] = ["string", "null"]
    schema["description"] = (
        "When what the rows say was so; without it, when the request came. One time for all rows; a list with one time "
        "for each row is taken too."
    )
    return schema


def _rows_of(items: dict[str, Any], limits: LimitSettings) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": limits.rows}


def _form(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            key: schema,
            "event_time": _event_time(),
            "params": {"type": ["object", "null"], "maxProperties": 0},
        },
        "required": [key],
        "additionalProperties": False,
    }


def _invocations(model: ServedModel | None, limits: LimitSettings) -> dict[str, Any]:
    row = ref("schemas", "Row")
    forms = [_form("dataframe_records", _rows_of(row, limits))]
    if model is not None:
        forms += [_split(model.contract, limits), *_lists(model.contract, limits)]
    text = (
        "Rows in one of MLflow's forms. In `inputs` they may also stand column by column: an object with a list for "
        "each column."
    )
    return {
        "operationId": "invocations",
        "tags": ["predictions"],
        "summary": "Predict, as MLflow's scoring server does",
        "description": "Takes MLflow's JSON and CSV, and streams of Arrow for many rows; `Accept` chooses the form of "
        "the answer.",
        "parameters": [ref("parameters", "RequestId")],
        "requestBody": {
            "required": True,
            "description": text,
            "content": {
                JSON: {"schema": {"anyOf": forms}, **examples(_invocation_examples(model))},
                CSV: {
                    "schema": {
                        "type": "string",
                        "description": "A header with the names of the columns, then the rows. Empty is null.",
                    }
                },
                ARROW: {
                    "schema": {
                        "type": "string",
                        "contentMediaType": ARROW,
                        "description": "An Arrow IPC stream, its buffers not packed, columns told by their names.",
                    }
                },
            },
        },
        "responses": {
            "200": answer(
                "One prediction a row.",
                {
                    JSON: {"schema": ref("schemas", "Predictions")},
                    CSV: {"schema": {"type": "string"}},
                    ARROW: {"schema": {"type": "string", "contentMediaType": ARROW}},
                },
            ),
            **refusals(),
        },
    }


def _split(contract: Contract, limits: LimitSettings) -> dict[str, Any]:
    names = list(contract.names)
    columns = {"type": "array", "const": names, "description": "Another order is taken too, with the data in it."}
    required = ["columns", "data"] if contract.named else ["data"]
    split = {
        "type": "object",
        "properties": {
            "columns": columns,
            "data": _rows_of(_list_row(contract, limits), limits),
            "index": {"description": "Not looked at."},
        },
        "required": required,
        "additionalProperties": False,
    }
    return _form("dataframe_split", split)


def _list_row(contract: Contract, limits: LimitSettings) -> dict[str, Any]:
    width = len(contract.columns)
    return {
        "type": "array",
        "prefixItems": [column_schema(column, limits) for column in contract.columns],
        "items": False,
        "minItems": width,
        "maxItems": width,
    }


def _lists(contract: Contract, limits: LimitSettings) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = [ref("schemas", "Row")]
    first = contract.columns[0]
    if len(contract.columns) == 1 and first.kind != "json":
        items.append(column_schema(first, limits))
    if not contract.named and not contract.is_tensor:
        items.append(_list_row(contract, limits))
    kinds = [_rows_of(item, limits) for item in items]
    rows = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    return [_form(key, rows) for key in ("instances", "inputs")]


def _invocation_examples(model: ServedModel | None) -> dict[str, Any]:
    if model is None or not model.example:
        return {}
    rows, names = model.example, model.contract.names
    return {
        "records": {"dataframe_records": rows},
        "split": {
            "dataframe_split": {"columns": list(names), "data": [[row.get(name) for name in names] for row in rows]}
        },
        "instances": {"instances": rows},
        "inputs": {"inputs": {name: [row.get(name) for row in rows] for name in names}},
    }


def _predict(model: ServedModel | None, limits: LimitSettings) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"rows": _rows_of(ref("schemas", "Row"), limits), "event_time": _event_time()},
        "required": ["rows"],
        "additionalProperties": False,
    }
    example = {"rows": {"rows": model.example}} if model is not None and model.example else {}
    return {
        "operationId": "predict",
        "tags": ["predictions"],
        "summary": "Predict, with the names and types of the signature",
        "parameters": [ref("parameters", "RequestId")],
        "requestBody": {"required": True, "content": {JSON: {"schema": schema, **examples(example)}}},
        "responses": {
            "200": answer("One prediction a row, by its name.", {JSON: {"schema": ref("schemas", "NamedPredictions")}}),
            **refusals(),
        },
    }


def _labels(limits: LimitSettings) -> dict[str, Any]:
    label = {
        "type": "object",
        "properties": {
            "request_id": {"type": "string", "pattern": UUID7, "description": "The `request_id` of an answer."},
            "row": {"type": "integer", "minimum": 0, "maximum": (1 << 31) - 1, "description": "Which row, from 0."},
            "label": {
                "type": "number",
                "minimum": -((1 << 53) - 1),
                "maximum": (1 << 53) - 1,
                "description": "What turned out to be true.",
            },
        },
        "required": ["request_id", "row", "label"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"labels": _rows_of(label, limits)},
        "required": ["labels"],
        "additionalProperties": False,
    }
    accepted = {
        "type": "object",
        "properties": {"accepted": {"type": "integer"}, "request_id": {"type": "string"}},
        "required": ["accepted", "request_id"],
    }
    example = {"label": {"labels": [{"request_id": _REQUEST_ID, "row": 0, "label": 1}]}}
    return {
        "operationId": "labels",
        "tags": ["labels"],
        "summary": "Tell what turned out to be true of rows which were predicted",
        "description": "Kept on the disk before it is acknowledged. To send a label twice changes nothing; of two "
        "which differ, the later counts.",
        "parameters": [ref("parameters", "RequestId")],
        "requestBody": {"required": True, "content": {JSON: {"schema": schema, **examples(example)}}},
        "responses": {
            "200": {"description": "They are kept.", "content": {JSON: {"schema": accepted}}},
            "404": {
                "description": "This server captures nothing, so it keeps no labels.",
                "content": {PROBLEM: {"schema": ref("schemas", "Problem")}},
            },
            **refusals("406", "500"),
        },
    }
