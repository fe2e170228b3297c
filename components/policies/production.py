"""In production nothing that holds data goes by one careless command, and one failure ends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .aws import is_a, referring
from .base import UNKNOWN, Finding, Parameter, Resource, Rule, Situation

__all__ = ["RULES"]


def _protected(resource: Resource, situation: Situation) -> Iterator[Finding]:
    if not situation.production:
        return
    for service, kinds, field in (
        ("rds", ("Instance", "Cluster"), "deletionProtection"),
        ("dynamodb", ("Table",), "deletionProtectionEnabled"),
        ("lb", ("LoadBalancer",), "enableDeletionProtection"),
        ("alb", ("LoadBalancer",), "enableDeletionProtection"),
    ):
        if is_a(resource, service, *kinds) and resource.lacks(field, True):
            yield Finding(field, "is not true", "set it in production")
    for service, kinds, field in (
        ("s3", ("Bucket",), "forceDestroy"),
        ("rds", ("Instance", "Cluster"), "skipFinalSnapshot"),
    ):
        if is_a(resource, service, *kinds) and resource.get(field) is True:
            yield Finding(field, "is true", "leave it out in production: what it holds would go with it")
    if is_a(resource, "secretsmanager", "Secret") and resource.get("recoveryWindowInDays") == 0:
        yield Finding("recoveryWindowInDays", "is 0", "leave it out, or give 7 days at least: a secret opens the data")


def _backed_up(resource: Resource, situation: Situation) -> Iterator[Finding]:
    if not situation.production:
        return
    least = situation.settings["days"]
    if is_a(resource, "rds", "Instance", "Cluster") and not resource.get("replicateSourceDb"):
        days: Any = resource.get("backupRetentionPeriod")
        if days is not UNKNOWN and (days is None or float(days) < least):
            text = f"is {days:g}" if isinstance(days, int | float) else "is not given"
            yield Finding("backupRetentionPeriod", text, f"keep backups for {least} days at least")
    if is_a(resource, "dynamodb", "Table") and resource.lacks("pointInTimeRecovery.enabled", True):
        yield Finding("pointInTimeRecovery.enabled", "is not true", "set it in production")


def _versioned(resources: Sequence[Resource], situation: Situation) -> Iterator[Finding]:
    if not situation.production:
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
            yield Finding("bucket", "keeps no earlier versions of its objects", hint, bucket)


def _two_zones(resource: Resource, situation: Situation) -> Iterator[Finding]:
    if not situation.production:
        return
    if is_a(resource, "rds", "Instance") and not resource.get("replicateSourceDb") and resource.lacks("multiAz", True):
        yield Finding("multiAz", "is not true", "set it in production")
    if is_a(resource, "lb", "LoadBalancer") or is_a(resource, "alb", "LoadBalancer"):
        subnets = resource.get("subnets")
        if isinstance(subnets, list) and len(subnets) < 2:
            yield Finding("subnets", "is one alone", "name subnets of two zones at least")


RULES = (
    Rule(
        name="aws-production-protected",
        title="In production nothing that holds data can be deleted by the way",
        each=_protected,
    ),
    Rule(
        name="aws-production-backups",
        title="In production databases and tables are backed up",
        each=_backed_up,
        parameters={"days": Parameter("Days which backups are kept at least.", {"type": "integer", "minimum": 1}, 7)},
    ),
    Rule(
        name="aws-production-versions",
        title="In production a bucket keeps earlier versions of its objects",
        whole=_versioned,
    ),
    Rule(
        name="aws-production-zones",
        title="In production the database and the load balancer are in two zones",
        each=_two_zones,
    ),
)
