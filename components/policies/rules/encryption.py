"""Data on AWS is encrypted, and its resource says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..aws import is_a, referring
from ..base import UNKNOWN, Finding, Parameter, Resource, Rule, RuleContext, items

_FLAGS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("rds", ("Instance", "Cluster", "GlobalCluster"), "storageEncrypted"),
    ("ebs", ("Volume",), "encrypted"),
    ("efs", ("FileSystem",), "encrypted"),
    ("docdb", ("Cluster",), "storageEncrypted"),
    ("neptune", ("Cluster",), "storageEncrypted"),
    ("elasticache", ("ReplicationGroup",), "atRestEncryptionEnabled"),
    ("dynamodb", ("Table",), "serverSideEncryption.enabled"),
)
_DISKS = ("rootBlockDevice", "ebsBlockDevices")


def _at_rest(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    for service, kinds, field in _FLAGS:
        # A replica is encrypted like its source.
        replica = resource.get("replicateSourceDb") or resource.get("replicationSourceIdentifier")
        if is_a(resource, service, *kinds) and resource.lacks(field, True) and not replica:
            yield Finding(field, "is not true", "set it to true now: a later change requires a new resource")
    if is_a(resource, "ec2", "Instance", "LaunchConfiguration"):
        for field in _DISKS:
            for number, disk in enumerate(items(resource.get(field))):
                if disk.get("encrypted") not in (True, UNKNOWN):
                    path = field if field == "rootBlockDevice" else f"{field}[{number}]"
                    yield Finding(f"{path}.encrypted", "is not true", "set it to true")
    if is_a(resource, "ec2", "LaunchTemplate"):
        for number, device in enumerate(items(resource.get("blockDeviceMappings"))):
            disk: Any = device.get("ebs") or {}
            if disk is not UNKNOWN and disk and str(disk.get("encrypted")).lower() != "true":
                yield Finding(f"blockDeviceMappings[{number}].ebs.encrypted", "is not true", "set it to true")
    if is_a(resource, "sqs", "Queue") and resource.get("sqsManagedSseEnabled") is False and not resource.get(
        "kmsMasterKeyId"
    ):  # fmt: skip
        yield Finding("sqsManagedSseEnabled", "is false", "remove it, or name a key")
    if is_a(resource, "ssm", "Parameter") and resource.get("type") == "String" and resource.holds_secret("value"):
        yield Finding("type", "is String, but its value is secret", "use SecureString, or AWS Secrets Manager")


def _own_key(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    wanted = set(context.settings["of"])
    for what, service, kind, field in _KEYS:
        if what in wanted and is_a(resource, service, kind) and not resource.get(field):
            yield Finding(field, "does not name your own key", "name the stack's AWS KMS key")


_KEYS = (
    ("secrets", "secretsmanager", "Secret", "kmsKeyId"),
    ("logs", "cloudwatch", "LogGroup", "kmsKeyId"),
    ("databases", "rds", "Instance", "kmsKeyId"),
    ("databases", "rds", "Cluster", "kmsKeyId"),
    ("tables", "dynamodb", "Table", "serverSideEncryption.kmsKeyArn"),
    ("metrics", "amp", "Workspace", "kmsKeyArn"),
    ("images", "ecr", "Repository", "encryptionConfigurations"),
)


def _buckets(resources: Sequence[Resource], _context: RuleContext) -> Iterator[Finding]:
    settings = [one for one in resources if is_a(one, "s3", "BucketServerSideEncryptionConfiguration")]
    for bucket in resources:
        if not is_a(bucket, "s3", "Bucket") or bucket.get("serverSideEncryptionConfiguration"):
            continue
        if not referring(bucket, "bucket", settings):
            hint = "add an aws.s3.BucketServerSideEncryptionConfiguration"
            yield Finding("bucket", "does not declare its encryption", hint, bucket)


RULES = (
    Rule(name="aws-encrypted", title="Databases, tables, disks and queues are encrypted", check_resource=_at_rest),
    Rule(name="aws-bucket-encrypted", title="Every bucket declares its encryption", check_stack=_buckets),
    Rule(
        name="aws-own-key",
        title="Secrets, and other kinds that you list, are encrypted with your own key",
        check_resource=_own_key,
        parameters={
            "of": Parameter(
                "Kinds that need your own key: secrets, logs, databases, tables, metrics, images.",
                {"type": "array", "items": {"enum": sorted({what for what, *_ in _KEYS})}},
                ["secrets"],
            )
        },
    ),
)
