"""The program on the target aws, run by the real engine against stand-ins: what is made, and what is not."""

from __future__ import annotations

import gc
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from tidemill.components.targets.aws import permissions
from tidemill.runtime.cloud.task_files import TaskFiles
from tidemill.runtime.common.errors import RefusedError
from tidemill.runtime.retraining.settings import RetrainingSettings

from tests.support.aws_graph import DEFINITION, NATIVE, POLICY, ROLE, SERVICE, Aws
from tests.support.aws_server import AwsServer, aws_server
from tests.support.standin.backend import shared_state
from tests.support.standin.engine import ROOT, SUITE, Entry, Run, StandinStack
from tests.support.standin.outputs import class_of

# The SDK leaves the event loop of an inline program which failed to the garbage collector.
pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
]

MODEL = {
    "owner": "ops@example.org",
    "purpose": "will it sink?",
    "code": "code",
    "train": ["python", "train.py"],
    "data": "harbour/main/boats",
    "target": "sunk",
}
AWS = {"region": "eu-central-1", "domain": "harbour.ml.example.org", "zone": "Z123"}
DEV: dict[str, Any] = {
    "lake": {"repositories": {"harbour": {"gate": "suite.json", "seed": ["python", "code/seed.py"]}}},
    "models": {"boats": MODEL},
    "aws": AWS,
}
PROD: dict[str, Any] = {
    **DEV,
    "environment": "prod",
    "models": {"boats": {**MODEL, "serve": {"capture": {"retention": "30d", "hash": ["name"]}}}},
    "aws": {
        "region": "eu-central-1",
        "account": "123456789012",
        "domain": "harbour.ml.example.org",
        "certificate": {"existing": "arn:aws:acm:eu-central-1:123456789012:certificate/x"},
        "network": {"args": {"zones": 3, "nat": "each", "cidr": "10.20.0.0/16"}},
        "ingress": {"public": True, "allow": ["203.0.113.0/24", "2001:db8::/32"]},
        "size": "medium",
        "lake_metadata": "postgres",
        "tags": {"cost-center": "4711"},
        "services": {"serving-boats": {"cpu": 4096, "memory_mb": 8192}},
        "scaling": {"at_most": 6, "requests_per_minute": 12000},
    },
}
SERVICES = {
    "lakefs", "validation", "mlflow", "serving-boats", "retraining", "monitor", "prometheus", "alertmanager", "grafana",
}  # fmt: skip
PUBLIC = {"lakefs", "mlflow", "serving-boats", "prometheus", "alertmanager", "grafana"}
HOLDS_DATA = {
    "aws:s3/bucket:Bucket", "aws:rds/instance:Instance", "aws:dynamodb/table:Table", "aws:kms/key:Key",
    "aws:secretsmanager/secret:Secret", "aws:amp/workspace:Workspace", f"{NATIVE}:aws:SecretValue",
}  # fmt: skip


@dataclass
class Story:
    """What happened to one stack, run after run."""

    stack: StandinStack
    preview: Run
    up: Run
    again: Run

    @cached_property
    def made(self) -> list[Entry]:
        return [entry for entry in self.up.entries if entry.action == "create"]

    @cached_property
    def graph(self) -> Aws:
        return Aws(self.made)

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        return {entry.name: entry.inputs for entry in self.made if entry.type == kind}

    @property
    def prod(self) -> bool:
        return self.stack.stack.endswith("prod")


def begin(folder: Path, config: dict[str, Any], environment: dict[str, str]) -> Story:
    files = {"code/train.py": "", "code/seed.py": "", "suite.json": SUITE}
    # The state is written once a run: to write it after each of some 370 resources is the engine's matter, not ours.
    quick = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
    stack = StandinStack(folder, "aws", config, files=files, environment=environment | quick)
    shutil.copy(ROOT / "uv.lock", stack.project / "uv.lock")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for args in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "All"]):
        subprocess.run([*git, *args], cwd=stack.project, check=True)
    story = Story(stack, stack.run("preview"), stack.run("up"), stack.run("up"))
    gc.collect()
    return story


