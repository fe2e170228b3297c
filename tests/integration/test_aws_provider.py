"""The resources, operations and policies of the target aws, against a server which answers as AWS does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tidemill.components.provider.aws import content as aws_content
from tidemill.components.provider.aws import task as aws_task
from tidemill.components.provider.aws.awake import Awake
from tidemill.components.provider.aws.content import Content
from tidemill.components.provider.aws.job import Job
from tidemill.components.provider.aws.secret import SecretValue
from tidemill.components.provider.base import DELETE_DATA, Context
from tidemill.components.targets.aws.names import Names
from tidemill.components.targets.aws.operations import AwsOperations
from tidemill.components.targets.aws.release import release
from tidemill.components.targets.aws.settings import AwsSettings
from tidemill.runtime.common.errors import NotFoundError, PlatformError, RefusedError, ServiceError, UnreachableError
from tidemill.runtime.common.verdicts import public_key

from tests.support.aws_server import BUCKET, REGION, AwsServer, Cluster, aws_server, end_task, make_bucket, make_cluster

pytestmark = pytest.mark.integration

STACK = "harbour-dev"
SETTINGS = AwsSettings(region=REGION, domain="harbour.ml.example.org", zone="Z1")
REPOSITORY = {
    "stack": STACK, "url": "http://lakefs:8080", "keyIdFile": "/k", "secretFile": "/s", "name": "harbour",
    "namespace": "s3://b/stores/lakefs-objects/harbour", "defaultBranch": "main",
}  # fmt: skip


@pytest.fixture
def aws() -> Iterator[AwsServer]:
    with aws_server() as found:
        yield found


@pytest.fixture
def cluster(aws: AwsServer) -> Cluster:
    return make_cluster(aws)


@pytest.fixture
def context() -> Context:
    return Context("urn::x", warn=lambda text: None)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aws_task, "EVERY", 0.02)


def secret_inputs(aws: AwsServer, **more: Any) -> dict[str, Any]:
    arn = aws.client("secretsmanager").create_secret(Name="tidemill/harbour-dev/mlflow-admin")["ARN"]
    return {"stack": STACK, "name": "mlflow-admin", "region": REGION, "secret": arn, "format": "token", **more}


def value_of(aws: AwsServer, arn: str) -> str:
    return aws.client("secretsmanager").get_secret_value(SecretId=arn)["SecretString"]


def test_a_generated_secret_is_made_once_and_is_in_no_state(aws: AwsServer, context: Context) -> None:
    kind, inputs = SecretValue(), secret_inputs(aws)
    _, state = kind.create(context, inputs)
    value = value_of(aws, inputs["secret"])
    assert len(value) == 43
    assert value not in json.dumps(state)
    assert kind.create(context, inputs)[1] == state, "an interrupted creation adopts what is there"
    assert value_of(aws, inputs["secret"]) == value
    assert kind.read(context, state) == state
    assert kind.diff(context, state, inputs).changes == ()


@pytest.mark.parametrize(("shape", "length"), [("lakefs-key-id", 20), ("lakefs-secret", 40)])
def test_secrets_have_the_shapes_which_are_asked_for(aws: AwsServer, context: Context, shape: str, length: int) -> None:
    inputs = secret_inputs(aws, format=shape)
    SecretValue().create(context, inputs)
    assert len(value_of(aws, inputs["secret"])) == length


def test_only_the_public_part_of_a_private_key_is_in_the_state(aws: AwsServer, context: Context) -> None:
    kind, inputs = SecretValue(), secret_inputs(aws, format="ed25519")
    _, state = kind.create(context, inputs)
    private = value_of(aws, inputs["secret"])
    assert state["public"] == public_key(private)
    assert private not in json.dumps(state)
    assert kind.create(context, inputs)[1] == state


def test_a_given_secret_is_put_there_and_changed(aws: AwsServer, context: Context) -> None:
    kind, inputs = SecretValue(), secret_inputs(aws, value="first")
    _, state = kind.create(context, inputs)
    again = {**inputs, "value": "second"}
    assert kind.diff(context, state, again).changes == ("value",)
    changed = kind.update(context, state, again)
    assert value_of(aws, inputs["secret"]) == "second"
    assert changed["version"] != state["version"], "readers must start again"
    aws.client("secretsmanager").put_secret_value(SecretId=inputs["secret"], SecretString="somebody's")
    found = kind.read(context, changed)
    assert found is not None
    assert kind.diff(context, found, again).changes == ("value",)
    kind.update(context, found, again)
    assert value_of(aws, inputs["secret"]) == "second"


def test_a_secret_which_is_gone_is_not_made_again_in_silence(aws: AwsServer, context: Context) -> None:
    kind, inputs = SecretValue(), secret_inputs(aws)
    _, state = kind.create(context, inputs)
    aws.client("secretsmanager").delete_secret(SecretId=inputs["secret"], ForceDeleteWithoutRecovery=True)
    found = kind.read(context, state)
    assert found is not None and found["missing"]
    with pytest.raises(RefusedError, match="is gone"):
        kind.diff(context, found, inputs)


def test_no_credentials_are_an_unreachable_server(monkeypatch: pytest.MonkeyPatch, context: Context) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    inputs = {"stack": STACK, "name": "x", "region": REGION, "secret": "arn:aws:secretsmanager:x", "format": "token"}
    with pytest.raises(UnreachableError, match="AWS cannot be reached"):
        SecretValue().create(context, inputs)


def access(cluster: Cluster, **more: Any) -> dict[str, Any]:
    return {
        "stack": STACK, "region": REGION, "cluster": cluster.cluster, "definition": cluster.definition,
        "subnets": [cluster.subnet], "securityGroups": [cluster.group], "logGroup": cluster.log_group, **more,
    }  # fmt: skip


def tasks(aws: AwsServer) -> dict[str, Any]:
    return {arn: task for found in aws.backend("ecs").tasks.values() for arn, task in found.items()}


def ending(aws: AwsServer, code: int | None, said: str = "") -> Callable[[], None]:
    """Return what ends the first task which is looked for, in a thread of its own."""
    import threading

    def end() -> None:
        until = time.monotonic() + 60
        while not tasks(aws) and time.monotonic() < until:
            time.sleep(0.02)
        (task,) = tasks(aws)
        if said:
            logs, stream = aws.client("logs"), f"main/main/{task.rsplit('/', 1)[-1]}"
            logs.create_log_stream(logGroupName="/tidemill/harbour-dev/training", logStreamName=stream)
            event = {"timestamp": int(time.time() * 1000), "message": said}
            logs.put_log_events(logGroupName="/tidemill/harbour-dev/training", logStreamName=stream, logEvents=[event])
        end_task(aws, task, code, "Essential container in task exited" if code is not None else "no such image")

    thread = threading.Thread(target=end)
    thread.start()
    return thread.join


def test_a_job_runs_to_its_end_and_once(aws: AwsServer, cluster: Cluster, context: Context) -> None:
    inputs = access(cluster, name="seed-harbour", triggers={"command": "python seed.py"})
    join = ending(aws, 0)
    _, state = Job().create(context, inputs)
    join()
    assert state["exitCode"] == 0
    ((arn, task),) = tasks(aws).items()
    assert state["task"] == arn
    assert task.launch_type == "FARGATE"
    assert task.network_configuration["awsvpcConfiguration"]["assignPublicIp"] == "DISABLED"
    assert Job().create(context, inputs)[1]["task"] == arn, "one which ended well is not run again"
    assert len(tasks(aws)) == 1
    assert Job().diff(context, state, {**inputs, "triggers": {"command": "other"}}).replaces == ("triggers",)
    assert Job().diff(context, state, {**inputs, "definition": "arn:2"}).replaces == ()


def test_a_job_which_fails_says_what_it_printed(aws: AwsServer, cluster: Cluster, context: Context) -> None:
    join = ending(aws, 3, said="no such table")
    with pytest.raises(ServiceError) as caught:
        Job().create(context, access(cluster, name="seed-harbour"))
    join()
    assert "failed with exit code 3" in str(caught.value)
    assert "no such table" in str(caught.value)


def test_a_job_whose_container_never_began_says_why(aws: AwsServer, cluster: Cluster, context: Context) -> None:
    join = ending(aws, None)
    with pytest.raises(ServiceError, match=r"did not run \(no such image"):
        Job().create(context, access(cluster, name="seed-harbour"))
    join()


def test_a_job_is_stopped_at_its_limit_and_when_the_user_interrupts(
    aws: AwsServer, cluster: Cluster, context: Context
) -> None:
    with pytest.raises(ServiceError, match="reached its time limit"):
        Job().create(context, access(cluster, name="slow", timeout=0.1))
    context.cancelled.set()
    with pytest.raises(PlatformError, match="interrupted"):
        Job().create(context, access(cluster, name="slower"))
    assert [task.last_status for task in tasks(aws).values()] == ["STOPPED", "STOPPED"]


def test_a_job_waits_for_the_run_an_interrupted_creation_left(
    aws: AwsServer, cluster: Cluster, context: Context
) -> None:
    stopped = replace(context)
    inputs = access(cluster, name="seed-harbour")
    task = aws_task.Task("seed-harbour", inputs, aws_task.digest_of(STACK, "seed-harbour", {}))
    left = task._start()
    join = ending(aws, 0)
    assert Job().create(stopped, inputs)[1]["task"] == left
    join()


def content(cluster: Cluster, **more: Any) -> dict[str, Any]:
    properties = {**REPOSITORY, **more}
    return access(cluster, name="repository-harbour", kind="tidemill-native:lakefs:Repository", properties=properties)


def test_content_is_made_by_a_task_which_is_told_what(aws: AwsServer, cluster: Cluster, context: Context) -> None:
    join = ending(aws, 0)
    inputs = content(cluster)
    _, state = Content().create(context, inputs)
    join()
    ((arn, task),) = tasks(aws).items()
    assert state["task"] == arn
    (override,) = task.overrides["containerOverrides"]
    (told,) = override["environment"]
    assert told["name"] == aws_content.VARIABLE
    assert json.loads(told["value"]) == {
        "action": "create", "kind": "tidemill-native:lakefs:Repository", "properties": REPOSITORY,
    }  # fmt: skip
    assert Content().diff(context, state, inputs).changes == ()
    elsewhere = {**content(cluster, url="http://other:8080"), "definition": "arn:2"}
    assert Content().diff(context, state, elsewhere).replaces == ()
    assert Content().update(context, state, elsewhere)["task"] == arn, "how it is reached needs no task"
    assert Content().diff(context, state, content(cluster, namespace="s3://b/other")).replaces == ("properties",)


def test_content_which_holds_data_is_kept(
    aws: AwsServer, cluster: Cluster, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = {**content(cluster), "task": "arn"}
    monkeypatch.delenv(DELETE_DATA, raising=False)
    with pytest.raises(RefusedError, match="holds data and is not deleted"):
        Content().guard_delete(state)
    monkeypatch.setenv(DELETE_DATA, STACK)
    Content().guard_delete(state)
    Content().delete(context, state)
    assert tasks(aws) == {}, "it goes with its server's data"


def test_content_which_is_too_long_for_ecs_is_refused(aws: AwsServer, cluster: Cluster, context: Context) -> None:
    action = {**REPOSITORY, "repository": "harbour", "branch": "main", "path": "x", "content": "y" * 9000}
    wanted = {key: action[key] for key in ("stack", "url", "keyIdFile", "secretFile", "repository", "branch", "path")}
    inputs = access(
        cluster, name="action", kind="tidemill-native:lakefs:Action", properties={**wanted, "content": "y" * 9000}
    )
    with pytest.raises(Exception, match="larger than the 8192 bytes"):
        Content().create(context, inputs)
    assert tasks(aws) == {}


def make_service(aws: AwsServer, cluster: Cluster, name: str, count: int, stack: str = STACK, **more: Any) -> str:
    full = Names(*stack.split("-")).of(name, 255)
    aws.client("ecs").create_service(
        cluster=cluster.cluster, serviceName=full, taskDefinition=cluster.definition, desiredCount=count,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": [cluster.subnet], "securityGroups": [cluster.group]}},
        tags=[{"key": key, "value": value} for key, value in
              {"tidemill:stack": stack, "tidemill:name": name, "tidemill:tasks": str(count)}.items()],
        **more,
    )  # fmt: skip
    return full


def desired(aws: AwsServer, cluster: Cluster) -> dict[str, int]:
    ecs = aws.client("ecs")
    arns = ecs.list_services(cluster=cluster.cluster)["serviceArns"]
    found = ecs.describe_services(cluster=cluster.cluster, services=arns)["services"]
    return {one["serviceName"]: one["desiredCount"] for one in found}


def scaled(aws: AwsServer, cluster: Cluster, service: str) -> dict[str, Any]:
    scaling = aws.client("application-autoscaling")
    resource = f"service/{cluster.cluster.rpartition('/')[2]}/{service}"
    found = scaling.describe_scalable_targets(ServiceNamespace="ecs", ResourceIds=[resource])["ScalableTargets"]
    if not found:
        scaling.register_scalable_target(
            ServiceNamespace="ecs", ResourceId=resource, ScalableDimension="ecs:service:DesiredCount",
            MinCapacity=2, MaxCapacity=4,
        )  # fmt: skip
        return {}
    return found[0]


def test_stop_puts_all_services_of_the_stack_to_sleep_and_start_wakes_them(aws: AwsServer, cluster: Cluster) -> None:
    mlflow = make_service(aws, cluster, "mlflow", 1)
    serving = make_service(aws, cluster, "serving-boats", 2)
    foreign = make_service(aws, cluster, "mlflow", 1, stack="other-dev")
    scaled(aws, cluster, serving)
    operations = AwsOperations(STACK, SETTINGS)
    assert operations.made()
    assert [one.name for one in operations.services()] == ["mlflow", "serving-boats"]
    assert operations.stop() == 2
    assert desired(aws, cluster) == {mlflow: 0, serving: 0, foreign: 1}
    assert set(scaled(aws, cluster, serving)["SuspendedState"].values()) == {True}
    assert {one.state for one in operations.services()} == {"stopped"}
    operations.start()
    assert desired(aws, cluster) == {mlflow: 1, serving: 2, foreign: 1}
    assert set(scaled(aws, cluster, serving)["SuspendedState"].values()) == {False}
    operations.restart("mlflow")
    with pytest.raises(NotFoundError, match="ECS has no such service"):
        operations.restart("nothing")


def test_up_wakes_what_stop_has_put_to_sleep(aws: AwsServer, cluster: Cluster, context: Context) -> None:
    serving = make_service(aws, cluster, "serving-boats", 2)
    scaled(aws, cluster, serving)
    inputs = {"stack": STACK, "name": "serving-boats", "region": REGION, "cluster": cluster.cluster,
              "service": serving, "atLeast": 2}  # fmt: skip
    _, state = Awake().create(context, inputs)
    assert Awake().diff(context, Awake().read(context, state) or {}, inputs).changes == ()
    AwsOperations(STACK, SETTINGS).stop()
    asleep = Awake().read(context, state) or {}
    assert Awake().diff(context, asleep, inputs).changes == ("asleep",)
    Awake().update(context, asleep, inputs)
    assert desired(aws, cluster)[serving] == 2
    assert set(scaled(aws, cluster, serving)["SuspendedState"].values()) == {False}
    aws.client("ecs").update_service(cluster=cluster.cluster, service=serving, desiredCount=4)
    assert Awake().diff(context, Awake().read(context, state) or {}, inputs).changes == (), "more is the load's matter"


def test_a_stack_which_never_was_up(aws: AwsServer) -> None:
    operations = AwsOperations(STACK, SETTINGS)
    assert not operations.made()
    assert operations.services() == []
    assert operations.url("mlflow") is None
    with pytest.raises(NotFoundError, match="the stack has no such secret"):
        operations.secret("mlflow-admin")
    with pytest.raises(NotFoundError, match="has no log yet"):
        list(operations.logs("mlflow", 5))


def test_logs_of_several_tasks_are_one(aws: AwsServer) -> None:
    logs, group = aws.client("logs"), "/tidemill/harbour-dev/mlflow"
    logs.create_log_group(logGroupName=group)
    logs.create_log_group(logGroupName="/tidemill/other-dev/mlflow")
    now = int(time.time() * 1000)
    for task, offset in (("a", 0), ("b", 1)):
        logs.create_log_stream(logGroupName=group, logStreamName=f"main/main/{task}")
        events = [{"timestamp": now + 2 * index + offset, "message": f"{task}{index}\n"} for index in range(3)]
        logs.put_log_events(logGroupName=group, logStreamName=f"main/main/{task}", logEvents=events)
    operations = AwsOperations(STACK, SETTINGS)
    assert operations.logged() == ["mlflow"]
    assert list(operations.logs("mlflow", 4)) == ["a1", "b1", "a2", "b2"]
    following = operations.logs("mlflow", 1, follow=True)
    assert next(following) == "b2"
    more = [{"timestamp": now + 60, "message": "a3"}]
    logs.put_log_events(logGroupName=group, logStreamName="main/main/a", logEvents=more)
    assert next(following) == "a3"


def test_secrets_are_read_and_services_behind_the_balancer_have_urls(aws: AwsServer, cluster: Cluster) -> None:
    aws.client("secretsmanager").create_secret(Name="tidemill/harbour-dev/mlflow-admin", SecretString="s3cret")
    operations = AwsOperations(STACK, SETTINGS)
    assert operations.secret("mlflow-admin") == "s3cret"
    assert operations.secret_file("mlflow-admin") is None
    make_service(aws, cluster, "monitor", 1)
    make_service(
        aws, cluster, "mlflow", 1,
        loadBalancers=[{"targetGroupArn": "arn:x", "containerName": "main", "containerPort": 8080}],
    )  # fmt: skip
    assert operations.url("mlflow") == "https://mlflow.harbour.ml.example.org"
    assert operations.url("monitor") is None
    assert operations.ask("monitor", "/healthz") is None


def test_what_aws_keeps_from_being_deleted_is_let_go(aws: AwsServer, cluster: Cluster) -> None:
    make_service(aws, cluster, "mlflow", 1)
    s3 = make_bucket(aws)
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "tidemill:stack", "Value": STACK}]})
    for body in (b"1", b"2"):
        s3.put_object(Bucket=BUCKET, Key="stores/x", Body=body)
    s3.delete_object(Bucket=BUCKET, Key="stores/x")
    rds, dynamodb = aws.client("rds"), aws.client("dynamodb")
    rds.create_db_instance(
        DBInstanceIdentifier="tidemill-harbour-dev-database", DBInstanceClass="db.t4g.small", Engine="postgres",
        AllocatedStorage=20, DeletionProtection=True, MasterUsername="postgres", MasterUserPassword="longenough",
    )  # fmt: skip
    dynamodb.create_table(
        TableName="tidemill-harbour-dev-lakefs", BillingMode="PAY_PER_REQUEST", DeletionProtectionEnabled=True,
        AttributeDefinitions=[{"AttributeName": "PartitionKey", "AttributeType": "B"},
                              {"AttributeName": "ItemKey", "AttributeType": "B"}],
        KeySchema=[{"AttributeName": "PartitionKey", "KeyType": "HASH"},
                   {"AttributeName": "ItemKey", "KeyType": "RANGE"}],
    )  # fmt: skip
    ecs = aws.backend("ecs")
    for service in ecs.services.values():
        service.running_count = 0
    release(STACK, SETTINGS, wait=30)
    s3.delete_bucket(Bucket=BUCKET)
    rds.delete_db_instance(DBInstanceIdentifier="tidemill-harbour-dev-database", SkipFinalSnapshot=True)
    dynamodb.delete_table(TableName="tidemill-harbour-dev-lakefs")
    release(STACK, SETTINGS, wait=30)  # what is gone needs nothing


def test_a_bucket_of_others_is_not_emptied(aws: AwsServer) -> None:
    s3 = make_bucket(aws)
    s3.put_object(Bucket=BUCKET, Key="theirs", Body=b"1")
    release(STACK, SETTINGS, wait=30)
    assert s3.get_object(Bucket=BUCKET, Key="theirs")["Body"].read() == b"1"


def test_content_is_applied_by_the_resource_which_does_it_elsewhere(tmp_path: Path) -> None:
    """What the task runs reaches the server with the files it is given; here nobody answers, and it says so."""
    import os
    import subprocess
    import sys

    for name in ("k", "s"):
        (tmp_path / name).write_text("x")
    properties = {**REPOSITORY, "url": "http://127.0.0.1:9", "keyIdFile": str(tmp_path / "k"),
                  "secretFile": str(tmp_path / "s")}  # fmt: skip
    wanted = {"action": "create", "kind": "tidemill-native:lakefs:Repository", "properties": properties}
    done = subprocess.run(
        [sys.executable, "-m", "tidemill.components.provider.apply"],
        env={**os.environ, "TIDEMILL_CONTENT": json.dumps(wanted)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == UnreachableError.exit_code
    assert "lakeFS" in done.stderr
