"""Declares the bucket, the Postgres server and lakeFS's table. They contain data, so they are protected."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pulumi
import pulumi_aws as aws

from ..options import after, protected
from .core import Core
from .names import database_class
from .network import Network
from .stores import place

_OLD_VERSIONS_DAYS = 30
_UNFINISHED_DAYS = 7
_POSTGRES = "17"


class Bucket:
    """The bucket: private, versioned, encrypted, accessible only by TLS. Each object store is a folder in it.

    Args:
        core: the stack's shared values.
        expiring: store -> days after which its objects are deleted.

    Attributes:
        name, arn: name and ARN of the bucket.
        resources: resources on which its users depend.
    """

    name: pulumi.Output[str]
    arn: pulumi.Output[str]
    resources: list[pulumi.Resource]

    def __init__(self, core: Core, expiring: Mapping[str, int]) -> None:
        self._core = core
        existing = core.settings.bucket.existing
        if existing:
            self.name = pulumi.Output.from_input(existing)
            self.arn = pulumi.Output.concat("arn:", core.partition, ":s3:::", existing)
            self.resources = []
            return
        bucket = aws.s3.Bucket(
            "bucket",
            bucket=core.account.apply(lambda account: core.names.of(account, 63)),
            force_destroy=False,
            tags=core.tags("bucket"),
            opts=protected(core.options),
        )
        self.name, self.arn = bucket.bucket, bucket.arn
        self.resources = [bucket, *self._settings(bucket, expiring)]

    def _settings(self, bucket: aws.s3.Bucket, expiring: Mapping[str, int]) -> list[pulumi.Resource]:
        core = self._core
        opts = pulumi.ResourceOptions.merge(core.options, pulumi.ResourceOptions(parent=bucket))
        blocked = aws.s3.BucketPublicAccessBlock(
            "private",
            bucket=bucket.id,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=opts,
        )
        versioned = aws.s3.BucketVersioning(
            "versioned",
            bucket=bucket.id,
            versioning_configuration=aws.s3.BucketVersioningVersioningConfigurationArgs(status="Enabled"),
            opts=opts,
        )
        rule = aws.s3.BucketServerSideEncryptionConfigurationRuleArgs
        default = aws.s3.BucketServerSideEncryptionConfigurationRuleApplyServerSideEncryptionByDefaultArgs
        return [
            blocked,
            versioned,
            aws.s3.BucketOwnershipControls(
                "owned",
                bucket=bucket.id,
                rule=aws.s3.BucketOwnershipControlsRuleArgs(object_ownership="BucketOwnerEnforced"),
                opts=opts,
            ),
            aws.s3.BucketServerSideEncryptionConfiguration(
                "encrypted",
                bucket=bucket.id,
                rules=[
                    rule(
                        apply_server_side_encryption_by_default=default(
                            sse_algorithm="aws:kms", kms_master_key_id=core.key.arn
                        ),
                        # S3 derives one key for many objects, because calls of KMS cost money.
                        bucket_key_enabled=True,
                    )
                ],
                opts=opts,
            ),
            aws.s3.BucketLifecycleConfiguration(
                "lifecycle",
                bucket=bucket.id,
                rules=_lifecycle(expiring),
                # S3 accepts rules about old versions only on a versioned bucket.
                opts=after(opts, [versioned]),
            ),
            aws.s3.BucketPolicy(
                "tls", bucket=bucket.id, policy=bucket.arn.apply(_tls_only), opts=after(opts, [blocked])
            ),
        ]

    def uri(self, store: str) -> pulumi.Output[str]:
        """Return the s3:// URI of `store`."""
        return pulumi.Output.concat("s3://", self.name, f"/{place(store)}")


def _lifecycle(expiring: Mapping[str, int]) -> Sequence[aws.s3.BucketLifecycleConfigurationRuleArgs]:
    rule = aws.s3.BucketLifecycleConfigurationRuleArgs
    rules = [
        rule(
            id="old-versions",
            status="Enabled",
            filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=""),
            noncurrent_version_expiration=aws.s3.BucketLifecycleConfigurationRuleNoncurrentVersionExpirationArgs(
                noncurrent_days=_OLD_VERSIONS_DAYS
            ),
            abort_incomplete_multipart_upload=aws.s3.BucketLifecycleConfigurationRuleAbortIncompleteMultipartUploadArgs(
                days_after_initiation=_UNFINISHED_DAYS
            ),
        )
    ]
    return [
        *rules,
        *(
            rule(
                id=f"expire-{store}",
                status="Enabled",
                filter=aws.s3.BucketLifecycleConfigurationRuleFilterArgs(prefix=f"{place(store)}/"),
                expiration=aws.s3.BucketLifecycleConfigurationRuleExpirationArgs(days=days),
            )
            for store, days in sorted(expiring.items())
        ),
    ]


