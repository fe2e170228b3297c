"""Only port 443 of the stack's load balancer is open to the internet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, cast

from ..aws import allows_everybody, is_a, referring, statements
from ..base import UNKNOWN, Finding, Resource, Rule, RuleContext, items

_BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
_GROUPS = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)
# Wider ranges than any organisation owns.
_WIDEST_V4, _WIDEST_V6 = 8, 16


def is_open(cidr: Any) -> bool:
    """Return whether a range of addresses covers the internet, or nearly all of it.

    >>> is_open("0.0.0.0/0"), is_open("::/0"), is_open("128.0.0.0/1"), is_open("10.0.0.0/8")
    (True, True, True, False)
    """
    try:
        network = ip_network(str(cidr), strict=False)
    except ValueError:
        return False
    return network.prefixlen < (_WIDEST_V4 if network.version == 4 else _WIDEST_V6)


def _bucket(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if is_a(resource, "s3", "Bucket", "BucketAcl"):
        acl = resource.get("acl")
        if isinstance(acl, str) and acl.startswith(("public-", "authenticated-")):
            yield Finding("acl", f"is {acl}", "remove it; the stack's services serve the objects")
        grants = items(resource.get("grants")) + items(resource.get("accessControlPolicy.grants"))
        for grant in grants:
            uri = grant.get("uri") or cast("Mapping[str, Any]", grant.get("grantee") or {}).get("uri")
            if uri in _GROUPS:
                yield Finding("grants", "admit everybody", "remove them")
    if is_a(resource, "s3", "Bucket") and items(resource.get("website")):
        yield Finding("website", "makes the bucket a public website", "serve pages through the load balancer")
    if is_a(resource, "s3", "BucketWebsiteConfiguration"):
        yield Finding("bucket", "becomes a public website", "serve pages through the load balancer")
    if is_a(resource, "s3", "Bucket", "BucketPolicy"):
        for statement in statements(resource.get("policy")):
            if allows_everybody(statement):
                yield Finding("policy", f"admits everybody ({statement.get('Sid', 'no Sid')})", "name the principals")
    if is_a(resource, "s3", "BucketPublicAccessBlock") or resource.type == (
        "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock"
    ):
        for field in _BLOCKS:
            if resource.lacks(field, True):
                yield Finding(field, "is not true", "set it to true: nothing in this stack is public")


def _blocked(resources: Sequence[Resource], _context: RuleContext) -> Iterator[Finding]:
    blocks = [one for one in resources if is_a(one, "s3", "BucketPublicAccessBlock")]
    for bucket in resources:
        if is_a(bucket, "s3", "Bucket") and not referring(bucket, "bucket", blocks):
            hint = "add an aws.s3.BucketPublicAccessBlock with all four settings true"
            yield Finding("bucket", "does not block public access", hint, bucket)


def _ranges(resource: Resource) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield property, address range and rule of what a security group admits."""
    if is_a(resource, "ec2", "SecurityGroup", "DefaultSecurityGroup"):
        for number, rule in enumerate(items(resource.get("ingress"))):
            for key in ("cidrBlocks", "ipv6CidrBlocks"):
                yield from ((f"ingress[{number}].{key}", cidr, rule) for cidr in items(rule.get(key)))
    elif is_a(resource, "ec2", "SecurityGroupRule") and resource.get("type") == "ingress":
        for key in ("cidrBlocks", "ipv6CidrBlocks"):
            yield from ((key, cidr, resource.properties) for cidr in items(resource.get(key)))
    elif is_a(resource, "vpc", "SecurityGroupIngressRule"):
        for key in ("cidrIpv4", "cidrIpv6"):
            yield from ((key, cidr, resource.properties) for cidr in items(resource.get(key)))


