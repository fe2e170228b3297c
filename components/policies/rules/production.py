"""In production, no single command deletes data, and no single failure stops the platform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..aws import is_a, referring
from ..base import UNKNOWN, Finding, Parameter, Resource, Rule, RuleContext


def _protected(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    if not context.production:
        return
    for service, kinds, field in (
        ("rds", ("Instance", "Cluster"), "deletionProtection"),
        ("dynamodb", ("Table",), "deletionProtectionEnabled"),
        ("lb", ("LoadBalancer",), "enableDeletionProtection"),
        ("alb", ("LoadBalancer",), "enableDeletionProtection"),
    ):
        if is_a(resource, service, *kinds) and resource.lacks(field, True):
            yield Finding(field, "is not true", "set it to true in production")
    for service, kinds, field in (
        ("s3", ("Bucket",), "forceDestroy"),
        ("rds", ("Instance", "Cluster"), "skipFinalSnapshot"),
    ):
        if is_a(resource, service, *kinds) and resource.get(field) is True:
            yield Finding(field, "is true", "remove it in production: the data would be deleted with the resource")
    if is_a(resource, "secretsmanager", "Secret") and resource.get("recoveryWindowInDays") == 0:
        yield Finding("recoveryWindowInDays", "is 0", "remove it, or set at least 7 days: the secret protects data")


def _backed_up(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    if not context.production:
        return
    least = context.settings["days"]
    if is_a(resource, "rds", "Instance", "Cluster") and not resource.get("replicateSourceDb"):
        days: Any = resource.get("backupRetentionPeriod")
        if days is not UNKNOWN and (days is None or float(days) < least):
            text = f"is {days:g}" if isinstance(days, int | float) else "is not set"
            yield Finding("backupRetentionPeriod", text, f"keep backups for at least {least} days")
    if is_a(resource, "dynamodb", "Table") and resource.lacks("pointInTimeRecovery.enabled", True):
        yield Finding("pointInTimeRecovery.enabled", "is not true", "set it to true in production")


def _versioned(resources: Sequence[Resource], context: RuleContext) -> Iterator[Finding]:
    if not context.production:
        return
    on = [
        one
        for one in resources
        if is_a(one, "s3", "BucketVersioning") and one.get("versioningConfiguration.status") in {"Enabled", UNKNOWN}
    ]
    for bucket in resources:
        inline = bucket.get("versioning.enabled") is True
        if is_a(bucket, "s3", "Bucket") and not inline and not referring(bucket, "bucket", on):
            hint = "add an aws.s3.BucketVersioning with the status Enabled"
            yield Finding("bucket", "does not keep earlier versions of its objects", hint, bucket)


def _two_zones(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    if not context.production:
        return
    if is_a(resource, "rds", "Instance") and not resource.get("replicateSourceDb") and resource.lacks("multiAz", True):
        yield Finding("multiAz", "is not true", "set it to true in production")
    if is_a(resource, "lb", "LoadBalancer") or is_a(resource, "alb", "LoadBalancer"):
        subnets = resource.get("subnets")
        if isinstance(subnets, list) and len(subnets) < 2:
            yield Finding("subnets", "contain only one", "name subnets of at least two zones")


RULES = (
    Rule(
        name="aws-production-protected",
        title="In production, resources that hold data are protected from deletion",
        check_resource=_protected,
    ),
    Rule(
        name="aws-production-backups",
        title="In production, databases and tables are backed up",
        check_resource=_backed_up,
        parameters={"days": Parameter("Minimum number of days to keep backups.", {"type": "integer", "minimum": 1}, 7)},
    ),
    Rule(
        name="aws-production-versions",
        title="In production, a bucket keeps earlier versions of its objects",
        check_stack=_versioned,
    ),
    Rule(
        name="aws-production-zones",
        title="In production, the database and the load balancer use two zones",
        check_resource=_two_zones,
    ),
)
