"""What the target aws decides without AWS: names, sizes, who may do what, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemill.components.images.container_placeholders import ContainerPlaceholders
from tidemill.components.targets.aws import permissions, stores
from tidemill.components.targets.aws.names import Names, fit, priority, size_of, task_size
from tidemill.components.targets.aws.permissions import Statement
from tidemill.components.targets.aws.settings import AwsSettings, TaskSize
from tidemill.components.tools.table import IMAGES
from tidemill.runtime.common.errors import ConfigError
from tidemill.stacks.loading import load_stack, project_settings

NAME = st.from_regex(r"[a-z][a-z0-9]{2,29}", fullmatch=True)
GOOD = {"region": "eu-central-1", "domain": "harbour.ml.example.org", "zone": "Z123"}
SERVICES = ["mlflow", "serving-boats"]


@given(team=NAME, name=st.from_regex(r"[a-z][a-z0-9-]{0,60}[a-z0-9]", fullmatch=True), limit=st.sampled_from([32, 63]))
def test_names_keep_their_limit_and_stay_apart(team: str, name: str, limit: int) -> None:
    found = Names(team, "dev").of(name, limit)
    assert len(found) <= limit
    assert found[0].isalpha() and found[-1].isalnum()
    assert found != Names(team, "dev").of(f"{name}x", limit)
    assert found == Names(team, "dev").of(name, limit)


def test_tags_tell_team_and_environment_and_what_the_config_adds() -> None:
    tags = Names("harbour", "prod", {"cost-center": "4711"}).tags("mlflow")
    assert tags["tidemill:team"] == "harbour"
    assert tags["tidemill:environment"] == "prod"
    assert tags["cost-center"] == "4711"


@given(cpu=st.integers(256, 16384), memory=st.integers(512, 122880))
def test_a_task_is_one_which_fargate_offers(cpu: int, memory: int) -> None:
    # https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html
    offered = {
        256: {512, 1024, 2048},
        512: set(range(1024, 4097, 1024)),
        1024: set(range(2048, 8193, 1024)),
        2048: set(range(4096, 16385, 1024)),
        4096: set(range(8192, 30721, 1024)),
        8192: set(range(16384, 61441, 4096)),
        16384: set(range(32768, 122881, 8192)),
    }
    units, found = fit(cpu, memory)
    assert found in offered[units]
    assert units >= cpu and found >= memory


def test_no_task_is_larger_than_fargate_has() -> None:
    with pytest.raises(ConfigError, match="more than a Fargate task can have"):
        fit(256, 122881)


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_every_size_fits_with_the_container_beside_it(size: str) -> None:
    settings = AwsSettings.model_validate({**GOOD, "size": size})
    for name in ("mlflow", "lakefs", "validation", "monitor", "prometheus", "serving-x", "training", "jobs", "grafana"):
        found = size_of(settings, name)
        cpu, memory = task_size(found, helper=True)
        assert cpu >= found.cpu and memory >= found.memory_mb


def test_the_config_says_what_one_service_gets() -> None:
    settings = AwsSettings(services={"mlflow": TaskSize(cpu=4096, memory_mb=8192)})
    assert size_of(settings, "mlflow").cpu == 4096
    assert size_of(settings, "serving-boats") == size_of(settings, "serving-tides")


def test_rules_of_the_load_balancer_have_places_of_their_own() -> None:
    taken: set[int] = set()
    for index in range(500):
        place = priority(f"serving-{index}", taken)
        assert 100 <= place <= 50000 and place not in taken
        taken.add(place)
    assert priority("mlflow", ()) == priority("mlflow", ())
    assert priority("mlflow", {priority("mlflow", ())}) != priority("mlflow", ())


@pytest.mark.parametrize(
    ("actions", "resources"),
    [
        (["s3:*"], ["arn:aws:s3:::b/k"]),
        (["s3:GetObject"], ["*"]),
        (["s3:Get?bject"], ["arn:aws:s3:::b/k"]),
        (["s3:GetObject"], ["arn:aws:s3:::b/stores/*"]),
    ],
)
def test_a_star_without_a_reason_is_refused(actions: list[str], resources: list[str]) -> None:
    statement = Statement(sid="Wide", actions=actions, resources=resources)
    with pytest.raises(ConfigError, match=r"Wide: has a wildcard and no reason"):
        permissions.document([statement])
    reasoned = Statement(sid="Wide", actions=actions, resources=resources, reason="there is a reason")
    assert json.loads(permissions.document([reasoned]))["Statement"][0]["Sid"] == "Wide"
    assert permissions.reasons([reasoned]) == "Wide: there is a reason"


def test_descriptions_are_no_longer_than_iam_takes() -> None:
    many = [Statement(sid=f"S{i}", actions=["s3:*"], resources=["*"], reason="x" * 60) for i in range(40)]
    assert len(permissions.reasons(many)) == 1000


@pytest.mark.parametrize(
    ("reader", "secret"),
    [
        ("serving-boats", "lakefs-key-id"),
        ("serving-boats", "lakefs-secret"),
        ("prometheus", "lakefs-secret"),
        ("mlflow", "lakefs-secret"),
        ("retraining", "gate-signing-key"),
        ("serving-boats", "gate-signing-key"),
        ("lakefs", "verdict-signing-key"),
        ("content-lake", "validation-signing-key"),
        ("training-boats", "mlflow-admin"),
        ("training-boats", "mlflow-retraining"),
        ("seed-harbour", "mlflow-retraining"),
        ("serving-boats", "mlflow-admin"),
        ("seed-harbour", "database-mlflow"),
        ("validation", "lakefs-signing"),
        ("prometheus", "grafana-admin"),
    ],
)
def test_who_may_not_read_a_secret(reader: str, secret: str) -> None:
    with pytest.raises(ConfigError, match=f"must not be read by {reader}"):
        permissions.check_readers(reader, [secret])


@pytest.mark.parametrize(
    ("reader", "secrets"),
    [
        ("validation", ["gate-signing-key", "lakefs-key-id", "lakefs-secret"]),
        ("monitor", ["lakefs-key-id", "lakefs-secret"]),
        ("training-boats", ["lakefs-key-id", "lakefs-secret", "mlflow-training"]),
        ("content-registry-mlflow-serving", ["mlflow-admin", "mlflow-serving"]),
        ("databases-mlflow", ["database-mlflow"]),
        ("serving-boats", ["serving-boats-key", "mlflow-serving"]),
    ],
)
def test_who_may_read_a_secret(reader: str, secrets: list[str]) -> None:
    permissions.check_readers(reader, secrets)


def test_every_rule_says_why() -> None:
    assert all(rule.why and (rule.only or rule.never) for rule in permissions.SECRET_RULES)
    assert all(rule.why for rule in stores.STORES)


@pytest.mark.parametrize(
    ("store", "service", "use"),
    [
        ("lakefs-objects", "lakefs", "direct"),
        ("mlflow-artifacts", "mlflow", "direct"),
        ("capture-boats", "serving-boats", "send"),
        ("capture-boats", "monitor", "fetch"),
        ("access-boats", "serving-boats", "fetch"),
        ("retraining", "retraining", "keep"),
        ("prometheus", "prometheus", "lost"),
        ("something-new", "a-new-service", "keep"),
    ],
)
def test_what_becomes_of_stores(store: str, service: str, use: str) -> None:
    assert stores.use_of(store, service) == use


def test_serving_only_adds_to_the_capture() -> None:
    found = permissions.store("arn:aws:s3:::b", "capture-boats", "send")
    actions = {action for one in found for action in one.actions}
    assert actions == {"s3:PutObject", "s3:AbortMultipartUpload"}
    assert [one.resources for one in found] == [["arn:aws:s3:::b/stores/capture-boats/*"]]


def test_a_store_is_listed_below_its_own_place_alone() -> None:
    (listing,) = [
        one for one in permissions.store("arn:aws:s3:::b", "monitor", "keep") if "s3:ListBucket" in one.actions
    ]
    assert listing.conditions == {"StringLike": {"s3:prefix": ["stores/monitor/*"]}}
    assert permissions.store("arn:aws:s3:::b", "prometheus", "lost") == []


def test_placeholders_become_paths_and_secrets_stay() -> None:
    placeholders = ContainerPlaceholders(IMAGES["lakefs"], {"mlflow": "postgresql://mlflow@db/mlflow"})
    assert placeholders.resolve("@{tool:lakefs} @{config} @{port} @{store:x} @{secret:y}") == (
        "/app/lakefs /run/tidemill/config 8080 /data/x @{secret:y}"
    )
    assert placeholders("@{secret-file:key}") == "/run/tidemill/secrets/key"
    with pytest.raises(ConfigError, match="cannot be resolved in this image"):
        placeholders.resolve("@{tool:prometheus}")
    with pytest.raises(ConfigError, match="cannot be resolved"):
        ContainerPlaceholders().resolve("@{database:mlflow}")


def problems(**changes: object) -> list[str]:
    settings = AwsSettings.model_validate({**GOOD, **changes})
    return [f"{'.'.join(map(str, one.path))} {one.message}" for one in settings.problems(SERVICES)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"region": None}, "aws.region is missing"),
        ({"domain": None}, "aws.domain is missing"),
        ({"zone": None}, "aws.certificate can only be created if Route 53"),
        ({"zone": None, "certificate": {"existing": "arn:aws:acm:eu-central-1:1:certificate/x"}}, None),
        ({"ingress": {"public": True}}, "aws.ingress.allow is missing"),
        ({"ingress": {"public": True, "allow": ["192.0.2.0/24"]}}, None),
        ({"scaling": {"at_least": 5, "at_most": 2}}, "aws.scaling.at_most is less than at_least"),
        ({"services": {"nothing": {}}}, "aws.services.nothing no such service"),
        ({"images": {"lakefs": "treeverse/lakefs"}}, "aws.images.lakefs is not pinned"),
        ({"images": {"lakefs": "treeverse/lakefs:latest"}}, "aws.images.lakefs is not pinned"),
        ({"tags": {"tidemill:team": "other"}}, "aws.tags.tidemill:team is a reserved prefix"),
        (
            {"network": {"existing": {"vpc": "vpc-1", "private_subnets": ["a", "b"], "public_subnets": ["c", "d"]}}},
            "aws.ingress.allow is missing",
        ),
    ],
)
def test_what_does_not_hold_is_said(changes: dict[str, object], said: str | None) -> None:
    found = problems(**changes)
    assert found == [] if said is None else [one for one in found if one.startswith(said)], found


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("network: {existing: {vpc: vpc-1, private_subnets: [a, b], public_subnets: [c, d]}, args: {zones: 3}}",
         "existing and args exclude one another"),
        ("metrics: {existing: 'arn:aws:aps:eu-central-1:1:workspace/ws-1', skip: true}",
         "existing and skip exclude one another"),
        ("network: {args: {cidr: 10.0.0.0/24}}", "is too small, got '10.0.0.0/24'; use /20 or wider"),
        ("network: {args: {cidr: 10.0.0.1/16}}", "has host bits set"),
        ("ingress: {allow: [everybody]}", "does not appear to be an IPv4 or IPv6 network"),
        ("cluster: {existing: my-cluster}", "aws.cluster.existing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, config: str, said: str) -> None:
    project_settings.cache_clear()
    (tmp_path / "Pulumi.yaml").write_text("name: harbour\nruntime: python\n")
    (tmp_path / "Pulumi.harbour-dev.yaml").write_text(
        "config:\n  tidemill:stack:\n    team: harbour\n    environment: dev\n    target: aws\n    aws:\n"
        f"      region: eu-central-1\n      domain: h.example.org\n      zone: Z1\n      {config}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_stack(tmp_path, "harbour-dev")
    assert said in str(caught.value)


def test_production_is_what_is_called_so_or_said_to_be() -> None:
    assert AwsSettings().is_production("prod") and AwsSettings().is_production("production")
    assert not AwsSettings().is_production("dev")
    assert AwsSettings(production=True).is_production("dev")
    assert not AwsSettings(production=False).is_production("prod")
