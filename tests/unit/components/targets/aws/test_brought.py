"""What a stack on AWS makes of what is brought: nothing of it, and everything around it."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from tidemill.stacks.loading import LoadedStack
from tidemill.stacks.program import compose
from tidemill.stacks.settings import StackConfig

from tests.support.aws_graph import load
from tests.support.recorded import Recorded, record

CLUSTER = "arn:aws:ecs:eu-central-1:123456789012:cluster/shared"
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:master-AbCdEf"
WORKSPACE = "arn:aws:aps:eu-west-1:123456789012:workspace/ws-123"
IMAGES = ("mlflow", "serving", "runtime", "training", "content", "lakefs", "prometheus", "alertmanager", "grafana")
BROUGHT: dict[str, Any] = {
    "region": "eu-central-1",
    "domain": "harbour.ml.example.org",
    "ingress": {"allow": ["10.0.0.0/8"]},
    "network": {"existing": {"vpc": "vpc-0a", "private_subnets": ["p1", "p2"], "public_subnets": ["e1", "e2"]}},
    "cluster": {"existing": CLUSTER},
    "database": {"existing": {"host": "db.example.org", "port": 6432, "secret": SECRET, "security_group": "sg-0b"}},
    "bucket": {"existing": "our-bucket"},
    "certificate": {"existing": "arn:aws:acm:eu-central-1:123456789012:certificate/x"},
    "metrics": {"existing": WORKSPACE},
    "lake_metadata": "postgres",
    "images": {name: f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/ours/{name}:1.0" for name in IMAGES},
}


def recorded(project: Path, **changes: Any) -> Recorded:
    load()
    model = {
        "owner": "ops@example.org", "purpose": "x", "code": "code", "train": ["python", "train.py"],
        "data": "harbour/main/rows", "target": "sunk",
    }  # fmt: skip
    whole = {
        "team": "harbour", "environment": "dev", "target": "aws", "models": {"boats": model},
        "aws": {**BROUGHT, **changes},
    }  # fmt: skip
    config = StackConfig.model_validate(json.loads(json.dumps(whole)), strict=True)
    assert list(config.problems()) == []
    loaded = LoadedStack(config, project / "Pulumi.yaml", project, secrets=frozenset())
    return record(functools.partial(compose, loaded))


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return recorded(tmp_path_factory.mktemp("project"))


def test_nothing_which_is_brought_is_made(brought: Recorded) -> None:
    made = {kind for kind, _ in brought.resources}
    unwanted = {
        "aws:ec2/vpc:Vpc", "aws:ec2/subnet:Subnet", "aws:ec2/vpcEndpoint:VpcEndpoint", "aws:ec2/natGateway:NatGateway",
        "aws:ecs/cluster:Cluster", "aws:rds/instance:Instance", "aws:dynamodb/table:Table", "aws:s3/bucket:Bucket",
        "aws:s3/bucketPolicy:BucketPolicy", "aws:acm/certificate:Certificate", "aws:route53/record:Record",
        "aws:amp/workspace:Workspace", "aws:ecr/repository:Repository", "docker-build:index:Image",
    }  # fmt: skip
    assert not made & unwanted


def test_services_run_in_what_is_brought(brought: Recorded) -> None:
    services = brought.of("Service")
    mlflow = next(one for (kind, name), one in brought.resources.items()
                  if kind == "aws:ecs/service:Service" and name == "mlflow")  # fmt: skip
    assert services
    assert mlflow["cluster"] == CLUSTER
    assert mlflow["name"] == "tidemill-harbour-dev-mlflow", "a shared cluster may hold another stack's"
    assert mlflow["networkConfiguration"]["subnets"] == ["p1", "p2"]
    (balancer,) = brought.of("LoadBalancer").values()
    assert balancer["subnets"] == ["e1", "e2"]
    (listener,) = brought.of("Listener").values()
    assert listener["certificateArn"] == BROUGHT["certificate"]["existing"]


def test_databases_are_made_in_the_server_which_is_brought(brought: Recorded) -> None:
    definition = brought.of("TaskDefinition")["task-databases-mlflow"]
    main = next(one for one in json.loads(definition["containerDefinitions"]) if one["name"] == "main")
    env = {one["name"]: one["value"] for one in main["environment"]}
    assert (env["PGHOST"], env["PGPORT"]) == ("db.example.org", "6432")
    secrets = {one["name"]: one["valueFrom"] for one in main["secrets"]}
    assert secrets == {"PGUSER": f"{SECRET}:username::", "PGPASSWORD": f"{SECRET}:password::"}
    rule = brought.of("SecurityGroupEgressRule")["clients-database"]
    assert rule["referencedSecurityGroupId"] == "sg-0b"
    mlflow = json.loads(brought.of("TaskDefinition")["task-mlflow"]["containerDefinitions"])[-1]
    stores = {one["value"] for one in mlflow["environment"] if one["name"] == "_MLFLOW_SERVER_FILE_STORE"}
    assert stores == {
        "postgresql://mlflow@db.example.org:6432/mlflow?sslmode=require&passfile=/run/tidemill/config/pgpass-mlflow"
    }


def test_stores_are_places_in_the_bucket_which_is_brought(brought: Recorded) -> None:
    files = json.loads(brought.of("BucketObjectv2")["files-serving-boats"]["content"])
    assert files["stores"]["capture-boats"] == {"uri": "s3://our-bucket/stores/capture-boats", "use": "send"}
    policy = json.loads(brought.of("Policy")["role-serving-boats"]["policy"])
    resources = {resource for one in policy["Statement"] for resource in one["Resource"]}
    assert "arn:aws:s3:::our-bucket/stores/capture-boats/*" in resources


def test_metrics_go_to_the_workspace_which_is_brought(brought: Recorded) -> None:
    files = json.loads(brought.of("BucketObjectv2")["files-prometheus"]["content"])
    assert (
        "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-123/api/v1/remote_write"
        in (files["config"]["prometheus.yml"])
    )
    policy = json.loads(brought.of("Policy")["role-prometheus"]["policy"])
    assert [WORKSPACE] in [one["Resource"] for one in policy["Statement"]]


def test_images_of_a_registry_of_aws_may_be_pulled(brought: Recorded) -> None:
    policy = json.loads(brought.of("Policy")["role-lakefs-start"]["policy"])
    (pull,) = [one for one in policy["Statement"] if one["Sid"] == "Pull"]
    arn = "arn:aws:ecr:eu-central-1:123456789012:repository/ours"
    assert pull["Resource"] == [f"{arn}/lakefs", f"{arn}/runtime"]


def test_without_a_workspace_metrics_stay_where_they_are(tmp_path: Path) -> None:
    made = recorded(tmp_path, metrics={"skip": True})
    files = json.loads(made.of("BucketObjectv2")["files-prometheus"]["content"])
    assert "remote_write" not in files["config"]["prometheus.yml"]
    grafana = json.loads(made.of("BucketObjectv2")["files-grafana"]["content"])
    assert "prometheus.harbour-dev.tidemill.internal" in grafana["config"]["provisioning/datasources/tidemill.yml"]
    assert not any("aps:" in one.get("policy", "") for one in made.of("Policy").values())
