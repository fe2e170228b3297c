"""A server on this machine which answers as AWS does, for what talks to AWS through boto3."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

REGION = "eu-central-1"
BUCKET = "tidemill-harbour-dev-123456789012"
_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_REGION": REGION,
    "NO_PROXY": "127.0.0.1,localhost",
}


@dataclass(frozen=True)
class AwsServer:
    """What answers.

    Attributes:
        url: where.
        environ: what makes boto3 ask it.
    """

    url: str
    environ: dict[str, str]

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(service, endpoint_url=self.url, region_name=REGION)

    def backend(self, service: Any) -> Any:
        """Return the server's own memory of a service, to have happen what it cannot be asked for."""
        from moto.backends import get_backend

        return get_backend(service)["123456789012"][REGION]


@contextmanager
def aws_server(*, forget: bool = True) -> Iterator[AwsServer]:
    """Run the server; boto3 asks nobody else within the context.

    Args:
        forget: whether it begins with nothing; all servers of a process have one memory.
    """
    from moto.moto_api import state_manager
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it would print a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    # A task goes on until somebody says how it ended.
    state_manager.set_transition("ecs::task", {"progression": "time", "seconds": 3600})
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        mine = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        environ = {**_ENVIRONMENT, "AWS_ENDPOINT_URL": url, "AWS_ACCOUNT_ID": "123456789012"}
        with mock.patch.dict(os.environ, mine | environ, clear=True):
            found = AwsServer(url, environ)
            if forget:
                _forget(url)
            yield found
    finally:
        state_manager.unset_transition("ecs::task")
        server.stop()


def _forget(url: str) -> None:
    import urllib.request

    urllib.request.urlopen(urllib.request.Request(f"{url}/moto-api/reset", method="POST"), timeout=10).read()


def make_bucket(aws: AwsServer, name: str = BUCKET) -> Any:
    """Make a versioned bucket and return a client of S3."""
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return s3


@dataclass(frozen=True)
class Cluster:
    """A cluster with one task definition, and a network to run it in."""

    cluster: str
    definition: str
    subnet: str
    group: str
    log_group: str


def make_cluster(aws: AwsServer, name: str = "tidemill-harbour-dev-cluster") -> Cluster:
    """Make a cluster in which tasks of a definition can be run."""
    ecs, ec2 = aws.client("ecs"), aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="services", Description="x", VpcId=vpc)["GroupId"]
    cluster = ecs.create_cluster(clusterName=name)["cluster"]["clusterArn"]
    definition = ecs.register_task_definition(
        family="training-boats",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "main", "image": "x", "essential": True, "memoryReservation": 512}],
    )["taskDefinition"]["taskDefinitionArn"]
    aws.client("logs").create_log_group(logGroupName="/tidemill/harbour-dev/training")
    return Cluster(cluster, definition, subnet, group, "/tidemill/harbour-dev/training")


def end_task(aws: AwsServer, task: str, code: int | None, reason: str = "") -> None:
    """Have a task end with an exit code of its main container, or without ever having begun."""
    for tasks in aws.backend("ecs").tasks.values():
        if task in tasks:
            found = tasks[task]
            found.last_status = found.desired_status = "STOPPED"
            found.advance = lambda: None
            found.stopped_reason = reason
            for container in found.containers:
                container.exitCode = code
            return
    raise AssertionError(f"no task {task}")
