"""Names, the AWS provider, the account and the encryption key of a stack."""

from __future__ import annotations

from functools import cached_property

import pulumi
import pulumi_aws as aws

from ..options import protected
from .names import Names
from .settings import AwsSettings


class Core:
    """The shared values of a stack.

    Args:
        names: names of the stack in AWS.
        settings: the block `aws` of the stack config.

    Attributes:
        production: whether the stack is protected as production.
        region, domain: of the block.
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
        """Options for resources of the AWS provider."""
        return pulumi.ResourceOptions(provider=self._provider)

    def with_provider(self, opts: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
        """Return `opts` for a resource of the AWS provider."""
        return pulumi.ResourceOptions.merge(opts, self.options)

    @property
    def invoke_options(self) -> pulumi.InvokeOutputOptions:
        """Options for calls of AWS while the program runs."""
        return pulumi.InvokeOutputOptions(provider=self._provider)

    def tags(self, name: str) -> dict[str, str]:
        """Return the tags of the stack's `name`."""
        return self.names.tags(name)

    @cached_property
    def account(self) -> pulumi.Output[str]:
        """The id of the account."""
        return aws.get_caller_identity_output(opts=self.invoke_options).account_id

    @cached_property
    def partition(self) -> pulumi.Output[str]:
        """The partition of AWS, mostly `aws`."""
        return aws.get_partition_output(opts=self.invoke_options).partition

    def arn(self, service: str, path: pulumi.Input[str]) -> pulumi.Output[str]:
        """Return the ARN of a resource in this account and region."""
        return pulumi.Output.concat("arn:", self.partition, f":{service}:{self.region}:", self.account, ":", path)

    @cached_property
    def key(self) -> aws.kms.Key:
        """The KMS key that encrypts all data of the stack. Without it, all data is lost."""
        names, region = self.names, self.region
        root = pulumi.Output.concat("arn:", self.partition, ":iam::", self.account, ":root")
        policy = pulumi.Output.json_dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {
                        # AWS's default: IAM policies decide who can use the key. `*` is the key itself.
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
            opts=protected(self.options),
        )
        aws.kms.Alias("key", name=f"alias/{names.of('key')}", target_key_id=key.key_id, opts=self.options)
        return key