def _ingress(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    for field, cidr, rule in _ranges(resource):
        protocol = rule.get("protocol") or rule.get("ipProtocol")
        ports = (rule.get("fromPort"), rule.get("toPort"))
        tls = str(protocol).lower() in {"tcp", "6"} and [_number(port) for port in ports] == [443, 443]
        if is_open(cidr) and not tls:
            which = "every port" if str(protocol) in {"-1", "all"} else f"{protocol} {ports[0]}-{ports[1]}"
            hint = "name the address range or the security group that needs access"
            yield Finding(field, f"admits {cidr} at {which}", hint)


def _number(port: Any) -> int | None:
    try:
        return int(port)
    except (TypeError, ValueError):
        return None


_MEMBERS = ("securityGroups", "vpcSecurityGroupIds", "securityGroupIds", "networkConfiguration", "vpcConfig")


def _only_balancer(resources: Sequence[Resource], _context: RuleContext) -> Iterator[Finding]:
    """Find open security groups whose members are not load balancers: they are open at the same port."""
    by_urn = {one.urn: one for one in resources}
    for rule in resources:
        if not any(is_open(cidr) for _, cidr, _ in _ranges(rule)):
            continue
        groups = [rule] if is_a(rule, "ec2", "SecurityGroup", "DefaultSecurityGroup") else [
            by_urn[urn]
            for urn in rule.refers.get("securityGroupId", frozenset())
            if urn in by_urn and is_a(by_urn[urn], "ec2", "SecurityGroup")
        ]  # fmt: skip
        for group in groups:
            for member in resources:
                inside = any(referring(group, field, [member]) for field in _MEMBERS)
                if inside and not is_a(member, "lb", "LoadBalancer") and not is_a(member, "alb", "LoadBalancer"):
                    hint = f"remove {group.name}, and admit the load balancer's security group instead"
                    yield Finding(
                        "securityGroups", f"include {group.name}, which {rule.name} opens to the internet", hint, member
                    )


def _private(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    hint = "set it to false: it is reached from inside the VPC"
    if is_a(resource, "rds", "Instance", "ClusterInstance", "Cluster") and resource.get("publiclyAccessible") is True:
        yield Finding("publiclyAccessible", "is true", hint)
    if is_a(resource, "ecs", "Service") and resource.get("networkConfiguration.assignPublicIp") is True:
        yield Finding("networkConfiguration.assignPublicIp", "is true", hint)
    if is_a(resource, "ec2", "Instance") and resource.get("associatePublicIpAddress") is True:
        yield Finding("associatePublicIpAddress", "is true", hint)


def _tls(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if not (is_a(resource, "lb", "Listener") or is_a(resource, "alb", "Listener")):
        return
    protocol = resource.get("protocol")
    if protocol == "HTTP":
        kinds = {action.get("type") for action in items(resource.get("defaultActions"))}
        if kinds - {"redirect", UNKNOWN}:
            yield Finding("protocol", "is HTTP", "use HTTPS with a certificate; HTTP may only redirect to HTTPS")
    if protocol in {"HTTPS", "TLS"}:
        policy = resource.get("sslPolicy")
        if policy is not UNKNOWN and not str(policy).startswith("ELBSecurityPolicy-TLS13-"):
            hint = "name a policy that refuses TLS before 1.2, such as ELBSecurityPolicy-TLS13-1-2-2021-06"
            yield Finding("sslPolicy", f"is {policy}" if policy else "is not given", hint)


RULES = (
    Rule(name="aws-bucket-private", title="No bucket is public", check_resource=_bucket),
    Rule(name="aws-bucket-blocked", title="Every bucket blocks public access", check_stack=_blocked),
    Rule(
        name="aws-ingress", title="No security group admits the internet, except at port 443", check_resource=_ingress
    ),
    Rule(
        name="aws-ingress-balancer",
        title="Only load balancers use a security group that admits the internet",
        check_stack=_only_balancer,
    ),
    Rule(name="aws-private", title="No database and no task has a public address", check_resource=_private),
    Rule(name="aws-tls", title="A load balancer uses TLS 1.2 or newer", check_resource=_tls),
)
