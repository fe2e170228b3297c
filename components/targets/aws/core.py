"""What every part of the target shares: names, the vendor's provider, the account, the stack's key."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import pulumi
import pulumi_aws as aws

from .names import Names
from .settings import AwsSettings

__all__ = ["Core", "after", "kept"]


def kept(opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """Return `opts` for what holds data, or the secrets which open it."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(protect=True))


def after(opts: pulumi.ResourceOptions, resources: Sequence[pulumi.Resource]) -> pulumi.ResourceOptions:
    """Return `opts` of what waits for `resources`."""
    return pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(depends_on=list(resources)))


class Core:
    """Made once a stack.

    Args:
        names: what things are called.
        settings: the block `aws` of the stack config.

    Attributes:
        production: whether the stack is guarded as production.
    """

    def __init__(self, names: Names, settings: AwsSettings) -> None:
        self.names = names
        self.settings = settings
        self.production = settings.is_production(names.environment)
        assert settings.region is not None and settings.domain is not None  # noqa: S101 - `problems` saw to it
        self.region = settings.region
        self.domain = settings.domain
        account = [settings.account] if settings.account else None
        self._provider = aws.Provider("aws", region=self.region, allowed_account_ids=account)

    @cached_property
    def options(self) -> pulumi.ResourceOptions:
        """Options of the vendor's resources which belong to no component."""
        return pulumi.ResourceOptions(provider=self._provider)

    def of(self, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        """Return `opts` for a resource of the vendor's."""
        return pulumi.ResourceOptions.merge(opts, self.options)

    @property
    def asking(self) -> pulumi.InvokeOutputOptions:
        """Options of what is asked of AWS while the program runs."""
        return pulumi.InvokeOutputOptions(provider=self._provider)

    def tags(self, name: str) -> dict[str, str]:
        """Return the tags of the stack's thing `name`."""
        return self.names.tags(name)

    @cached_property
    def account(self) -> pulumi.Output[str]:
        """The number of the account."""
        return aws.get_caller_identity_output(opts=self.asking).account_id

    @cached_property
    def partition(self) -> pulumi.Output[str]:
        """`aws`, or the name of a part of AWS of its own."""
        return aws.get_partition_output(opts=self.asking).partition

    def arn(self, service: str, path: pulumi.Input[str]) -> pulumi.Output[str]:
        """Return the ARN of a thing of this account and region."""
        return pulumi.Output.concat("arn:", self.partition, f":{service}:{self.region}:", self.account, ":", path)

    @cached_property
    def key(self) -> aws.kms.Key:
        """The one key which everything of the stack is encrypted with; without it all data is lost."""
        names, region = self.names, self.region
        root = pulumi.Output.concat("arn:", self.partition, ":iam::", self.account, ":root")
        policy = pulumi.Output.json_dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        # AWS's own default: permissions to use the key are IAM's matter. `*` is the key itself.
                        "Sid": "Account",
                        "Effect": "Allow",
                        "Principal": {"AWS": root},
                        "Action": "kms:*",
                        "Resource": "*",
                    },
                    {
                        "Sid": "Logs",
                        "Effect": "Allow",
                        "Principal": {"Service": f"logs.{region}.amazonaws.com"},
                        "Action": [
                            "kms:Encrypt", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:GenerateDataKey",
                            "kms:DescribeKey",
                        ],
                        "Resource": "*",
                        "Condition": {
                            "ArnLike": {
                                "kms:EncryptionContext:aws:logs:arn": self.arn("logs", f"log-group:/{names.path('')}*")
                            }
                        },
                    },
                ],
            }
        )  # fmt: skip
        key = aws.kms.Key(
            "key",
            description=f"Everything of the tidemill stack {names.stack}",
            enable_key_rotation=True,
            deletion_window_in_days=30,
            policy=policy,
            tags=self.tags("key"),
            opts=kept(self.options),
        )
        aws.kms.Alias("key", name=f"alias/{names.of('key')}", target_key_id=key.key_id, opts=self.options)
        return key
