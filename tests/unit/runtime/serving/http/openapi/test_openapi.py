"""The schemas of the OpenAPI document and the readers agree on every value."""

from __future__ import annotations

import json
import re
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tidemill.runtime.serving.contract.columns import InvalidValueError, parse_rfc3339
from tidemill.runtime.serving.contract.json_schemas import time_schema
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.errors import Problem
from tidemill.runtime.serving.http.openapi.document import openapi
from tidemill.runtime.serving.protocols import mlflow, predict
from tidemill.runtime.serving.protocols.base import InferenceRequest
from tidemill.runtime.serving.settings import ServingSettings
from tidemill.runtime.serving.versions.model import ServedModel

from tests.support.protocols import LIMITS, MIXED, NUMBERS, ROW, contracts, rows_of, served

JSON_COLUMNS = Contract(
    (
        Column("any", "json", required=False, spec={"type": "any"}),
        Column("list", "json", spec={"type": "array", "items": {"type": "array", "items": {"type": "long"}}}),
        Column("map", "json", required=False, spec={"type": "map", "values": {"type": "double"}}),
        Column(
            "object",
            "json",
            required=False,
            spec={
                "type": "object",
                "properties": {"a": {"type": "string", "required": True}, "b": {"type": "boolean", "required": False}},
            },
        ),
    )
)
JSON_ROW = {"any": [1, {"x": None}], "list": [[1], []], "map": {"k": 1.5}, "object": {"a": "x", "b": None}}
UNNAMED = Contract((Column("0", "double"), Column("1", "string", required=False)), named=False)
TENSOR = Contract((Column("input", "tensor", dtype="float32", shape=(-1, 2)),), named=False)
CASES = [
    (MIXED, [ROW]),
    (NUMBERS, [{"a": 1, "b": 2.5, "c": -1e300}]),
    (JSON_COLUMNS, [JSON_ROW]),
    (UNNAMED, [{"0": 1, "1": None}]),
    (TENSOR, [{"input": [1, 2.5]}]),
]


def document_of(model: ServedModel | None) -> dict[str, Any]:
    plain = {"listen": {"port": 1, "token_file": "key"}, "model": "flights", "path": "model", "cache": "cache"}
    return openapi(model, ServingSettings.model_validate({**plain, "limits": LIMITS.model_dump()}))


def validator(document: dict[str, Any], path: str) -> Draft202012Validator:
    schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    return Draft202012Validator({**schema, "components": document["components"]})


