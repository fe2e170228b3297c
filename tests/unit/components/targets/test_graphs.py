"""Whatever a team may write: on every target the graph refers to nothing which it has not."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill.stacks.loading import LoadedStack
from tidemill.stacks.program import compose
from tidemill.stacks.settings import StackConfig

from tests.support.aws_graph import load
from tests.support.graphs import CONTAINER, NATIVE, RULES, Declared, Docker
from tests.support.recorded import Recorded, record

_NAMES = st.sampled_from(["boats", "tide-table", "x1"])
_OURS = ("mlflow", "serving", "runtime", "training")
# Built images are another test's matter: here they come from elsewhere, as a config may have it.
_BLOCKS: dict[str, dict[str, Any]] = {
    "local": {},
    "docker": {"docker": {"images": {name: f"registry.example/{name}:1" for name in _OURS}}},
    "aws": {
        "aws": {
            "region": "eu-central-1",
            "domain": "harbour.ml.example.org",
            "zone": "Z1",
            "images": {name: f"registry.example/{name}:1" for name in (*_OURS, "content")},
        }
    },
}
_SERVICE = {"docker": CONTAINER, "aws": "aws:ecs/service:Service"}


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A valid config without its target; the files which it names are those of `project`."""
    repositories = draw(
        st.dictionaries(
            st.sampled_from(["harbour", "archive-2"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "protect": st.sampled_from([["main"], ["main", "prod"]]),
                    "gate": st.just("suite.json"),
                    "seed": st.just(["python", "code/seed.py"]),
                },
            ),
            min_size=1,
        )
    )
    serve = st.fixed_dictionaries(
        {},
        optional={
            "workers": st.integers(1, 4),
            "capture": st.one_of(
                st.floats(0, 1), st.fixed_dictionaries({"hash": st.just(["name"]), "retention": st.just("30d")})
            ),
            "shadow": st.just("challenger"),
        },
    )
    models = draw(
        st.dictionaries(
            _NAMES,
            st.fixed_dictionaries(
                {
                    "owner": st.just("ops@example.org"),
                    "purpose": st.just("will it sink?"),
                    "code": st.just("code"),
                    "train": st.just(["python", "train.py"]),
                    "data": st.sampled_from([f"{name}/main/rows" for name in repositories]),
                    "target": st.just("sunk"),
                    "serve": serve,
                    "retrain": st.fixed_dictionaries({"triggers": st.sampled_from([[], ["drift"]])}),
                }
            ),
            max_size=2,
        )
    )
    slack = {"slack": {"url": {"secret": "hook"}, "channel": "#tides"}}
    receivers = st.lists(st.sampled_from([slack, {"webhook": {"url": {"secret": "hook"}}}]), max_size=2)
    services = ["lakefs", "mlflow", "prometheus", *(f"serving-{name}" for name in models)]
    if models:
        services += ["monitor", "retraining"]
    ports = draw(st.lists(st.sampled_from(services), unique=True, max_size=3))
    return {
        "team": draw(st.sampled_from(["harbour", "tide-watch"])),
        "environment": draw(st.sampled_from(["dev", "prod"])),
        "lake": {"repositories": repositories},
        "models": models,
        "monitoring": {"grafana": draw(st.sampled_from(["auto", "off"])), "receivers": draw(receivers)},
        "ports": {name: 30000 + index for index, name in enumerate(ports)},
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "code").mkdir()
    (folder / "suite.json").write_text('{"name": "x", "expectations": [], "meta": {"tidemill": {"path": "x"}}}')
    return folder


def recorded(project: Path, target: str, config: dict[str, Any]) -> Recorded:
    if target == "aws":
        load()
    whole = {**config, **_BLOCKS[target], "target": target}
    # As the loader reads it: YAML has no tuples, and a duration is text.
    model = StackConfig.model_validate(json.loads(json.dumps(whole)), strict=True)
    loaded = LoadedStack(model, project / "Pulumi.yaml", project, secrets=frozenset({"hook"}))
    return record(functools.partial(compose, loaded), secrets={"hook": "https://hooks.example/T0"})


@pytest.mark.parametrize("target", sorted(RULES.keys() - {"aws"}))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs())
def test_every_valid_config_refers_to_nothing_it_has_not(project: Path, target: str, config: dict[str, Any]) -> None:
    has_all(project, target, config)


# Some 350 resources take seconds, not moments.
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=configs())
def test_every_valid_config_refers_to_nothing_it_has_not_on_aws(project: Path, config: dict[str, Any]) -> None:
    has_all(project, "aws", config)


def has_all(project: Path, target: str, config: dict[str, Any]) -> None:
    made = recorded(project, target, config)
    assert RULES[target](made.graph) == []
    kind = _SERVICE.get(target, f"{NATIVE}:local:Service")
    running = {name for (typ, name) in made.resources if typ == kind}
    assert {"lakefs", "mlflow", "prometheus", "alertmanager"} <= running
    assert {f"serving-{name}" for name in config["models"]} <= running
    assert ("validation" in running) == any("gate" in found for found in config["lake"]["repositories"].values())


