"""What the components declare for the flights team and for a stack of five lines."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest
import yaml
from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import compose

from tests.support.platform import ROOT
from tests.support.recorded import Recorded, record


@functools.cache
def flights() -> Recorded:
    return record(functools.partial(compose, load_stack(ROOT, "flights-dev")))


@pytest.fixture
def small(tmp_path: Any) -> Recorded:
    (tmp_path / "stacks/config").mkdir(parents=True)
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / "stacks/config/Pulumi.harbour-dev.yaml").write_text(
        "config:\n  tidemill:stack:\n    team: harbour\n    environment: dev\n"
    )
    return record(functools.partial(compose, load_stack(tmp_path, "harbour-dev")))


def test_the_flights_stack_has_every_service() -> None:
    assert set(flights().of("Service")) == {
        "lakefs", "validation", "mlflow", "serving-flights", "retraining", "monitor", "alertmanager", "prometheus",
    }  # fmt: skip


def test_five_lines_stand_up_lake_registry_and_monitoring_and_nothing_of_a_model(small: Recorded) -> None:
    assert set(small.of("Service")) == {"lakefs", "mlflow", "prometheus", "alertmanager"}
    assert set(small.of("Repository")) == {"harbour"}
    assert not small.of("RegisteredModel")


def test_every_secret_a_service_names_is_declared_and_listed_with_it() -> None:
    declared = set(flights().of("Secret"))
    for name, service in flights().of("Service").items():
        text = json.dumps([service["argv"], service.get("env", {}), service.get("configFiles", {})])
        for kind in ("secret", "secret-file", "bcrypt"):
            named = {part.split("}")[0] for part in text.split(f"@{{{kind}:")[1:]}
            assert named <= declared, name
            assert named <= set(service["secrets"]), f"{name} would not restart when {named} changes"


def test_no_secret_value_passes_through_the_program() -> None:
    for name, service in flights().of("Service").items():
        for part in (*service["argv"], *service.get("env", {}).values()):
            assert "@{secret:" not in part, f"{name} would show a secret"
            assert "@{bcrypt:" not in part, f"{name} would show a hash"


def test_stores_and_folders_match() -> None:
    folders = set(flights().of("Folder"))
    for name, service in flights().of("Service").items():
        text = json.dumps([service["argv"], service.get("env", {}), service.get("configFiles", {})])
        for kind in ("store", "database"):
            named = {part.split("}")[0] for part in text.split(f"@{{{kind}:")[1:]}
            assert named <= folders, name


def test_prometheus_scrapes_every_service() -> None:
    config = yaml.safe_load(flights().of("Service")["prometheus"]["configFiles"]["prometheus.yml"])
    assert {job["job_name"] for job in config["scrape_configs"]} == set(flights().of("Service"))
    open_ones = {j["job_name"] for j in config["scrape_configs"] if not ({"basic_auth", "authorization"} & set(j))}
    assert open_ones == {"lakefs"}, "lakeFS alone cannot ask for credentials"


def test_alerts_of_models_reach_the_retraining_service_with_its_token() -> None:
    config = yaml.safe_load(flights().of("Service")["alertmanager"]["configFiles"]["alertmanager.yml"])
    (webhook,) = next(r for r in config["receivers"] if r["name"] == "retraining")["webhook_configs"]
    assert webhook["url"].endswith("/alerts")
    assert webhook["http_config"]["authorization"]["credentials_file"] == "@{secret-file:retraining-token}"


@pytest.mark.parametrize("service", ["validation", "serving", "monitor", "retraining"])
def test_rendered_settings_fit_the_models_of_their_services(service: str) -> None:
    import importlib

    name = "serving-flights" if service == "serving" else service
    module = importlib.import_module(f"tidemill.runtime.{service}.settings")
    model = getattr(module, f"{service.capitalize()}Settings")
    text = flights().of("Service")[name]["configFiles"]["settings.json"]
    model.model_validate_json(text.replace("@{port}", "8080").replace("@{host}", "127.0.0.1"))


def test_the_runtime_settings_fit_their_model() -> None:
    from tidemill.runtime.common.settings import RuntimeSettings

    text = flights().of("Service")["retraining"]["configFiles"]["runtime.json"]
    settings = RuntimeSettings.model_validate_json(text)
    assert settings.models["flights"].promote.at_least == 0.65


def test_grafana_where_it_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.stacks import program

    monkeypatch.setattr(program, "_is_installed", lambda tool: True)
    recorded = record(functools.partial(compose, load_stack(ROOT, "flights-dev")))
    grafana = recorded.of("Service")["grafana"]
    files = grafana["configFiles"]
    (source,) = yaml.safe_load(files["provisioning/datasources/tidemill.yml"])["datasources"]
    assert source["secureJsonData"]["basicAuthPassword"] == "$__file{@{secret-file:prometheus-admin}}"
    dashboard = json.loads(files["dashboards/tidemill.json"])
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    assert "reporting_enabled = false" in files["grafana.ini"]
    assert set(grafana["secrets"]) == {"grafana-admin", "prometheus-admin"}


def test_every_protected_branch_is_guarded(tmp_path: Any) -> None:
    (tmp_path / "stacks/config").mkdir(parents=True)
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    suite = {"name": "x", "expectations": [{"type": "x"}], "meta": {"tidemill": {"path": "x"}}}
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    (tmp_path / "stacks/config/Pulumi.harbour-dev.yaml").write_text(
        "config:\n  tidemill:stack:\n    team: harbour\n    environment: dev\n"
        "    lake: {repositories: {harbour: {protect: [main, prod], gate: suite.json}}}\n"
    )
    recorded = record(functools.partial(compose, load_stack(tmp_path, "harbour-dev")))
    action = yaml.safe_load(recorded.of("Action")["gate-harbour"]["content"])
    events = action.get("on", action.get(True))  # YAML 1.1 reads `on` as a boolean
    assert events["pre-merge"]["branches"] == ["main", "prod"]


def test_a_program_of_ones_own_gets_all_it_composes_from_one_place() -> None:
    from tidemill import components

    assert [name for name in components.__all__ if getattr(components, name, None) is None] == []
    assert sorted(components.__all__) == components.__all__
    assert {"Platform", "Lake", "Registry", "ExistingRegistry", "ModelService", "ServiceArgs", "target_here"} <= set(
        components.__all__
    )
    with pytest.raises(AttributeError, match="Plattform"):
        components.Plattform  # noqa: B018


def composed(*, skip: Any = (), trusting: Any = (), **existing: Any) -> Recorded:
    from pathlib import Path

    import pulumi
    from tidemill.components import ExistingRegistry, ModelConfig, Platform, PlatformArgs
    from tidemill.components.settings import ServeConfig
    from tidemill.components.targets.local.target import LocalTarget

    if "username" in existing:
        existing["password"] = pulumi.Output.secret("s3cret")
    model = ModelConfig(owner="o", purpose="p", code="c", train=["python"], data="a/main/b", target="t")
    serve = ServeConfig(trust=["pickle"])

    def program() -> None:
        target = LocalTarget("quay-dev", Path("/nowhere/stacks/quay-dev"), Path("/nowhere"))
        args = PlatformArgs(
            target=target,
            project=Path("/nowhere"),
            models={"boats": model, **{name: model.model_copy(update={"serve": serve}) for name in trusting}},
            skip=skip,
            existing_registry=ExistingRegistry(url="https://mlflow.example.org/", **existing),
        )
        Platform("platform", args)

    return record(program)


def settings_of(recorded: Recorded, service: str) -> dict[str, Any]:
    return json.loads(recorded.of("Service")[service]["configFiles"]["settings.json"])


def registry_of(recorded: Recorded, service: str) -> dict[str, Any]:
    return settings_of(recorded, service)["registry"]


def test_trust_in_pickles_is_that_of_one_model() -> None:
    recorded = composed(trusting=["ships"])
    trust = {name: settings_of(recorded, f"serving-{name}")["trust"] for name in ("boats", "ships")}
    assert trust == {"boats": [], "ships": ["pickle"]}


def test_an_administrator_of_a_brought_registry_lets_each_service_have_a_user_of_its_own() -> None:
    recorded = composed(username="root", administrator=True, metrics=True)
    assert "mlflow" not in recorded.of("Service")
    assert not [name for name in recorded.of("Folder") if name.startswith("mlflow")]
    users = {user["username"] for user in recorded.of("User").values()}
    assert users == {"quay-dev-serving", "quay-dev-monitor", "quay-dev-training", "quay-dev-retraining"}
    assert registry_of(recorded, "serving-boats") == {
        "tracking_uri": "https://mlflow.example.org",
        "username": "quay-dev-serving",
        "password_file": "@{secret-file:mlflow-serving}",
    }
    for permission in recorded.of("Permission").values():
        assert permission["username"] in users
        assert permission["admin"] == "root"
    prometheus = yaml.safe_load(recorded.of("Service")["prometheus"]["configFiles"]["prometheus.yml"])
    (job,) = [job for job in prometheus["scrape_configs"] if job["job_name"] == "mlflow"]
    assert job["basic_auth"] == {"username": "root", "password_file": "@{secret-file:mlflow-existing}"}


def test_without_an_administrator_all_services_are_the_user_who_was_given() -> None:
    recorded = composed(username="quay")
    assert not recorded.of("User")
    assert not recorded.of("Permission")
    assert set(recorded.of("RegisteredModel")) == {"boats"}
    for service in ("serving-boats", "monitor", "retraining"):
        assert registry_of(recorded, service)["username"] == "quay"
        assert "mlflow-existing" in recorded.of("Service")[service]["secrets"]
    prometheus = yaml.safe_load(recorded.of("Service")["prometheus"]["configFiles"]["prometheus.yml"])
    assert "mlflow" not in {job["job_name"] for job in prometheus["scrape_configs"]}


def test_a_registry_which_asks_for_nothing_is_shown_nothing_by_the_services() -> None:
    assert registry_of(composed(), "serving-boats") == {"tracking_uri": "https://mlflow.example.org"}


@pytest.mark.parametrize(
    ("existing", "more", "said"),
    [
        ({"username": "x"}, {}, "existing.username, existing.password"),
        ({"administrator": True}, {}, "existing.administrator"),
        ({}, {"port": 8080}, "port, existing"),
        ({}, {"target": "docker"}, "cannot reach servers outside the stack"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_made(
    existing: dict[str, Any], more: dict[str, Any], said: str
) -> None:
    from types import SimpleNamespace

    from tidemill.components import ExistingRegistry, RegistryArgs
    from tidemill.runtime.common.errors import ConfigError

    name = more.pop("target", "local")
    target: Any = SimpleNamespace(name=name, external_access=name == "local")
    args = RegistryArgs(target=target, existing=ExistingRegistry(url="https://mlflow.example.org", **existing), **more)
    with pytest.raises(ConfigError) as caught:
        args.check()
    assert said in str(caught.value)


def test_the_target_here_is_named_after_the_stack_or_the_project(tmp_path: Any, monkeypatch: Any) -> None:
    import pulumi
    from tidemill.components import target_here
    from tidemill.runtime.common.errors import ConfigError

    (tmp_path / "Pulumi.yaml").write_text("name: harbour\nruntime: python\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pulumi, "get_project", lambda: "harbour")
    for stack, wanted in (("dev", "harbour-dev"), ("north-quay-prod", "north-quay-prod")):
        monkeypatch.setattr(pulumi, "get_stack", lambda stack=stack: stack)
        target = target_here()
        assert (target.name, target.stack, target.external_access) == ("local", wanted, True)
    monkeypatch.setattr(pulumi, "get_stack", lambda: "Dev")
    with pytest.raises(ConfigError, match="TEAM-ENVIRONMENT"):
        target_here()


def test_parts_of_the_platform_are_left_out() -> None:
    whole, watched, bare = (composed(skip=skip) for skip in ((), ("retraining",), ("monitoring", "retraining")))
    assert set(whole.of("Service")) - set(watched.of("Service")) == {"retraining"}
    assert set(bare.of("Service")) == {"lakefs", "serving-boats"}
    config = yaml.safe_load(watched.of("Service")["alertmanager"]["configFiles"]["alertmanager.yml"])
    assert "retraining" not in {receiver["name"] for receiver in config["receivers"]}


def brought(tmp_path: Any, gate: str | None, **existing: Any) -> Recorded:
    import pulumi
    from tidemill.components import ExistingLake, Lake, LakeArgs, RepositoryConfig
    from tidemill.components.targets.local.target import LocalTarget

    (tmp_path / "suite.json").write_text('{"name": "x", "expectations": [], "meta": {"tidemill": {"path": "x"}}}')

    def program() -> None:
        keys = {key: pulumi.Output.secret(value) for key, value in {"key_id": "AKIA", "secret": "s3cret"}.items()}
        more = {key: pulumi.Output.secret(value) for key, value in existing.items()}
        there = ExistingLake(url="https://lake.example.org:8443/", namespace="s3://bucket/", **keys, **more)
        args = LakeArgs(
            target=LocalTarget("quay-dev", tmp_path, tmp_path),
            project=tmp_path,
            repositories={"boats": RepositoryConfig(gate=gate)},
            existing=there,
        )
        Lake("lake", args)

    return record(program)


def test_a_brought_lake_gets_the_repositories_and_nothing_is_started(tmp_path: Any) -> None:
    recorded = brought(tmp_path, None)
    assert not recorded.of("Service")
    assert not recorded.of("Folder")
    (repository,) = recorded.of("Repository").values()
    assert repository["namespace"] == "s3://bucket/boats"
    assert repository["url"] == "https://lake.example.org:8443"
    assert set(recorded.of("Secret")) == {"lakefs-key-id", "lakefs-secret", "lakefs-hook"}


def test_a_gate_in_a_brought_lake_needs_the_secret_by_which_that_calls(tmp_path: Any) -> None:
    from tidemill.runtime.common.errors import ConfigError

    with pytest.raises(ConfigError, match=r"existing\.hook"):
        brought(tmp_path, "suite.json")
    recorded = brought(tmp_path, "suite.json", hook="known to both")
    assert set(recorded.of("Service")) == {"validation"}
    assert "lakefs-hook" in recorded.of("Service")["validation"]["secrets"]


def test_more_is_made_beside_what_a_stack_config_describes() -> None:
    import pulumi
    from tidemill.components import EndpointArgs, ServiceArgs

    def program() -> None:
        platform = compose(load_stack(ROOT, "flights-dev"))
        assert platform.urls["lakefs"] is platform.lake.endpoint.public_url
        opts = pulumi.ResourceOptions(depends_on=[platform.lake])
        endpoint = platform.target.endpoint("catalogue", EndpointArgs(), opts)
        platform.target.service("catalogue", ServiceArgs(argv=["@{python}"], endpoints=[endpoint]), opts)

    assert set(record(program).of("Service")) == {*flights().of("Service"), "catalogue"}