@pytest.mark.parametrize(("contract", "example"), CASES)
def test_the_document_is_valid_and_its_examples_are_accepted(contract: Contract, example: list[dict[str, Any]]) -> None:
    model = served(contract, example=example, kind=pa.list_(pa.float64()), output="scores")
    document = document_of(model)
    json.dumps(document, allow_nan=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schemathesis.openapi.from_dict(document).validate()
    for path, decode in (("/invocations", mlflow.decode), ("/predict", predict.decode)):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["examples"]
        for name, said in content["examples"].items():
            body = json.dumps(said["value"]).encode()
            assert decode(model, InferenceRequest(body, "application/json"), LIMITS).batch.rows == 1, name
            # The schema describes the format by columns only in words.
            assert (name == "inputs") or validator(document, path).is_valid(said["value"]), name


def test_the_document_describes_all_routes_and_all_ways_to_send_a_key() -> None:
    for document in (document_of(None), document_of(served(NUMBERS))):
        assert {
            "/invocations",
            "/predict",
            "/labels",
            "/v2",
            "/v2/models/{name}/infer",
            "/healthz",
            "/readyz",
            "/metrics",
            "/ping",
            "/health",
            "/version",
        } < set(document["paths"])
        assert document["security"] == [{"bearer": []}, {"key": []}, {"basic": []}]
        assert set(document["components"]["securitySchemes"]) == {"bearer", "key", "basic"}
        members = document["components"]["schemas"]["Problem"]["properties"]
        assert {"detail", "error", "error_code", "message"} <= set(members)
        operations = [one for path in document["paths"].values() for key, one in path.items() if key != "parameters"]
        identifiers = [operation["operationId"] for operation in operations]
        assert len(set(identifiers)) == len(identifiers)
        for operation in operations:
            closed = operation.get("security") != []
            assert closed == ("401" in operation["responses"]), operation["operationId"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schemathesis.openapi.from_dict(document_of(None)).validate()


def is_accepted(contract: Contract, document: Any) -> bool:
    body = json.dumps(document).encode()
    try:
        predict.decode(served(contract), InferenceRequest(body, "application/json"), LIMITS)
    except Problem:
        return False
    return True


def is_json_value(value: Any) -> bool:
    """Return whether JSON and JSON Schema see the value as Python does: no NaN, infinity, 3.0 or half characters."""
    if isinstance(value, float):
        return value == value and abs(value) != float("inf") and not value.is_integer()
    if isinstance(value, str):
        return not re.search("[\ud800-\udfff]", value)
    if isinstance(value, dict):
        return all(is_json_value(key) and is_json_value(item) for key, item in value.items())
    return not isinstance(value, list) or all(is_json_value(item) for item in value)


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_server_accepts_exactly_what_the_schema_allows(data: st.DataObject) -> None:
    contract = data.draw(contracts())
    rows = data.draw(rows_of(contract, 0.1).filter(lambda rows: all(is_json_value(row) for row in rows)))
    document = {"rows": rows}
    assert validator(document_of(served(contract)), "/predict").is_valid(document) == is_accepted(contract, document)


@pytest.mark.parametrize(
    "row",
    [
        JSON_ROW,
        {"list": [[]]},
        {"list": []},
        {"list": [1]},
        {"list": [[1.5]]},
        {"list": None},
        {"list": [], "map": {"k": "1"}},
        {"list": [], "map": {}},
        {"list": [], "object": {}},
        {"list": [], "object": {"a": "x", "c": 1}},
        {"list": [], "object": {"a": None}},
        {"list": [], "any": None},
        {"list": [], "any": {"deep": [[[1.5]]]}},
        {"list": [], "any": 10**400},
        {"list": [], "any": "x" * 1_001},
    ],
)
def test_the_schema_of_json_columns_matches_the_reader(row: dict[str, Any]) -> None:
    document = {"rows": [row]}
    assert validator(document_of(served(JSON_COLUMNS)), "/predict").is_valid(document) == is_accepted(
        JSON_COLUMNS, document
    )


def test_the_schema_of_times_matches_the_reader() -> None:
    pattern = re.compile(time_schema()["pattern"])
    day = datetime(1679, 1, 1, tzinfo=UTC)
    while day.year < 2261:
        assert pattern.match(f"{day:%Y-%m-%d}T00:00:00Z"), day
        day += timedelta(days=1)
    for text in (
        "2013-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2013-04-31T00:00:00Z",
        "2013-13-01T00:00:00Z", "2013-00-01T00:00:00Z", "2013-07-00T00:00:00Z", "2013-07-32T00:00:00Z",
        "2013-07-01T24:00:00Z", "2013-07-01T12:60:00Z", "2013-07-01T12:00:60Z", "2013-07-01T12:00:00",
        "2013-07-01T12:00:00+24:00", "2013-07-01T12:00:00.Z", "2013-07-01T12:00:00.1234567890Z", "2013-07-01", "",
    ):  # fmt: skip
        assert not pattern.match(text), text
        with pytest.raises(InvalidValueError):
            parse_rfc3339(text)
    for text in ("2013-07-01t12:00:00z", "2013-07-01 23:59:59.123456789-23:59", "2012-02-29T00:00:00+05:30"):
        assert pattern.match(text)
        parse_rfc3339(text)
