"""The OpenAPI document: the paths of the server and their operations."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from ...protocols.open_inference import HEADER_LENGTH
from ...settings import ServingSettings
from ..content_negotiation import ARROW, CSV, JSON, OCTETS
from .body_schemas import TEXT, UUID7, BodySchemas, ref
from .examples import inference_examples, invocation_examples, label_examples, predict_examples
from .operations import REFUSALS, answer, body, operation, problem, refusals, response

if TYPE_CHECKING:
    from ...versions.model import ServedModel

_PREDICTIONS, _LABELS, _OPERATION, _INFERENCE = "predictions", "labels", "operation", "open inference protocol"
_OBJECT = {"type": "object"}


def openapi(model: ServedModel | None, settings: ServingSettings) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server.

    Args:
        model: the served version; without one, rows are described as objects with any values.
        settings: of the server.
    """
    name = settings.model
    served = f"Version {model.info.version} is served." if model is not None else "No version is served yet."
    schemas = BodySchemas(model, settings.limits, new_classes=settings.labels.allow_new)
    responses = {status: problem(text) for status, text in REFUSALS.items()}
    for status in ("429", "503"):
        responses[status]["headers"] = {"Retry-After": {"description": "Seconds.", "schema": TEXT}}
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": f"tidemill: {name}",
            "version": version("tidemill"),
            "description": f"Predictions of the model `{name}`. {served} Every answer names its version.",
        },
        "security": [{"bearer": []}, {"key": []}, {"basic": []}],
        "paths": {**_hot_paths(model, schemas), **_inference_paths(model, name, schemas), **_management_paths(schemas)},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key as bearer token."},
                "basic": {"type": "http", "scheme": "basic", "description": "An API key as password, any user name."},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "parameters": {
                "RequestId": {
                    "name": "X-Request-Id",
                    "in": "header",
                    "required": False,
                    "description": "The client's own id; the answer repeats it as `client_request_id`.",
                    "schema": {**TEXT, "maxLength": 128, "pattern": "^[!-~](?:[ -~]*[!-~])?$"},
                }
            },
            "headers": {
                "RequestId": {"description": "The server's id of the request, a UUID version 7.", "schema": UUID7},
                "Version": {"description": "The version that answered.", "schema": TEXT},
            },
            "responses": responses,
            "schemas": schemas.components(),
        },
    }


def _hot_paths(model: ServedModel | None, schemas: BodySchemas) -> dict[str, Any]:
    arrow = {**TEXT, "contentMediaType": ARROW}
    other = {
        CSV: {**TEXT, "description": "As `pandas.read_csv` reads it: a header with the column names, then the rows."},
        ARROW: {**arrow, "description": "An Arrow IPC stream with uncompressed buffers and named columns."},
    }
    text = "Rows in one of MLflow's formats. `inputs` can also be an object with a list for each column."
    rows = {"description": text, **body(schemas.invocations(), invocation_examples(model), other=other)}
    predictions = {JSON: ref("schemas", "Predictions"), CSV: TEXT, ARROW: arrow}
    named = {JSON: ref("schemas", "NamedPredictions")}
    return {
        "/invocations": {
            "post": operation(
                "invocations",
                _PREDICTIONS,
                "Predict, like MLflow's scoring server",
                {
                    "200": answer(
                        "The predictions, as MLflow's scoring server gives them; NaN and infinities as `NaN`, "
                        "`Infinity` and `-Infinity`.",
                        predictions,
                    ),
                    **refusals(),
                },
                description="Accepts MLflow's JSON and CSV, and Arrow streams for many rows; `Accept` selects the "
                "media type of the answer.",
                request_body=rows,
            )
        },
        "/predict": {
            "post": operation(
                "predict",
                _PREDICTIONS,
                "Predict, with the names and types of the signature",
                {
                    "200": answer(
                        "One named prediction for each row. If the model's answer belongs to the whole request, it is "
                        "`answer`.",
                        named,
                    ),
                    **refusals(),
                },
                request_body=body(schemas.predict(), predict_examples(model)),
            )
        },
        "/labels": {
            "post": operation(
                "labels",
                _LABELS,
                "Send the true values of predicted rows",
                {
                    "200": response("The labels are stored.", schemas.labels_answer),
                    "404": problem("This server captures nothing, so it keeps no labels."),
                    **refusals(without=("406", "500")),
                },
                description="Labels are written to disk before they are acknowledged. Sending a label twice changes "
                "nothing; of two different labels of one API key, the later one counts. One invalid label refuses the "
                "whole request.",
                request_body=body(schemas.labels(), label_examples(model)),
            )
        },
    }