@pytest.fixture(scope="module")
def backend() -> Iterator[dict[str, str]]:
    with shared_state() as environment:
        endpoint = re.search(r"endpoint=([^&]+)", environment["PULUMI_BACKEND_URL"])
        assert endpoint
        # What is asked of AWS before all data is deleted is asked of the same server.
        yield environment | {"AWS_ENDPOINT_URL": f"http://{endpoint[1]}"}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory, backend: dict[str, str]) -> Iterator[Story]:
    yield begin(tmp_path_factory.mktemp("dev"), DEV, backend)
    gc.collect()


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory, backend: dict[str, str]) -> Iterator[Story]:
    yield begin(tmp_path_factory.mktemp("prod"), PROD, backend)
    gc.collect()


@pytest.fixture(params=["dev", "prod"])
def story(request: pytest.FixtureRequest) -> Story:
    return request.getfixturevalue(request.param)


def test_every_service_is_there_and_refers_to_nothing_which_is_not(story: Story) -> None:
    assert set(story.of(SERVICE)) == SERVICES
    jobs = {"database-mlflow", "database-mlflow-accounts", "database-grafana", "seed-harbour"}
    assert set(story.of(f"{NATIVE}:aws:Job")) == jobs | ({"database-lakefs"} if story.prod else set())
    assert {"repository-harbour", "experiment-boats", "registeredmodel-boats"} <= set(story.of(f"{NATIVE}:aws:Content"))
    assert story.graph.dangling() == []


def test_an_up_without_a_change_changes_nothing(story: Story) -> None:
    assert story.again.outcome.changed == 0
    assert not story.again.names("create", "update", "delete")


def test_a_preview_makes_nothing_and_knows_what_it_cannot_know(story: Story) -> None:
    assert all(entry.preview for entry in story.preview.entries if entry.action == "create")
    assert story.preview.outcome.changed == story.up.outcome.changed
    unknown = story.preview.unknowns()
    for expected in (
        "mlflow.taskDefinition", "task-mlflow.containerDefinitions", "role-mlflow.policy", "files-mlflow.content",
        "private-0.vpcId",
    ):  # fmt: skip
        assert expected in unknown, expected
    assert not story.up.unknowns()


def test_nobody_comes_in_but_by_the_load_balancer(story: Story) -> None:
    rules = story.of("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule")
    blocks = {rule.get("cidrIpv4") or rule.get("cidrIpv6"): name for name, rule in rules.items()
              if "cidrIpv4" in rule or "cidrIpv6" in rule}  # fmt: skip
    assert set(blocks) == ({"203.0.113.0/24", "2001:db8::/32"} if story.prod else {"10.0.0.0/16"})
    for name in blocks.values():
        assert (rules[name]["fromPort"], rules[name]["toPort"]) == (443, 443)
        assert name.startswith("balancer-")
    for name, rule in rules.items():
        if name not in blocks.values():
            assert rule["referencedSecurityGroupId"].startswith("sg-"), name
    for entry in story.made:
        if entry.type == "aws:ec2/securityGroup:SecurityGroup":
            assert not entry.inputs.get("ingress") and not entry.inputs.get("egress"), "rules are resources"
    for name, service in story.of(SERVICE).items():
        assert service["networkConfiguration"]["assignPublicIp"] is False, name
    assert not any(subnet["mapPublicIpOnLaunch"] for subnet in story.of("aws:ec2/subnet:Subnet").values())
    assert story.of("aws:rds/instance:Instance")["database"]["publiclyAccessible"] is False


def test_the_load_balancer_speaks_tls_alone_and_hides_metrics(story: Story) -> None:
    (balancer,) = story.of("aws:lb/loadBalancer:LoadBalancer").values()
    assert balancer["internal"] is not story.prod
    assert balancer["enableDeletionProtection"] is story.prod
    (listener,) = story.of("aws:lb/listener:Listener").values()
    assert (listener["port"], listener["protocol"]) == (443, "HTTPS")
    assert "TLS13" in listener["sslPolicy"]
    rules = story.of("aws:lb/listenerRule:ListenerRule")
    assert set(rules) == PUBLIC | {"no-metrics"}
    hidden = rules.pop("no-metrics")
    assert hidden["conditions"][0]["pathPattern"]["values"] == ["/metrics", "/metrics/*", "/_pprof/*"]
    assert hidden["priority"] < min(rule["priority"] for rule in rules.values())
    hosts = {rule["conditions"][0]["hostHeader"]["values"][0] for rule in rules.values()}
    assert hosts == {f"{name}.harbour.ml.example.org" for name in PUBLIC}
    assert len({rule["priority"] for rule in rules.values()}) == len(rules)
    assert len(story.of("aws:acm/certificate:Certificate")) == (0 if story.prod else 1)
    assert len(story.of("aws:route53/record:Record")) == (0 if story.prod else 2)


