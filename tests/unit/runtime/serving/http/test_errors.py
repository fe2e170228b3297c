"""The members of problem documents that clients of other protocols read, and the refusals that name a limit."""

from __future__ import annotations

import json
from http import HTTPStatus

import pytest
from mlflow.exceptions import ERROR_CODE_TO_HTTP_STATUS, RestException
from tidemill.runtime.serving.engines.errors import IsolatedModelError, kind_and_message
from tidemill.runtime.serving.http import limit_errors
from tidemill.runtime.serving.http.errors import FieldError, Problem
from tidemill.runtime.serving.settings import LimitSettings

STATUSES = (400, 401, 403, 404, 405, 406, 408, 413, 415, 421, 422, 429, 500, 503)


@pytest.mark.parametrize("status", STATUSES)
def test_mlflow_reads_every_problem(status: int) -> None:
    document = json.loads(Problem(status, "it is wrong", errors=[FieldError("a", "b")]).encoded("id"))
    assert document["title"] == HTTPStatus(status).phrase
    assert document["detail"] == document["error"] == document["message"] == "it is wrong"
    # MLflow has no code for other statuses of a bad request, and answers 400 for an invalid value.
    known = status if status in ERROR_CODE_TO_HTTP_STATUS.values() else 400
    assert ERROR_CODE_TO_HTTP_STATUS[document["error_code"]] == known
    raised = RestException(document)
    assert raised.message == f"{document['error_code']}: it is wrong"
    assert raised.error_code == document["error_code"]


def test_the_codes_are_those_of_mlflow() -> None:
    codes = {status: json.loads(Problem(status, "").encoded())["error_code"] for status in STATUSES}
    assert codes == {
        **dict.fromkeys(STATUSES, "BAD_REQUEST"),
        401: "UNAUTHENTICATED",
        403: "PERMISSION_DENIED",
        404: "ENDPOINT_NOT_FOUND",
        422: "INVALID_PARAMETER_VALUE",
        429: "REQUEST_LIMIT_EXCEEDED",
        500: "INTERNAL_ERROR",
        503: "TEMPORARILY_UNAVAILABLE",
    }


@pytest.mark.parametrize("name", limit_errors.OPTIONS)
def test_a_refusal_names_the_limit_the_size_and_how_to_raise_it(name: limit_errors.LimitName) -> None:
    assert name in LimitSettings.model_fields
    text = limit_errors.exceeds("the request has 9 parts", 8, name)
    option = limit_errors.OPTIONS[name]
    assert text == (
        f"the request has 9 parts; the limit is 8; raise serve.limits.{name} in the stack config, or {option} of "
        "tidemill serve"
    )


def test_the_type_of_a_model_s_exception_is_its_own_also_from_its_own_process() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("it cannot print itself")

    assert kind_and_message(KeyError("a")) == ("KeyError", "'a'")
    assert kind_and_message(IsolatedModelError("no such column", "KeyError")) == ("KeyError", "no such column")
    assert kind_and_message(IsolatedModelError("invalid")) == ("IsolatedModelError", "invalid")
    assert kind_and_message(BrokenError()) == ("BrokenError", "")
