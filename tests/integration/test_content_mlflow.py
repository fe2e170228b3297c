"""MLflow content against a real MLflow with authentication, started as the `local` target starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tidemill.components.provider.base import RECREATE, Context
from tidemill.components.provider.content.mlflow import Experiment, Permission, RegisteredModel, User
from tidemill.runtime.common.errors import ConfigError, PlatformError, RefusedError, UnreachableError

from tests.support.servers import Outside, Server, mlflow_server, secret_file

pytestmark = pytest.mark.integration

API = "/api/2.0/mlflow"
GRANTS = "/api/3.0/mlflow/users/permissions"


@pytest.fixture(scope="module")
def outside() -> Iterator[Outside]:
    with Outside() as listening:
        yield listening


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory, outside: Outside) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), env=outside.env) as server:
        yield server


@pytest.fixture
def warned() -> list[str]:
    return []


@pytest.fixture
def context(warned: list[str]) -> Context:
    return Context("urn:pulumi:dev::tidemill::x::it", warn=warned.append)


@pytest.fixture
def admin(mlflow: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=mlflow.url, auth=mlflow.auth, trust_env=False, timeout=30) as http:
        yield http


def access(mlflow: Server, **more: Any) -> dict[str, Any]:
    return {
        "stack": "flights-dev",
        "url": mlflow.url,
        "admin": "admin",
        "passwordFile": str(mlflow.files["password"]),
        **more,
    }


def user_of(mlflow: Server, name: str) -> dict[str, Any]:
    return access(mlflow, username=name, userPasswordFile=str(secret_file(mlflow.folder / "secrets", f"user-{name}")))


def status_as(mlflow: Server, user: dict[str, Any], route: str, **options: Any) -> int:
    auth = (user["username"], Path(user["userPasswordFile"]).read_text())
    method = options.pop("method", "GET")
    with httpx.Client(base_url=mlflow.url, auth=auth, trust_env=False, timeout=30) as http:
        return http.request(method, route, **options).status_code


def test_every_door_is_guarded(mlflow: Server, context: Context) -> None:
    with httpx.Client(base_url=mlflow.url, trust_env=False) as nobody:
        for route in ("/", "/metrics", f"{API}/experiments/get?experiment_id=0"):
            assert nobody.get(route).status_code == 401, route
        assert nobody.get("/health").status_code == 200
        foreign = {"Host": "evil.example"}
        assert nobody.get("/", headers=foreign, auth=mlflow.auth).status_code == 403
    scraper = user_of(mlflow, "metrics")
    User().create(context, scraper)
    assert status_as(mlflow, scraper, "/metrics") == 200, "no administrator is needed to scrape"
    assert status_as(mlflow, scraper, f"{API}/experiments/get?experiment_id=0") == 403, "no permission by default"


def test_server_counts_its_requests_and_speaks_to_nobody(mlflow: Server, admin: httpx.Client, outside: Outside) -> None:
    admin.get(f"{API}/experiments/get", params={"experiment_id": "0"}).raise_for_status()
    lines = [line for line in admin.get("/metrics").text.splitlines() if line.startswith("mlflow_http_request_total{")]
    assert any('status="200"' in line for line in lines), lines
    assert psutil.Process(mlflow.pid).children() == [], "no job runners beside it"
    # What the page in the browser asks for by itself.
    for route in ("gateway/supported-models", "ui-telemetry"):
        admin.get(f"/ajax-api/3.0/mlflow/{route}").raise_for_status()
    assert outside.calls() == []


def test_experiment_is_adopted_by_its_stack_alone(mlflow: Server, context: Context, admin: httpx.Client) -> None:
    inputs = access(mlflow, name="adopted")
    _, state = Experiment().create(context, inputs)
    assert Experiment().create(context, inputs) == ("adopted", state)
    assert Experiment().read(context, state) == state
    assert not Experiment().diff(context, state, inputs).changes
    with pytest.raises(RefusedError, match="flights-dev"):
        Experiment().create(context, inputs | {"stack": "other-dev"})
    admin.post(f"{API}/experiments/create", json={"name": "by hand"}).raise_for_status()
    with pytest.raises(RefusedError, match="no stack created it"):
        Experiment().create(context, access(mlflow, name="by hand"))


def test_deleted_experiment_stops_up_and_is_restored_on_the_users_word(
    mlflow: Server, context: Context, warned: list[str], admin: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = access(mlflow, name="deleted")
    _, state = Experiment().create(context, inputs)
    admin.post(f"{API}/experiments/delete", json={"experiment_id": state["experimentId"]}).raise_for_status()
    gone = Experiment().read(context, state)
    assert gone is not None and gone["missing"] is True
    with pytest.raises(RefusedError, match="--recreate deleted"):
        Experiment().diff(context, gone, inputs)
    monkeypatch.setenv(RECREATE, "other,deleted")
    assert Experiment().diff(context, gone, inputs).changes == ("missing",)
    assert Experiment().update(context, gone, inputs) == state, "the same one, with its runs"
    assert "restored" in warned[0]
    assert Experiment().read(context, state) == state


def test_registered_model_of_another_stack_is_refused_and_a_lost_one_noticed(
    mlflow: Server, context: Context, admin: httpx.Client
) -> None:
    inputs = access(mlflow, name="modelled")
    _, state = RegisteredModel().create(context, inputs)
    assert RegisteredModel().create(context, inputs)[1] == state
    with pytest.raises(RefusedError, match="another stack"):
        RegisteredModel().create(context, inputs | {"stack": "other-dev"})
    admin.request("DELETE", f"{API}/registered-models/delete", json={"name": "modelled"}).raise_for_status()
    gone = RegisteredModel().read(context, state)
    assert gone is not None and gone["missing"] is True
    admin.post(f"{API}/registered-models/create", json={"name": "modelled"}).raise_for_status()
    gone = RegisteredModel().read(context, state)
    assert gone is not None and gone["missing"] is True, "one made by hand under the same name is another one"


def test_changed_password_file_reaches_the_user(mlflow: Server, context: Context) -> None:
    inputs = user_of(mlflow, "rotated")
    _, state = User().create(context, inputs)
    assert User().create(context, inputs) == ("rotated", state), "a creation which was interrupted is repeated"
    assert User().read(context, state) == state
    secret_file(mlflow.folder / "secrets", "user-rotated")
    found = User().read(context, state)
    assert found is not None
    assert User().diff(context, found, inputs).changes == ("opens",)
    assert User().update(context, found, inputs) == state
    assert status_as(mlflow, inputs, f"{API}/users/current") == 200


def test_somebody_elses_user_is_not_taken_over(mlflow: Server, context: Context, admin: httpx.Client) -> None:
    person = ("person", "a password of their own")
    admin.post(f"{API}/users/create", json=dict(zip(("username", "password"), person, strict=True))).raise_for_status()
    with pytest.raises(RefusedError, match="person"):
        User().create(context, user_of(mlflow, "person"))
    assert httpx.get(f"{mlflow.url}{API}/users/current", auth=person).status_code == 200
    with pytest.raises(ConfigError, match="administrator"):
        User().check(user_of(mlflow, "admin"))


def test_password_mlflow_refuses_is_told_without_being_shown(mlflow: Server, context: Context) -> None:
    inputs = user_of(mlflow, "weak")
    Path(inputs["userPasswordFile"]).write_text("zebra")
    with pytest.raises(ConfigError, match="at least 12") as caught:
        User().create(context, inputs)
    assert "zebra" not in str(caught.value)


def test_deleted_user_is_made_again(mlflow: Server, context: Context) -> None:
    inputs = user_of(mlflow, "leaver")
    _, state = User().create(context, inputs)
    User().delete(context, state)
    User().delete(context, state)
    assert User().read(context, state) is None


def test_permission_is_what_the_user_can_do(mlflow: Server, context: Context, admin: httpx.Client) -> None:
    worker = user_of(mlflow, "worker-training")
    User().create(context, worker)
    _, experiment = Experiment().create(context, access(mlflow, name="worked"))
    RegisteredModel().create(context, access(mlflow, name="worked"))
    identity = experiment["experimentId"]
    run: dict[str, Any] = {"method": "POST", "json": {"experiment_id": identity}}

    inputs = access(mlflow, username="worker-training", kind="experiment", target="worked", permission="READ")
    _, state = Permission().create(context, inputs)
    assert status_as(mlflow, worker, f"{API}/experiments/get?experiment_id={identity}") == 200
    assert status_as(mlflow, worker, f"{API}/runs/create", **run) == 403
    edit = inputs | {"permission": "EDIT"}
    assert Permission().diff(context, state, edit).changes == ("permission",)
    state = Permission().update(context, state, edit)
    assert status_as(mlflow, worker, f"{API}/runs/create", **run) == 200
    assert Permission().read(context, state) == state

    grant = {"username": "worker-training", "resource_type": "experiment", "resource_id": identity}
    admin.post(f"{GRANTS}/revoke", json=grant).raise_for_status()
    assert Permission().read(context, state) is None
    admin.post(f"{GRANTS}/grant", json=grant | {"permission": "MANAGE"}).raise_for_status()
    found = Permission().read(context, state)
    assert found is not None and found["permission"] == "MANAGE", "one widened by hand shows"
    Permission().update(context, found, edit)
    assert Permission().read(context, state) == state
    Permission().delete(context, state)
    assert Permission().read(context, state) is None
    assert status_as(mlflow, worker, f"{API}/experiments/get?experiment_id={identity}") == 403

    model = access(mlflow, username="worker-training", kind="registered_model", target="worked", permission="EDIT")
    _, state = Permission().create(context, model)
    assert Permission().read(context, state) == state
    version = {"method": "POST", "json": {"name": "worked", "source": "mlflow-artifacts:/1/models/x", "run_id": None}}
    assert status_as(mlflow, worker, f"{API}/registered-models/get?name=worked") == 200
    assert status_as(mlflow, worker, f"{API}/model-versions/create", **version) != 403
    with pytest.raises(PlatformError, match="no such registered model"):
        Permission().create(context, model | {"target": "nobody's"})


def test_unreachable_is_not_gone(mlflow: Server, context: Context, warned: list[str]) -> None:
    _, state = Experiment().create(context, access(mlflow, name="away"))
    wrong = secret_file(mlflow.folder / "secrets", "wrong")
    assert Experiment().read(context, state | {"passwordFile": str(wrong)}) == state | {"passwordFile": str(wrong)}
    assert "401" in warned[0]
    mlflow.stop()
    try:
        with pytest.raises(UnreachableError, match="does not answer"):
            Experiment().read(context, state)
    finally:
        mlflow.start()
    assert Experiment().read(context, state) == state
