"""The target `aws` as the registry knows it. Imports neither Pulumi nor boto3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....runtime.common.errors import ConfigError
from ..operations import Operations
from ..spec import TargetContext, TargetSpec
from .settings import AwsSettings

if TYPE_CHECKING:
    from ..base import Target


def _target(context: TargetContext) -> Target:
    from .target import AwsTarget

    if context.block is None:
        raise ConfigError("is missing", field="aws", hint="name at least the region: `aws=AwsSettings(...)`")
    return AwsTarget(
        context.team,
        context.environment,
        root=context.root.path,
        project=context.project,
        settings=context.block_as(AwsSettings),
        expiring=context.expiring,
    )


def _operations(context: TargetContext) -> Operations:
    from .operations import AwsOperations

    return AwsOperations(context.stack, context.block_as(AwsSettings))


def _release(context: TargetContext) -> None:
    from .release import release

    release(context.stack, context.block_as(AwsSettings))


SPEC = TargetSpec(
    name="aws",
    extra="aws",
    modules=("pulumi", "pulumi_aws", "pulumi_docker_build", "boto3", "botocore"),
    plugins=("aws", "docker-build"),
    block=AwsSettings,
    questions={
        "region": "AWS region, such as eu-central-1",
        "domain": "Domain below which each environment has its own, such as ml.example.org",
        "zone": "Id of its Route 53 zone",
    },
    shared_state=True,
    target=_target,
    operations=_operations,
    release=_release,
)
