"""Before all data of a stack is deleted: what AWS itself keeps from being deleted is let go. Imports no Pulumi."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ....runtime.common.errors import PlatformError
from ...provider.aws.client import connect, error_code, talking
from .names import Names
from .operations import AwsOperations
from .settings import AwsSettings

__all__ = ["release"]

_GONE = {
    "DBInstanceNotFound",
    "DBInstanceNotFoundFault",
    "ResourceNotFoundException",
    "LoadBalancerNotFound",
    "LoadBalancerNotFoundException",
    "NoSuchBucket",
}
_STACK = "tidemill:stack"
# A task has two minutes from SIGTERM on, for each of two containers in turn.
_WAIT = 420.0
_LOOK_EVERY = 3.0


def release(stack: str, settings: AwsSettings, *, wait: float = _WAIT) -> None:
    """End all services, lift the deletion protection of what `stack` has made, and empty its bucket.

    What was brought is not touched, and neither is a bucket which does not bear the stack's name as a tag. The services
    end first: what keeps their folders would fill the bucket again.

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
        _let("database", lambda: rds.modify_db_instance(DBInstanceIdentifier=identifier, DeletionProtection=False))
    if settings.lake_metadata == "dynamodb":
        dynamodb = connect("dynamodb", region)
        table = names.of("lakefs", 255)
        _let("lakefs", lambda: dynamodb.update_table(TableName=table, DeletionProtectionEnabled=False))
    balancing = connect("elbv2", region)
    _let("balancer", lambda: _release_balancer(balancing, names.of("balancer", 32)))
    if settings.bucket.existing is None:
        account = connect("sts", region)
        with talking("bucket"):
            bucket = names.of(str(account.get_caller_identity()["Account"]), 63)
        s3 = connect("s3", region)
        _let("bucket", lambda: _empty(s3, bucket, stack))


def _let(name: str, do: Callable[[], object]) -> None:
    """Do it; what is not there needs nothing."""
    from botocore.exceptions import ClientError

    with talking(name):
        try:
            do()
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
