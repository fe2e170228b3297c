"""What is kept on AWS is encrypted, and says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .aws import is_a, referring
from .base import UNKNOWN, Finding, Parameter, Resource, Rule, Situation, items

__all__ = ["RULES"]

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


def _at_rest(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    for service, kinds, field in _FLAGS:
        # A replica is as its source is.
        replica = resource.get("replicateSourceDb") or resource.get("replicationSourceIdentifier")
        if is_a(resource, service, *kinds) and resource.lacks(field, True) and not replica:
            yield Finding(field, "is not true", "set it; later it can only be had by making it anew")
    if is_a(resource, "ec2", "Instance", "LaunchConfiguration"):
        for field in _DISKS:
            for number, disk in enumerate(items(resource.get(field))):
                if disk.get("encrypted") not in (True, UNKNOWN):
                    path = field if field == "rootBlockDevice" else f"{field}[{number}]"
                    yield Finding(f"{path}.encrypted", "is not true", "set it")
    if is_a(resource, "ec2", "LaunchTemplate"):
        for number, device in enumerate(items(resource.get("blockDeviceMappings"))):
            disk: Any = device.get("ebs") or {}
            if disk is not UNKNOWN and disk and str(disk.get("encrypted")).lower() != "true":
                yield Finding(f"blockDeviceMappings[{number}].ebs.encrypted", "is not true", "set it")
    if is_a(resource, "sqs", "Queue") and resource.get("sqsManagedSseEnabled") is False and not resource.get(
        "kmsMasterKeyId"
    ):  # fmt: skip
        yield Finding("sqsManagedSseEnabled", "is false", "leave it out, or name a key")
    if is_a(resource, "ssm", "Parameter") and resource.get("type") == "String" and resource.holds_secret("value"):
        yield Finding("type", "is String, and its value is secret", "use SecureString, or AWS Secrets Manager")


def _own_key(resource: Resource, situation: Situation) -> Iterator[Finding]:
    wanted = set(situation.settings["of"])
    for what, service, kind, field in _KEYS:
        if what in wanted and is_a(resource, service, kind) and not resource.get(field):
            yield Finding(field, "names no key of yours", "name the stack's key of AWS KMS")


_KEYS = (
    ("secrets", "secretsmanager", "Secret", "kmsKeyId"),
    ("logs", "cloudwatch", "LogGroup", "kmsKeyId"),
    ("databases", "rds", "Instance", "kmsKeyId"),
    ("databases", "rds", "Cluster", "kmsKeyId"),
    ("tables", "dynamodb", "Table", "serverSideEncryption.kmsKeyArn"),
    ("metrics", "amp", "Workspace", "kmsKeyArn"),
    ("images", "ecr", "Repository", "encryptionConfigurations"),
)


def _buckets(resources: Sequence[Resource], _situation: Situation) -> Iterator[Finding]:
    settings = [one for one in resources if is_a(one, "s3", "BucketServerSideEncryptionConfiguration")]
    for bucket in resources:
        if not is_a(bucket, "s3", "Bucket") or bucket.get("serverSideEncryptionConfiguration"):
            continue
        if not referring(bucket, "bucket", settings):
            hint = "add an aws.s3.BucketServerSideEncryptionConfiguration"
            yield Finding("bucket", "does not say how it is encrypted", hint, bucket)


RULES = (
    Rule(
        name="aws-encrypted",
        title="Databases, tables, disks and queues are encrypted",
        each=_at_rest,
    ),
    Rule(name="aws-bucket-encrypted", title="Every bucket says how it is encrypted", whole=_buckets),
    Rule(
        name="aws-own-key",
        title="Secrets, and what the organisation asks for, are encrypted with a key of your own",
        each=_own_key,
        parameters={
            "of": Parameter(
                "What must be: secrets, logs, databases, tables, metrics, images.",
                {"type": "array", "items": {"enum": sorted({what for what, *_ in _KEYS})}},
                ["secrets"],
            )
        },
    ),
)