def _tls_only(arn: str) -> str:
    statement = {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [arn, f"{arn}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, sort_keys=True)


class Postgres:
    """The Postgres server, created or existing.

    Args:
        core: the stack's shared values.
        network: the network in which it runs.

    Attributes:
        host, port: its address.
        admin: ARN of the secret with `username` and `password` of its administrator.
        resources: resources on which its users depend.
    """

    host: pulumi.Output[str]
    port: int
    admin: pulumi.Output[str]
    resources: list[pulumi.Resource]

    def __init__(self, core: Core, network: Network) -> None:
        existing = core.settings.database.existing
        if existing:
            network.reach(existing.security_group)
            self.host = pulumi.Output.from_input(existing.host)
            self.port = existing.port
            self.admin = pulumi.Output.from_input(existing.secret)
            self.resources = []
            return
        assert network.groups.database is not None  # noqa: S101 - created unless one exists
        opts = core.options
        subnets = aws.rds.SubnetGroup(
            "database",
            name=core.names.of("database", 255),
            subnet_ids=network.private,
            tags=core.tags("database"),
            opts=opts,
        )
        parameters = aws.rds.ParameterGroup(
            "database",
            name=core.names.of("database", 255),
            family=f"postgres{_POSTGRES}",
            parameters=[aws.rds.ParameterGroupParameterArgs(name="rds.force_ssl", value="1")],
            tags=core.tags("database"),
            opts=opts,
        )
        size, disk = database_class(core.settings)
        server = aws.rds.Instance(
            "database",
            identifier=core.names.of("database", 63),
            engine="postgres",
            engine_version=_POSTGRES,
            instance_class=size,
            allocated_storage=disk,
            max_allocated_storage=disk * 5,
            storage_type="gp3",
            storage_encrypted=True,
            kms_key_id=core.key.arn,
            username="postgres",
            # RDS generates and rotates the password; it never appears in the state.
            manage_master_user_password=True,
            master_user_secret_kms_key_id=core.key.arn,
            db_subnet_group_name=subnets.name,
            parameter_group_name=parameters.name,
            vpc_security_group_ids=[network.groups.database.id],
            publicly_accessible=False,
            multi_az=core.production,
            backup_retention_period=35 if core.production else 7,
            copy_tags_to_snapshot=True,
            deletion_protection=True,
            # In production, a final snapshot remains even after all data is deleted.
            skip_final_snapshot=not core.production,
            final_snapshot_identifier=core.names.of("database-last", 255),
            auto_minor_version_upgrade=True,
            apply_immediately=not core.production,
            performance_insights_enabled=core.production,
            performance_insights_kms_key_id=core.key.arn if core.production else None,
            enabled_cloudwatch_logs_exports=["postgresql", "upgrade"],
            tags=core.tags("database"),
            opts=protected(opts),
        )
        self.host, self.port = server.address, 5432
        self.admin = server.master_user_secrets.apply(lambda found: str(found[0].secret_arn))
        self.resources = [server]


def lake_table(core: Core) -> aws.dynamodb.Table:
    """Declare the table for lakeFS's metadata, with the keys that lakeFS requires."""
    attribute = aws.dynamodb.TableAttributeArgs
    return aws.dynamodb.Table(
        "lakefs",
        name=core.names.of("lakefs", 255),
        billing_mode="PAY_PER_REQUEST",
        hash_key="PartitionKey",
        range_key="ItemKey",
        attributes=[attribute(name="PartitionKey", type="B"), attribute(name="ItemKey", type="B")],
        point_in_time_recovery=aws.dynamodb.TablePointInTimeRecoveryArgs(enabled=True),
        server_side_encryption=aws.dynamodb.TableServerSideEncryptionArgs(enabled=True, kms_key_arn=core.key.arn),
        deletion_protection_enabled=True,
        tags=core.tags("lakefs"),
        opts=protected(core.options),
    )
