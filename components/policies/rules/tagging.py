"""Every resource names its stack and team, for costs and for questions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..base import UNKNOWN, Finding, Parameter, Resource, Rule, RuleContext, items
from ..containers import CONTAINER

TAGGED: frozenset[str] = frozenset(
    {
        "aws:acm/certificate:Certificate",
        "aws:alb/loadBalancer:LoadBalancer",
        "aws:amp/workspace:Workspace",
        "aws:cloudwatch/logGroup:LogGroup",
        "aws:cloudwatch/metricAlarm:MetricAlarm",
        "aws:dynamodb/table:Table",
        "aws:ebs/volume:Volume",
        "aws:ec2/eip:Eip",
        "aws:ec2/instance:Instance",
        "aws:ec2/internetGateway:InternetGateway",
        "aws:ec2/launchTemplate:LaunchTemplate",
        "aws:ec2/natGateway:NatGateway",
        "aws:ec2/routeTable:RouteTable",
        "aws:ec2/securityGroup:SecurityGroup",
        "aws:ec2/subnet:Subnet",
        "aws:ec2/vpc:Vpc",
        "aws:ec2/vpcEndpoint:VpcEndpoint",
        "aws:ecr/repository:Repository",
        "aws:ecs/cluster:Cluster",
        "aws:ecs/service:Service",
        "aws:ecs/taskDefinition:TaskDefinition",
        "aws:efs/fileSystem:FileSystem",
        "aws:iam/policy:Policy",
        "aws:iam/role:Role",
        "aws:kms/key:Key",
        "aws:lambda/function:Function",
        "aws:lb/loadBalancer:LoadBalancer",
        "aws:lb/targetGroup:TargetGroup",
        "aws:rds/cluster:Cluster",
        "aws:rds/instance:Instance",
        "aws:rds/parameterGroup:ParameterGroup",
        "aws:rds/subnetGroup:SubnetGroup",
        "aws:s3/bucket:Bucket",
        "aws:secretsmanager/secret:Secret",
        "aws:servicediscovery/privateDnsNamespace:PrivateDnsNamespace",
        "aws:servicediscovery/service:Service",
        "aws:sns/topic:Topic",
        "aws:sqs/queue:Queue",
    }
)
"""Types of AWS that must have tags; any other type with tags must have all of them."""

_LABELLED = frozenset({CONTAINER, "docker:index/network:Network", "docker:index/volume:Volume"})
_NATIVE = ("tidemill-native:docker:",)


def _tagged(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    if not resource.type.startswith("aws:"):
        return
    tags = resource.tags()
    if not isinstance(tags, Mapping) or (resource.type not in TAGGED and "tags" not in resource.properties):
        return
    missing = [name for name in context.settings["names"] if not tags.get(name)]
    if missing:
        yield Finding(
            "tags", f"lack {', '.join(missing)}", "add them, or set the provider's `defaultTags` for all resources"
        )


def _labelled(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    labels: Any = resource.get("labels")
    native = resource.type.startswith(_NATIVE) and isinstance(labels, Mapping)
    if labels is UNKNOWN or not (resource.type in _LABELLED or native):
        return
    known = labels if isinstance(labels, Mapping) else {one.get("label"): one.get("value") for one in items(labels)}
    missing = [name for name in context.settings["names"] if not known.get(name)]
    if missing:
        yield Finding("labels", f"lack {', '.join(missing)}", "add them")


def _names(*default: str) -> Mapping[str, Parameter]:
    schema = {"type": "array", "items": {"type": "string"}}
    return {"names": Parameter("Required names.", schema, list(default))}


RULES = (
    Rule(
        name="aws-tagged",
        title="AWS resources have the tags that name their stack and team",
        check_resource=_tagged,
        parameters=_names("managed-by", "tidemill:stack", "tidemill:team", "tidemill:environment"),
    ),
    Rule(
        name="docker-labelled",
        title="Docker objects have the labels that name their stack and team",
        check_resource=_labelled,
        parameters=_names("managed-by", "tidemill.stack", "tidemill.team", "tidemill.environment"),
    ),
)