def test_the_network_has_a_subnet_of_each_kind_in_every_zone(story: Story) -> None:
    subnets = story.of("aws:ec2/subnet:Subnet")
    zones = 3 if story.prod else 2
    assert len(subnets) == 2 * zones
    blocks = [IPv4Network(subnet["cidrBlock"]) for subnet in subnets.values()]
    vpc = IPv4Network(story.of("aws:ec2/vpc:Vpc")["vpc"]["cidrBlock"])
    assert all(block.subnet_of(vpc) for block in blocks)
    assert not any(a.overlaps(b) for index, a in enumerate(blocks) for b in blocks[:index])
    assert len(story.of("aws:ec2/natGateway:NatGateway")) == (3 if story.prod else 1)
    endpoints = story.of("aws:ec2/vpcEndpoint:VpcEndpoint")
    assert set(endpoints) == {
        "s3", "dynamodb", "ecr.api", "ecr.dkr", "logs", "secretsmanager", "ecs", "aps-workspaces",
    }  # fmt: skip
    interfaces = [one for one in endpoints.values() if one["vpcEndpointType"] == "Interface"]
    assert all(len(one["subnetIds"]) == (zones if story.prod else 1) for one in interfaces)


def test_the_bucket_is_private_versioned_encrypted_and_asks_for_tls(story: Story) -> None:
    (block,) = story.of("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock").values()
    assert all(block[key] is True for key in ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls",
                                              "restrictPublicBuckets"))  # fmt: skip
    (versioning,) = story.of("aws:s3/bucketVersioning:BucketVersioning").values()
    assert versioning["versioningConfiguration"]["status"] == "Enabled"
    kind = "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration"
    (encryption,) = story.of(kind).values()
    assert encryption["rules"][0]["applyServerSideEncryptionByDefault"]["sseAlgorithm"] == "aws:kms"
    (policy,) = story.of("aws:s3/bucketPolicy:BucketPolicy").values()
    (statement,) = json.loads(policy["policy"])["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})
    (lifecycle,) = story.of("aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration").values()
    expiring = {rule["filter"]["prefix"]: rule["expiration"]["days"] for rule in lifecycle["rules"] if
                "expiration" in rule}  # fmt: skip
    assert expiring == ({"stores/capture-boats/": 30} if story.prod else {})
    assert story.of("aws:s3/bucket:Bucket")["bucket"]["forceDestroy"] is False


def test_postgres_is_encrypted_backed_up_and_in_two_zones_in_production(story: Story) -> None:
    (server,) = story.of("aws:rds/instance:Instance").values()
    assert server["storageEncrypted"] and server["deletionProtection"] and server["manageMasterUserPassword"]
    assert "password" not in server
    assert (server["multiAz"], server["backupRetentionPeriod"]) == ((True, 35) if story.prod else (False, 7))
    assert server["skipFinalSnapshot"] is not story.prod
    (parameters,) = story.of("aws:rds/parameterGroup:ParameterGroup").values()
    assert {one["name"]: one["value"] for one in parameters["parameters"]}["rds.force_ssl"] == "1"
    tables = story.of("aws:dynamodb/table:Table")
    if story.prod:
        assert not tables
        return
    (table,) = tables.values()
    assert (table["hashKey"], table["rangeKey"]) == ("PartitionKey", "ItemKey")
    assert table["deletionProtectionEnabled"] and table["pointInTimeRecovery"]["enabled"]


def test_what_holds_data_is_protected(story: Story) -> None:
    state = {(one["type"], one["urn"].rsplit("::", 1)[-1]): one for one in story.stack.resources()}
    held = [(kind, name) for kind, name in state if kind in HOLDS_DATA]
    held += [(f"{NATIVE}:aws:Content", name) for name in ("repository-harbour", "experiment-boats",
                                                           "registeredmodel-boats")]  # fmt: skip
    assert len(held) > 20
    for key in held:
        assert state[key].get("protect"), key


def test_tags_tell_team_environment_and_what_costs(story: Story) -> None:
    count = 0
    for entry in story.made:
        if not entry.type.startswith("aws:") or not hasattr(class_of(entry.type), "tags"):
            continue
        tags = entry.inputs.get("tags") or {}
        assert tags.get("tidemill:team") == "harbour", f"{entry.type} {entry.name}"
        assert tags["tidemill:environment"] == ("prod" if story.prod else "dev")
        assert tags.get("cost-center") == ("4711" if story.prod else None)
        count += 1
    assert count > 150


def test_every_task_definition_is_one_which_ecs_takes(story: Story) -> None:
    shape = (
        botocore.session.get_session().get_service_model("ecs").operation_model("RegisterTaskDefinition").input_shape
    )
    for name, given in story.of(DEFINITION).items():
        assert given["requiresCompatibilities"] == ["FARGATE"], name
        request = {
            "family": given["family"], "taskRoleArn": given["taskRoleArn"],
            "executionRoleArn": given["executionRoleArn"], "networkMode": given["networkMode"], "cpu": given["cpu"],
            "memory": given["memory"], "requiresCompatibilities": given["requiresCompatibilities"],
            "containerDefinitions": json.loads(given["containerDefinitions"]),
            "volumes": [{"name": one["name"]} for one in given["volumes"]],
            "ephemeralStorage": {"sizeInGiB": given["ephemeralStorage"]["sizeInGib"]},
            "runtimePlatform": {"cpuArchitecture": given["runtimePlatform"]["cpuArchitecture"],
                                "operatingSystemFamily": given["runtimePlatform"]["operatingSystemFamily"]},
        }  # fmt: skip
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"
        assert len(json.dumps(request)) < 65536, f"{name}: ECS takes no more"


def test_a_container_is_kept_in_its_place(story: Story) -> None:
    for task in story.graph.tasks.values():
        assert task.main["user"] == "10001:10001"
        assert task.main["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
        for name, part in task.containers.items():
            assert part["readonlyRootFilesystem"] is True
            assert "privileged" not in part
            assert part["essential"] is (name == "main")
            files = next(one for one in part["mountPoints"] if one["containerPath"] == "/run/tidemill")
            assert files["readOnly"] is (name != "prepare")
            assert re.search(r"@sha256:[0-9a-f]{64}$", part["image"]), "by digest: a tag may not be what it was"
            volumes = {one["name"] for one in task.inputs["volumes"]}
            assert {one["sourceVolume"] for one in part["mountPoints"]} <= volumes
        waits = {one["containerName"]: one["condition"] for one in task.main["dependsOn"]}
        assert waits["prepare"] == "SUCCESS"
        if task.files["stores"]:
            assert waits["keep"] == "START", "the keeper ends after the service"
            assert task.containers["keep"]["stopTimeout"] == 120
        else:
            assert "keep" not in task.containers


def test_no_secret_is_in_plain_sight(story: Story) -> None:
    text = json.dumps([entry.inputs for entry in story.made])
    assert "standin-registry-password" in text, "the registry's password is an input of the image"
    for entry in story.made:
        if entry.type == "docker-build:index:Image":
            assert any(path.startswith("registries") for path in entry.secrets)
    for task in story.graph.tasks.values():
        for part in task.containers.values():
            for one in part["environment"]:
                assert not re.search(r"SECRET|PASSWORD|TOKEN|_KEY$", one["name"]), f"{task.name}: {one['name']}"
                assert "@{secret" not in one["value"] and "@{bcrypt" not in one["value"]
            for one in part.get("secrets", ()):
                assert one["valueFrom"].startswith("arn:aws:secretsmanager:")
    for values in story.of(f"{NATIVE}:aws:SecretValue").values():
        assert "value" not in values, "generated where it is kept"
    assert "standin-registry-password" not in kept_state(story)


def kept_state(story: Story) -> str:
    """Return the state as it is kept, and not as the engine opens it."""
    with aws_server(forget=False) as aws:
        s3 = aws.client("s3")
        found = s3.list_objects_v2(Bucket="tidemill-state")["Contents"]
        texts = [s3.get_object(Bucket="tidemill-state", Key=one["Key"])["Body"].read().decode() for one in found]
    assert any(story.stack.stack in text for text in texts)
    return "\n".join(texts)


def test_who_reads_which_secret_follows_the_rules(story: Story) -> None:
    for task in story.graph.tasks.values():
        read = {
            arn.split(":secret:tidemill/", 1)[1].split("/", 1)[1].removesuffix("-AbCdEf")
            for arn in task.handed.values()
            if ":secret:tidemill/" in arn
        }
        permissions.check_readers(task.name, read)
        assert not any("secretsmanager" in action for one in task.run for action in one["Action"]), task.name
    serving = story.graph.tasks["serving-boats"]
    assert not any("lakefs" in name.lower() for name in serving.handed)
    keys = {"TIDEMILL_SECRET_SERVING_BOATS_KEY", "TIDEMILL_SECRET_MLFLOW_SERVING"}
    assert set(serving.handed) == keys | ({"TIDEMILL_SECRET_CAPTURE_BOATS_HASH"} if story.prod else set())


def test_no_permission_has_a_star_without_a_reason(story: Story) -> None:
    for name, policy in story.of(POLICY).items():
        for statement in json.loads(policy["policy"])["Statement"]:
            assert not any("*" in action for action in statement["Action"]), name
            if any("*" in resource for resource in statement["Resource"]):
                assert f"{statement['Sid']}: " in policy["description"], f"{name}: {statement['Sid']}"
            if statement["Resource"] == ["*"]:
                assert statement["Sid"] in {"Login", "Find"}, name


def test_iam_takes_every_role_and_policy(story: Story) -> None:
    with aws_server(forget=False) as aws:
        iam = aws.client("iam")
        for name, policy in story.of(POLICY).items():
            iam.create_policy(
                PolicyName=f"{story.stack.stack}-{name}",
                PolicyDocument=policy["policy"],
                Description=policy["description"],
            )
        for role in story.of(ROLE).values():
            iam.create_role(
                RoleName=role["name"], AssumeRolePolicyDocument=role["assumeRolePolicy"],
                Description=role["description"],
            )  # fmt: skip
        take_the_rest(aws, story)


def take_the_rest(aws: AwsServer, story: Story) -> None:
    """Have the server take what else the program writes as text of AWS's own."""
    s3 = aws.client("s3")
    (policy,) = story.of("aws:s3/bucketPolicy:BucketPolicy").values()
    s3.create_bucket(Bucket=policy["bucket"], CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    s3.put_bucket_policy(Bucket=policy["bucket"], Policy=policy["policy"])
    (key,) = story.of("aws:kms/key:Key").values()
    aws.client("kms").create_key(Policy=key["policy"])
    ecr = aws.client("ecr")
    policies = story.of("aws:ecr/lifecyclePolicy:LifecyclePolicy")
    for name, repository in story.of("aws:ecr/repository:Repository").items():
        assert repository["imageTagMutability"] == "IMMUTABLE"
        assert repository["imageScanningConfiguration"]["scanOnPush"] is True
        ecr.create_repository(repositoryName=repository["name"])
        ecr.put_lifecycle_policy(repositoryName=repository["name"], lifecyclePolicyText=policies[name]["policy"])


def test_services_run_where_and_as_often_as_they_should(story: Story) -> None:
    for name, service in story.of(SERVICE).items():
        several = name in {"serving-boats", "mlflow", "lakefs"}
        assert service["desiredCount"] == (2 if several and story.prod else 1), name
        percents = (service["deploymentMinimumHealthyPercent"], service["deploymentMaximumPercent"])
        assert percents == ((100, 200) if several else (0, 100)), f"{name}: a state has one owner"
        assert service["waitForSteadyState"] is True, "made means alive"
        assert service["deploymentCircuitBreaker"] == {"enable": True, "rollback": True}
        assert service["enableExecuteCommand"] is False
        assert bool(service.get("loadBalancers")) is (name in PUBLIC), name
        groups = service["networkConfiguration"]["securityGroups"]
        postgres = name in {"mlflow", "grafana"} or (name == "lakefs" and story.prod)
        assert len(groups) == (2 if postgres else 1), name
    (policy,) = story.of("aws:appautoscaling/policy:Policy").values()
    tracked = policy["targetTrackingScalingPolicyConfiguration"]
    assert tracked["predefinedMetricSpecification"]["predefinedMetricType"] == "ALBRequestCountPerTarget"
    assert tracked["targetValue"] == (12000 if story.prod else 30000)
    (target,) = story.of("aws:appautoscaling/target:Target").values()
    assert (target["minCapacity"], target["maxCapacity"]) == ((2, 6) if story.prod else (1, 4))
    assert story.of(f"{NATIVE}:aws:Awake")["awake-serving-boats"]["atLeast"] == (2 if story.prod else 1)
    serving = story.of(DEFINITION)["task-serving-boats"]
    assert (serving["cpu"], serving["memory"]) == (("8192", "16384") if story.prod else ("2048", "4096"))


def test_files_and_settings_fit_the_models_of_those_who_read_them(story: Story) -> None:
    for task in story.graph.tasks.values():
        TaskFiles.model_validate(dict(task.files))
    settings = RetrainingSettings.model_validate_json(story.graph.tasks["retraining"].files["config"]["settings.json"])
    (host,) = settings.listen.hosts
    assert host.startswith("retraining."), "its DNS name in the network; load balancers check it by its IP address"
    assert settings.launcher.kind == "ecs"
    arns = story.graph.told(DEFINITION, "arn")
    assert set(settings.launcher.definitions.values()) <= arns


def test_every_task_behind_a_name_is_scraped_and_everything_is_sent_on(story: Story) -> None:
    config = yaml.safe_load(story.graph.tasks["prometheus"].files["config"]["prometheus.yml"])
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert set(jobs) == SERVICES - {"grafana"}
    assert all("static_configs" not in job for job in jobs.values())
    (found,) = jobs["serving-boats"]["dns_sd_configs"]
    assert found == {"names": [f"serving-boats.{story.graph.zone}"], "type": "A", "port": 8080}
    (write,) = config["remote_write"]
    assert write["sigv4"] == {"region": "eu-central-1"}
    assert write["url"].endswith("/api/v1/remote_write")
    (allowed,) = [one for one in story.graph.tasks["prometheus"].run if one["Sid"] == "MetricsWrite"]
    assert allowed["Action"] == ["aps:RemoteWrite"]
    assert not any("efs" in entry.type for entry in story.made)


def test_logs_are_kept_for_a_while(story: Story) -> None:
    groups = story.of("aws:cloudwatch/logGroup:LogGroup")
    assert {group["retentionInDays"] for group in groups.values()} == {90 if story.prod else 14}
    assert all("kmsKeyId" in group for group in groups.values())


def test_a_change_changes_what_it_touches_and_no_data(dev: Story) -> None:
    changed = {**DEV, "models": {"boats": {**MODEL, "serve": {"drain": "20s"}}}}
    dev.stack.write(changed)
    run = dev.stack.run("up")
    touched = {name.split(":", 1)[1] for name in run.names("create", "update", "delete")}
    assert {"ecs/taskDefinition:TaskDefinition task-serving-boats", "ecs/service:Service serving-boats"} <= touched
    assert not any(re.search(r"Bucket |Instance |Table |Secret |Key ", name) for name in touched), touched
    others = {name for name in touched if re.search(r" (task-)?(lakefs|mlflow|monitor|validation)$", name)}
    assert not others, "services which are not concerned go on"


def test_destroy_refuses_while_there_is_data_and_then_deletes_all(dev: Story) -> None:
    with pytest.raises(RefusedError, match="holds data"):
        dev.stack.run("destroy")
    run = dev.stack.run("delete")
    deleted = run.names("delete")
    assert len(deleted) > 300
    assert "aws:rds/instance:Instance database" in deleted