_ONE = {
    "team": "harbour",
    "environment": "dev",
    "lake": {"repositories": {"harbour": {"gate": "suite.json", "seed": ["python", "code/seed.py"]}}},
    "models": {
        "boats": {
            "owner": "ops@example.org", "purpose": "x", "code": "code", "train": ["python", "train.py"],
            "data": "harbour/main/rows", "target": "sunk",
        }
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "missed"),
    [
        (f"{NATIVE}:local:Secret", "lakefs-hook", "lakefs: no secret lakefs-hook"),
        (f"{NATIVE}:local:Secret", "database-mlflow", "mlflow: placeholder secret database-mlflow in its files"),
        (f"{NATIVE}:docker:Volume", "capture-boats", "monitor: no volume tidemill-harbour-dev-capture-boats"),
        (f"{NATIVE}:docker:Scratch", "scratch-lakefs", "lakefs: no volume tidemill-harbour-dev-scratch-lakefs"),
        ("docker:index/network:Network", "network-edge", "lakefs: no network tidemill-harbour-dev-edge"),
        ("docker:index/remoteImage:RemoteImage", "image-lakefs", "lakefs: no image treeverse/lakefs:1.86.0"),
        (CONTAINER, "postgres", "lakefs: cannot reach postgres"),
        (CONTAINER, "runner", "retraining: cannot reach runner"),
        (CONTAINER, "validation", "prometheus: cannot reach validation"),
    ],
)
def test_the_rule_of_docker_sees_what_is_missing(project: Path, kind: str, name: str, missed: str) -> None:
    graph = recorded(project, "docker", _ONE).graph
    assert RULES["docker"](graph) == []
    left = [found for found in graph if (found.type, found.name) != (kind, name)]
    assert len(left) == len(graph) - 1
    assert missed in RULES["docker"](left)


def test_the_rule_of_docker_sees_a_file_which_is_not_mounted(project: Path) -> None:
    graph = recorded(project, "docker", _ONE).graph
    files = Docker(graph).files_of(Docker(graph).containers["retraining"])
    less = {path: text for path, text in files.inputs["files"].items() if path != "config/runtime.json"}
    changed = dataclasses.replace(files, inputs={**files.inputs, "files": less})
    wrong = RULES["docker"]([changed if found is files else found for found in graph])
    assert wrong == ["retraining: no file config/runtime.json"]


@pytest.mark.parametrize("name", ["lakefs-hook", "serving-boats-key"])
def test_the_rule_of_local_sees_a_missing_secret(project: Path, name: str) -> None:
    graph = recorded(project, "local", _ONE).graph
    left = [found for found in graph if found != Declared(f"{NATIVE}:local:Secret", name, found.inputs)]
    assert any(name in wrong for wrong in RULES["local"](left))


@pytest.mark.parametrize(
    ("kind", "name", "missed"),
    [
        ("aws:secretsmanager/secret:Secret", "secret-lakefs-hook", "TIDEMILL_SECRET_LAKEFS_HOOK is no secret"),
        ("aws:s3/bucketObjectv2:BucketObjectv2", "files-monitor", "monitor: no files s3://"),
        ("aws:ecs/service:Service", "validation", "prometheus: cannot reach validation.harbour-dev.tidemill.internal"),
        ("aws:ecs/taskDefinition:TaskDefinition", "task-mlflow", "mlflow: no task definition"),
        ("aws:iam/role:Role", "role-mlflow-start", "mlflow: no role executionRoleArn"),
        ("aws:iam/policy:Policy", "role-retraining", "retraining: may not use s3://"),
        ("aws:iam/policy:Policy", "role-mlflow-start", "mlflow: TIDEMILL_SECRET_MLFLOW_ADMIN may not be read"),
        ("aws:ec2/subnet:Subnet", "private-1", "lakefs: no subnet subnet-"),
        ("aws:cloudwatch/logGroup:LogGroup", "log-lakefs", "lakefs: main: no log group /tidemill/harbour-dev/lakefs"),
    ],
)
def test_the_rule_of_aws_sees_what_is_missing(on_aws: list[Declared], kind: str, name: str, missed: str) -> None:
    left = [found for found in on_aws if (found.type, found.name) != (kind, name)]
    assert len(left) == len(on_aws) - 1
    assert any(missed in wrong for wrong in RULES["aws"](left)), RULES["aws"](left)


@pytest.fixture(scope="module")
def on_aws(project: Path) -> list[Declared]:
    graph = recorded(project, "aws", _ONE).graph
    assert RULES["aws"](graph) == []
    return graph
