"""Nothing of the stack is open to the world but port 443 of its load balancer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any, cast

from .aws import is_a, referring
from .base import UNKNOWN, Finding, Resource, Rule, Situation, as_document, items

__all__ = ["RULES", "is_open"]

_BLOCKS = ("blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets")
_GROUPS = (
    "http://acs.amazonaws.com/groups/global/AllUsers",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers",
)
# Wider ranges than any organisation's own.
_WIDEST_V4, _WIDEST_V6 = 8, 16


def is_open(cidr: Any) -> bool:
    """Say whether a range of addresses is the world, or so much of it that it makes no difference.

    >>> is_open("0.0.0.0/0"), is_open("::/0"), is_open("128.0.0.0/1"), is_open("10.0.0.0/8")
    (True, True, True, False)
    """
    try:
        network = ip_network(str(cidr), strict=False)
    except ValueError:
        return False
    return network.prefixlen < (_WIDEST_V4 if network.version == 4 else _WIDEST_V6)


def anybody(statement: Mapping[str, Any]) -> bool:
    """Say whether a statement of a policy allows something to everybody, without a condition."""
    principal = statement.get("Principal")
    named = principal.values() if isinstance(principal, Mapping) else [principal]
    everybody = any(one == "*" for value in named for one in items(value))
    return statement.get("Effect") == "Allow" and everybody and not statement.get("Condition")


def statements(policy: Any) -> list[Mapping[str, Any]]:
    """Return the statements of a policy's JSON."""
    document = as_document(policy)
    found = items(document.get("Statement")) if isinstance(document, dict) else []
    return [cast("Mapping[str, Any]", one) for one in found if isinstance(one, Mapping)]


def _bucket(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if is_a(resource, "s3", "Bucket", "BucketAcl"):
        acl = resource.get("acl")
        if isinstance(acl, str) and acl.startswith(("public-", "authenticated-")):
            yield Finding("acl", f"is {acl}", "leave it out; objects are reached through the stack's services")
        grants = items(resource.get("grants")) + items(resource.get("accessControlPolicy.grants"))
        for grant in grants:
            uri = grant.get("uri") or cast("Mapping[str, Any]", grant.get("grantee") or {}).get("uri")
            if uri in _GROUPS:
                yield Finding("grants", "let everybody in", "leave them out")
    if is_a(resource, "s3", "Bucket") and items(resource.get("website")):
        yield Finding("website", "makes a public website of it", "serve pages through the load balancer")
    if is_a(resource, "s3", "BucketWebsiteConfiguration"):
        yield Finding("bucket", "is made a public website", "serve pages through the load balancer")
    if is_a(resource, "s3", "Bucket", "BucketPolicy"):
        for statement in statements(resource.get("policy")):
            if anybody(statement):
                yield Finding("policy", f"lets everybody in ({statement.get('Sid', 'no Sid')})", "name who may")
    if is_a(resource, "s3", "BucketPublicAccessBlock") or resource.type == (
        "aws:s3/accountPublicAccessBlock:AccountPublicAccessBlock"
    ):
        for field in _BLOCKS:
            if resource.lacks(field, True):
                yield Finding(field, "is not true", "set it: nothing of this stack is public")


def _blocked(resources: Sequence[Resource], _situation: Situation) -> Iterator[Finding]:
    blocks = [one for one in resources if is_a(one, "s3", "BucketPublicAccessBlock")]
    for bucket in resources:
        if is_a(bucket, "s3", "Bucket") and not referring(bucket, "bucket", blocks):
            hint = "add an aws.s3.BucketPublicAccessBlock with all four settings true"
            yield Finding("bucket", "has no block against public access", hint, bucket)


def _ranges(resource: Resource) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield property, range and rule of whom a security group lets in."""
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


def _ingress(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    for field, cidr, rule in _ranges(resource):
        protocol = rule.get("protocol") or rule.get("ipProtocol")
        ports = (rule.get("fromPort"), rule.get("toPort"))
        tls = str(protocol).lower() in {"tcp", "6"} and [_number(port) for port in ports] == [443, 443]
        if is_open(cidr) and not tls:
            which = "every port" if str(protocol) in {"-1", "all"} else f"{protocol} {ports[0]}-{ports[1]}"
            hint = "name the range of addresses, or the security group, which needs it"
            yield Finding(field, f"lets {cidr} in at {which}", hint)


def _number(port: Any) -> int | None:
    try:
        return int(port)
    except (TypeError, ValueError):
        return None


_MEMBERS = ("securityGroups", "vpcSecurityGroupIds", "securityGroupIds", "networkConfiguration", "vpcConfig")


def _only_balancer(resources: Sequence[Resource], _situation: Situation) -> Iterator[Finding]:
    """Refuse an open group which anything but a load balancer is in; what it lets in, it would let in there too."""
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
                    hint = f"take {group.name} out, and let the load balancer's security group in instead"
                    yield Finding(
                        "securityGroups", f"name {group.name}, which {rule.name} opens to the world", hint, member
                    )


def _private(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    hint = "set it to false: it is reached from within the VPC"
    if is_a(resource, "rds", "Instance", "ClusterInstance", "Cluster") and resource.get("publiclyAccessible") is True:
        yield Finding("publiclyAccessible", "is true", hint)
    if is_a(resource, "ecs", "Service") and resource.get("networkConfiguration.assignPublicIp") is True:
        yield Finding("networkConfiguration.assignPublicIp", "is true", hint)
    if is_a(resource, "ec2", "Instance") and resource.get("associatePublicIpAddress") is True:
        yield Finding("associatePublicIpAddress", "is true", hint)


def _tls(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if not (is_a(resource, "lb", "Listener") or is_a(resource, "alb", "Listener")):
        return
    protocol = resource.get("protocol")
    if protocol == "HTTP":
        kinds = {action.get("type") for action in items(resource.get("defaultActions"))}
        if kinds - {"redirect", UNKNOWN}:
            yield Finding("protocol", "is HTTP", "use HTTPS with a certificate; HTTP may only redirect to it")
    if protocol in {"HTTPS", "TLS"}:
        policy = resource.get("sslPolicy")
        if policy is not UNKNOWN and not str(policy).startswith("ELBSecurityPolicy-TLS13-"):
            hint = "name one which refuses what is older than TLS 1.2, such as ELBSecurityPolicy-TLS13-1-2-2021-06"
            yield Finding("sslPolicy", f"is {policy}" if policy else "is not given", hint)


RULES = (
    Rule(name="aws-bucket-private", title="No bucket is public", each=_bucket),
    Rule(name="aws-bucket-blocked", title="Every bucket has a block against public access", whole=_blocked),
    Rule(
        name="aws-ingress",
        title="No security group lets the world in but at port 443",
        each=_ingress,
    ),
    Rule(
        name="aws-ingress-balancer",
        title="Only a load balancer is in a security group which lets the world in",
        whole=_only_balancer,
    ),
    Rule(name="aws-private", title="No database and no task has an address of the internet", each=_private),
    Rule(name="aws-tls", title="A load balancer speaks TLS, of version 1.2 at least", each=_tls),
)