def _inference_paths(model: ServedModel | None, name: str, schemas: BodySchemas) -> dict[str, Any]:
    versions = {} if model is None else {"enum": [model.info.version]}
    in_path = {"in": "path", "required": True}
    name_parameter = {"name": "name", **in_path, "schema": {**TEXT, "enum": [name]}}
    version_parameter = {"name": "version", **in_path, "schema": {**TEXT, **versions}}
    live, unavailable = response("Yes.", _OBJECT), {"503": response("No.", _OBJECT)}
    paths: dict[str, Any] = {
        "/v2": _get("v2Server", _INFERENCE, "Describe the server", schemas.server_metadata),
        "/v2/health/live": {
            "get": operation("v2Live", _INFERENCE, "Whether the server is alive", {"200": live}, public=True)
        },
        "/v2/health/ready": {
            "get": operation(
                "v2Ready", _INFERENCE, "Whether the server can answer", {"200": live, **unavailable}, public=True
            )
        },
    }
    missing = {"404": problem("This server does not serve this model or version."), **refusals("503")}
    for path, parameters, suffix in (
        ("/v2/models/{name}", [name_parameter], ""),
        ("/v2/models/{name}/versions/{version}", [name_parameter, version_parameter], "OfVersion"),
    ):
        shared = {"parameters": parameters}
        summary = "Describe the inputs and outputs of the model"
        about = _get(f"v2Model{suffix}", _INFERENCE, summary, schemas.model_metadata, missing)
        ready = _get(f"v2ModelReady{suffix}", _INFERENCE, "Whether the model can answer", schemas.readiness, missing)
        paths[path] = {**shared, **about}
        paths[f"{path}/ready"] = {**shared, **ready}
        paths[f"{path}/infer"] = {**shared, "post": _infer(model, schemas, suffix, missing)}
    return paths


def _infer(model: ServedModel | None, schemas: BodySchemas, suffix: str, missing: dict[str, Any]) -> dict[str, Any]:
    text = f"JSON, whose length is in {HEADER_LENGTH}, followed by the tensors."
    binary = {OCTETS: {**TEXT, "contentMediaType": OCTETS, "description": text}}
    answers = {JSON: schemas.inference_answer, **binary}
    return operation(
        f"v2Infer{suffix}",
        _INFERENCE,
        "Predict, with the Open Inference Protocol",
        {
            "200": answer("One prediction for each row, in one tensor.", answers),
            **refusals(without=("406",)),
            **missing,
        },
        description="One tensor for each column, with the shape [n] or [n, 1]; or, if all columns are numbers, one "
        "tensor [n, k] with the columns in their order. Times are RFC 3339 text in BYTES. The parameter "
        "`content_type` of MLServer's codecs is read. Requests and answers can use "
        "the binary tensor data extension. The shapes must match the data and each other, which this schema cannot "
        "express.",
        request_body=body(schemas.inference(), inference_examples(model), other=binary),
    )


def _management_paths(schemas: BodySchemas) -> dict[str, Any]:
    def public(identifier: str, summary: str, responses: dict[str, Any]) -> dict[str, Any]:
        return {"get": operation(identifier, _OPERATION, summary, responses, public=True)}

    ready = {
        "200": response("It can answer.", schemas.readiness),
        "503": response("It cannot answer.", schemas.readiness),
    }
    metrics = {"200": response("The metrics of all workers.", TEXT, "text/plain"), **refusals("401", "403")}
    status = "Show the served version, the load and the swaps"
    # MLflow's own answers to these are a line end and a version, of the media type of JSON.
    healthy = {"200": {"description": "A version is served."}, "404": {"description": "No version is served."}}
    mlflow = "Whether a version is served, like MLflow's scoring server"
    return {
        "/healthz": public("healthz", "Whether the server is alive", {"200": response("Yes.", _OBJECT)}),
        "/ping": public("ping", mlflow, healthy),
        "/health": public("health", mlflow, healthy),
        "/version": {
            "get": operation(
                "version",
                _OPERATION,
                "Return the version of MLflow whose protocol `/invocations` has, as text",
                {"200": {"description": "The version."}, **refusals("401", "403")},
            )
        },
        "/readyz": public("readyz", "Show which version is served", ready),
        "/metrics": {"get": operation("metrics", _OPERATION, "Return the metrics in Prometheus's format", metrics)},
        "/status": _get("status", _OPERATION, status, schemas.status),
        "/openapi.json": _get("openapi", _OPERATION, "Return this document", _OBJECT),
        "/": public("page", "Show the status page", {"200": response("The page.", TEXT, "text/html")}),
    }


def _get(
    identifier: str, tag: str, summary: str, schema: dict[str, Any], responses: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "get": operation(
            identifier,
            tag,
            summary,
            {"200": response("Success.", schema), **refusals("401", "403"), **(responses or {})},
        )
    }
