"""Removes the deletion protection of a stack's data on AWS, before all of it is deleted. Imports no Pulumi."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ....runtime.common.errors import PlatformError
from ...provider.aws.client import connect, error_code, talking
from .names import Names
from .operations import AwsOperations
from .settings import AwsSettings

_GONE = {
    "DBInstanceNotFound",
    "DBInstanceNotFoundFault",
    "ResourceNotFoundException",
    "LoadBalancerNotFound",
    "LoadBalancerNotFoundException",
    "NoSuchBucket",
}
_STACK = "tidemill:stack"
# A task needs up to two minutes after SIGTERM for each of two containers.
_WAIT = 420.0
_LOOK_EVERY = 3.0


def release(stack: str, settings: AwsSettings, *, wait: float = _WAIT) -> None:
    """Stop all services, remove the deletion protection of the stack's resources, and empty its bucket.

    Existing resources that the config names are not changed, nor is a bucket without the stack's tag. Services stop
    first, because `keep` would write to the bucket again.

    Args:
        stack: TEAM-ENVIRONMENT.
        settings: the block `aws` of its config.
        wait: seconds to wait for tasks to end.

    Raises:
        PlatformError: AWS refuses, or a task does not end.
    """
    operations = AwsOperations(stack, settings)
    operations.stop()
    until = time.monotonic() + wait
    while left := operations.running():
        if time.monotonic() > until:
            raise PlatformError("does not end", field=left[0], hint="try again")
        time.sleep(_LOOK_EVERY)
    team, _, environment = stack.rpartition("-")
    names, region = Names(team, environment), str(settings.region)
    if settings.database.existing is None:
        rds = connect("rds", region)
        identifier = names.of("database", 63)
        _ignore_missing(
            "database", lambda: rds.modify_db_instance(DBInstanceIdentifier=identifier, DeletionProtection=False)
        )
    if settings.lake_metadata == "dynamodb":
        dynamodb = connect("dynamodb", region)
        table = names.of("lakefs", 255)
        _ignore_missing("lakefs", lambda: dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False))
    balancing = connect("elbv2", region)
    _ignore_missing("balancer", lambda: _release_balancer(balancing, names.of("balancer", 32)))
    if settings.bucket.existing is None:
        account = connect("sts", region)
        with talking("bucket"):
            bucket = names.of(str(account.get_caller_identity()["Account"]), 63)
        s3 = connect("s3", region)
        _ignore_missing("bucket", lambda: _empty(s3, bucket, stack))


def _ignore_missing(name: str, call: Callable[[], object]) -> None:
    """Call AWS; ignore that the resource does not exist."""
    from botocore.exceptions import ClientError

    with talking(name):
        try:
            call()
        except ClientError as error:
            if error_code(error) not in _GONE:
                raise


def _release_balancer(balancing: Any, name: str) -> None:
    for balancer in balancing.describe_load_balancers(Names=[name])["LoadBalancers"]:
        balancing.modify_load_balancer_attributes(
            LoadBalancerArn=balancer["LoadBalancerArn"],
            Attributes=[{"Key": "deletion_protection.enabled", "Value": "false"}],
        )


def _empty(s3: Any, bucket: str, stack: str) -> None:
    from botocore.exceptions import ClientError

    try:
        tags = {tag["Key"]: tag["Value"] for tag in s3.get_bucket_tagging(Bucket=bucket)["TagSet"]}
    except ClientError as error:
        if error_code(error) != "NoSuchTagSet":
            raise
        tags = {}
    if tags.get(_STACK) != stack:
        return
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        found = [
            {"Key": one["Key"], "VersionId": one["VersionId"]}
            for kind in ("Versions", "DeleteMarkers")
            for one in page.get(kind, ())
        ]
        if found:
            s3.delete_objects(Bucket=bucket, Delete={"Objects": found, "Quiet": True})
