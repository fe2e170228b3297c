"""The accounts that `up` creates in MLflow, and the host names that MLflow accepts."""

from __future__ import annotations

import functools
import json
from fnmatch import fnmatchcase

import pytest
from tidemill.runtime.registry.accounts import GRANTS as GRANTS_OF_PEOPLE
from tidemill.runtime.registry.accounts import PEOPLE, SERVICES, name_problem
from tidemill.runtime.registry.mlflow_routes import PUBLIC, TABLE, permits
from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import compose

from tests.support.accounts import GRANTS
from tests.support.platform import ROOT
from tests.support.recorded import Recorded, record


@functools.cache
def flights() -> Recorded:
    return record(functools.partial(compose, load_stack(ROOT, "flights-dev")))


def test_each_service_has_an_account_with_the_permissions_of_its_job() -> None:
    """The tests against a real MLflow use the same accounts."""
    assert {user["username"] for user in flights().of("User").values()} == set(GRANTS) == SERVICES
    found: dict[str, dict[str, str]] = {}
    for permission in flights().of("Permission").values():
        found.setdefault(permission["username"], {})[permission["kind"]] = permission["permission"]
    wanted = {name: dict(zip(("experiment", "registered_model"), grants, strict=True))
              for name, grants in GRANTS.items() if grants}  # fmt: skip
    assert found == wanted


def test_jobs_train_with_an_account_that_cannot_promote() -> None:
    service = flights().of("Service")["retraining"]
    runtime, settings = (json.loads(service["configFiles"][name]) for name in ("runtime.json", "settings.json"))
    assert (runtime["registry"]["username"], settings["registry"]["username"]) == ("training", "retraining")
    assert {"mlflow-training", "mlflow-retraining"} <= set(service["secrets"])
    for seed in flights().of("Job").values():
        assert "mlflow-retraining" not in json.dumps(seed)


def test_a_tunnel_may_end_at_any_port_and_other_names_are_refused() -> None:
    hosts: list[str] = flights().of("Service")["mlflow"]["env"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")

    def allowed(host: str) -> bool:
        return any(fnmatchcase(host, pattern) for pattern in hosts)

    assert all(allowed(host) for host in ("localhost", "localhost:8080", "127.0.0.1:9"))
    assert not any(allowed(host) for host in ("example.org", "example.org:80", "localhost.example.org", "*", ""))


@pytest.mark.parametrize("role", sorted(SERVICES | PEOPLE))
def test_no_role_creates_content_accounts_or_permissions(role: str) -> None:
    mine = {route for route in TABLE if permits(route, {role})}
    words = ("/users/create", "/users/delete", "/update-admin", "/roles", "/permissions/", "/gateway", "/webhooks",
             "/experiments/create", "/experiments/update", "/workspaces", "/delete-", "/presigned", "/scorers", "/jobs",
             "/mcp-servers", "/assistant", "/datasets", "/registered-models/delete", "/runs/delete")  # fmt: skip
    writes = [route for route in mine if route[0] != "GET" or "presigned" in route[1]]
    allowed = {"/runs/delete-tag", "/model-versions/delete-tag"}
    assert [
        path for _, path in writes if any(word in path for word in words) and not path.endswith(tuple(allowed))
    ] == []
    creates = {path.rpartition("/mlflow/")[2] for _, path in mine if path.endswith("/create")}
    trains = {"runs/create", "model-versions/create", "registered-models/create"}
    assert creates == (trains if role in ("training", "train") else set())
    aliases = {method for method, path in mine if path.endswith("/registered-models/alias")} - {"GET"}
    assert aliases == ({"POST", "DELETE"} if role in ("retraining", "promote") else set())


def test_what_needs_no_credentials() -> None:
    assert {route for route, roles in TABLE.items() if roles == PUBLIC} == {
        ("GET", "/health"), ("GET", "/static-files/<path>"),
    }  # fmt: skip
    assert set(GRANTS_OF_PEOPLE) == PEOPLE


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Ana",
        "ana:x",
        "ana ben",
        "-ana",
        "ana-",
        "a" * 65,
        "änne",
        "admin",
        "harbour-dev-serving",
        *sorted(SERVICES),
    ],
)
def test_names_that_a_person_cannot_have(name: str) -> None:
    assert name_problem(name)


@pytest.mark.parametrize("words", [["--may", "write"], ["--may", "admin"]])
def test_only_the_three_roles_exist(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from tidemill.stacks.cli.app import run

    assert run(["users", "add", "ana", *words]) == 2
    assert "use read, train or promote" in capsys.readouterr().err
