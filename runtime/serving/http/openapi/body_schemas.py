"""Schemas of the request and response bodies, built from the schemas of the contract's columns and rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ...codecs.content_types import CONTENT_TYPES
from ...codecs.tensors import DATATYPES
from ...contract.json_schemas import (
    any_value,
    array_schema,
    column_schema,
    list_row_schema,
    nullable,
    object_schema,
    output_schema,
    params_schema,
    row_schema,
    time_schema,
)
from ...contract.model_contract import Contract
from ...protocols.open_inference import output_tensors
from ...settings import LimitSettings

if TYPE_CHECKING:
    from ...versions.model import ServedModel

TEXT: Final = {"type": "string"}
UUID7: Final = {"type": "string", "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"}
_BOOLEAN = {"type": "boolean"}
_INTEGER = {"type": "integer"}
_DATATYPE = {"type": "string", "enum": list(DATATYPES)}
_PARAMETERS = {"type": ["object", "null"]}
_CONTENT_TYPE = {
    "type": ["string", "null"],
    "enum": [*CONTENT_TYPES, "", None],
    "description": "How the values are encoded, as in MLServer; an input's own content type overrides the request's.",
}
_INPUT_PARAMETERS = {**_PARAMETERS, "properties": {"content_type": _CONTENT_TYPE}}


def ref(kind: str, name: str) -> dict[str, Any]:
    """Return a reference to a component of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


_ROW = ref("schemas", "Row")
_OPEN_ROW = ref("schemas", "OpenRow")


class BodySchemas:
    """The schemas of a server's request and response bodies.

    Args:
        model: the served version; without one, rows are objects with any values.
        limits: of requests.
    """

    readiness: Final = object_schema({"ready": _BOOLEAN})
    status: Final = object_schema({"model": TEXT, "ready": _BOOLEAN}, optional=("model", "ready"))
    labels_answer: Final = object_schema(
        {
            "accepted": _INTEGER,
            "outside_range": {**_INTEGER, "description": "Labels outside the range at training; they are kept."},
            "checked": {**_BOOLEAN, "description": "Whether the values were compared with those at training."},
            "request_id": TEXT,
        }
    )
    server_metadata: Final = object_schema({"name": TEXT, "version": TEXT, "extensions": array_schema(TEXT)})
    _tensors = array_schema(object_schema({"name": TEXT, "datatype": _DATATYPE, "shape": array_schema(_INTEGER)}))
    model_metadata: Final = object_schema(
        {"name": TEXT, "versions": array_schema(TEXT), "platform": TEXT, "inputs": _tensors, "outputs": _tensors},
        optional=("versions",),
    )
    inference_answer: Final = object_schema(
        {
            "model_name": TEXT,
            "model_version": TEXT,
            "id": TEXT,
            "parameters": {"type": "object"},
            "outputs": array_schema({"type": "object"}),
        },
        optional=("id", "parameters"),
    )

    def __init__(self, model: ServedModel | None, limits: LimitSettings, *, new_classes: bool = False) -> None:
        self._model = model
        self._limits = limits
        self._new_classes = new_classes

    def components(self) -> dict[str, Any]:
        """Return the schemas that the others refer to."""
        model, limits = self._model, self._limits
        output = output_schema(model.output_type.field(0).type) if model is not None else {}
        name = model.output if model is not None else "prediction"
        error = array_schema(object_schema({"field": TEXT, "message": TEXT}))
        problem = {
            "type": TEXT,
            "title": TEXT,
            "status": _INTEGER,
            "detail": TEXT,
            "error": {**TEXT, "description": "The detail again, for clients of the Open Inference Protocol."},
            "error_code": {**TEXT, "description": "MLflow's code of the error, for clients of its scoring server."},
            "message": {**TEXT, "description": "The detail again, for clients of MLflow's scoring server."},
            "errors": error,
            "request_id": TEXT,
            "client_request_id": TEXT,
        }
        return {
            "AnyValue": any_value(limits),
            "Row": row_schema(model.contract, limits) if model is not None else {"type": "object"},
            "OpenRow": row_schema(model.contract, limits, closed=False) if model is not None else {"type": "object"},
            "Predictions": _answer("predictions", _mlflow_schema(model, output)),
            "NamedPredictions": _answer("answer", {}, notes=True)
            if model is not None and model.by_request
            else _answer("predictions", array_schema(object_schema({name: nullable(output)}, closed=True)), notes=True),
            "Problem": {
                "description": "A problem document (RFC 9457).",
                **object_schema(problem, optional=("errors", "request_id", "client_request_id")),
            },
        }

    def invocations(self) -> dict[str, Any]:
        """Return the schema of MLflow's JSON formats."""
        formats = {"dataframe_records": self._rows(_OPEN_ROW)}
        if self._model is not None:
            contract = self._model.contract
            formats["dataframe_split"] = self._split(contract)
            formats["instances"] = formats["inputs"] = self._instances(contract)
        optional = {"event_time": _event_time(), "params": self._params()}
        return {
            "anyOf": [
                object_schema({key: schema, **optional}, optional=optional, closed=True)
                for key, schema in formats.items()
            ]
        }

    def predict(self) -> dict[str, Any]:
        """Return the schema of `/predict`."""
        properties = {"rows": self._rows(_ROW), "event_time": _event_time(), "params": self._params()}
        return object_schema(properties, optional=("event_time", "params"), closed=True)

    def labels(self) -> dict[str, Any]:
        """Return the schema of `/labels`."""
        largest = (1 << 53) - 1
        value: dict[str, Any] = {"type": "number", "minimum": -largest, "maximum": largest}
        classes = self._model.target.classes if self._model is not None else None
        output = {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": 200,
            "description": "Name of the labelled target, column or step, if an answer has several.",
        }
        label = {
            "request_id": {**UUID7, "description": "The `request_id` of an answer."},
            "row": {
                **_INTEGER,
                "type": ["integer", "null"],
                "minimum": 0,
                "maximum": (1 << 31) - 1,
                "description": "The row's position, from 0; null for the answer of the whole request.",
            },
            "label": {**value, "description": "The true value."},
            "output": output,
        }
        optional = ("row", "output") if self._model is not None and self._model.by_request else ("output",)
        items = object_schema(label, optional=optional, closed=True)
        if classes and not self._new_classes:
            # The classes are those of the model's only output.
            known = {"enum": [int(each) if each.is_integer() else each for each in classes]}
            only = {**label, "label": {**known, "description": "The true class."}, "output": {"type": "null"}}
            named = {**label, "output": {**output, "type": "string"}}
            others = tuple(name for name in optional if name != "output")
            items = {
                "anyOf": [
                    object_schema(only, optional=optional, closed=True),
                    object_schema(named, optional=others, closed=True),
                ]
            }
        return object_schema({"labels": self._rows(items)}, closed=True)

    def inference(self) -> dict[str, Any]:
        """Return the schema of the Open Inference Protocol."""
        tensor = {
            "name": {**TEXT, "description": "A column, or any other name for one tensor of all columns."},
            "datatype": _DATATYPE,
            "shape": array_schema({**_INTEGER, "minimum": 1}, minItems=1, maxItems=16),
            "parameters": _INPUT_PARAMETERS,
            "data": array_schema({}),
        }
        inputs = object_schema(tensor, optional=("parameters", "data"), closed=True)
        model = self._model
        known = model is not None and model.answered and not model.by_request
        names = [*map(_name, output_tensors(model))] if model is not None and known else []
        name = {**TEXT, "enum": names} if names else TEXT
        outputs = object_schema({"name": name, "parameters": _PARAMETERS}, optional=("parameters",))
        properties = {
            "id": {"type": ["string", "null"], "description": "Repeated in the answer."},
            "parameters": {
                **_INPUT_PARAMETERS,
                "description": "Of the protocol, and the inference parameters of the signature.",
            },
            "inputs": array_schema(inputs, minItems=1, maxItems=self._limits.columns),
            "outputs": nullable(array_schema(outputs, maxItems=len(names)) if names else array_schema(outputs)),
            "model_name": _own(None if self._model is None else self._model.info.model),
            "model_version": _own(None if self._model is None else self._model.info.version),
        }
        optional = ("id", "parameters", "outputs", "model_name", "model_version")
        return object_schema(properties, optional=optional, closed=True)

    def _params(self) -> dict[str, Any]:
        if self._model is None:
            return {"type": ["object", "null"]}
        return params_schema(self._model.contract, self._limits)

    def _rows(self, items: dict[str, Any]) -> dict[str, Any]:
        return array_schema(items, minItems=1, maxItems=self._limits.rows)

    def _split(self, contract: Contract) -> dict[str, Any]:
        names = [int(column.name) if column.integer_name else column.name for column in contract.columns]
        text = "Any order is accepted. Further columns, with their values in `data`, are ignored."
        columns = {"type": "array", "const": names, "description": text}
        index = {
            "type": ["array", "null"],
            "items": {"type": ["string", "number"]},
            "description": "Labels of the rows.",
        }
        properties = {
            "columns": columns,
            "data": self._rows(list_row_schema(contract, self._limits)),
            "index": index,
        }
        return object_schema(properties, optional=("index",) if contract.named else ("columns", "index"), closed=True)

    def _instances(self, contract: Contract) -> dict[str, Any]:
        items = [_OPEN_ROW]
        first = contract.columns[0]
        if contract.hinted:
            items = [column_schema(first, self._limits)]
        elif len(contract.columns) == 1 and (first.kind != "json" or (first.spec or {}).get("type") == "array"):
            items.append(column_schema(first, self._limits))
        if not contract.named and not contract.is_tensor and not contract.hinted:
            items.append(list_row_schema(contract, self._limits))
        kinds = [self._rows(item) for item in items]
        return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _name(tensor: Mapping[str, Any]) -> str:
    return tensor["name"]


def _answer(name: str, schema: dict[str, Any], *, notes: bool = False) -> dict[str, Any]:
    properties = {name: schema, "model": TEXT, "version": TEXT, "request_id": UUID7, "client_request_id": TEXT}
    if notes:
        properties["notes"] = {**array_schema(TEXT), "description": "Where null stands for NaN or an infinity."}
    return object_schema(properties, optional=("client_request_id", "notes"))


def _mlflow_schema(model: ServedModel | None, output: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of `predictions` as MLflow gives them; `output` is that of one row of the outputs."""
    if model is None:
        return array_schema(output)
    if model.by_request or model.form in ("mapping", "value", "targets"):
        return {}
    if model.output == "score":
        return array_schema(array_schema(output, minItems=2, maxItems=2))
    if model.form == "series":
        names = [each["name"] for each in model.tensors]
        return array_schema(object_schema({"0" if names == [model.output] else names[0]: output}))
    return array_schema(output)


def _event_time() -> dict[str, Any]:
    text = (
        "When the event of the rows happened; default: when the request arrived. One time for all rows, or a list with "
        "one time for each row."
    )
    return {**time_schema(), "type": ["string", "null"], "description": text}


def _own(name: str | None) -> dict[str, Any]:
    """Return the schema of the name of the served model or version, if there is one."""
    return nullable(TEXT) if name is None else {"enum": [name, None], "description": "As in the path."}
