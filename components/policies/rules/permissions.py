"""Permissions are narrow, and each exception has a written reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..aws import allows_everybody, is_a, statements
from ..base import Finding, Parameter, Resource, Rule, RuleContext, items

_WILD = re.compile(r"[*?]")
_REASON = 10  # characters; less says nothing
_BROAD = re.compile(
    r"arn:aws[a-z-]*:iam::aws:policy/(\S*/)?(AdministratorAccess|PowerUserAccess|IAMFullAccess|\w*FullAccess)"
)
_HINT = (
    "name the actions and resources, or write `SID: reason why it cannot be narrower` into the policy's "
    "`description`, or the reason into its tag `reason:SID`"
)


def _documents(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Yield property and policy of each document that grants permissions; policies of resources are checked apart."""
    if is_a(resource, "iam", "Policy", "RolePolicy", "UserPolicy", "GroupPolicy"):
        yield "policy", resource.get("policy")
    elif is_a(resource, "iam", "Role"):
        for number, inline in enumerate(items(resource.get("inlinePolicies"))):
            yield f"inlinePolicies[{number}].policy", inline.get("policy")


def _narrow(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    for field, document in _documents(resource):
        for number, statement in enumerate(statements(document)):
            if statement.get("Effect") != "Allow":
                continue
            sid = str(statement.get("Sid") or "")
            wild = [
                f"{key} {text}"
                for key in ("Action", "Resource")
                for text in items(statement.get(key))
                if _WILD.search(str(text))
            ]
            # NotAction and NotResource allow everything outside a list.
            wild += [key for key in ("NotAction", "NotResource") if statement.get(key)]
            if wild and not _reason(resource, sid):
                yield Finding(f"{field}.{sid or f'Statement[{number}]'}", f"allows {wild[0]} without a reason", _HINT)


def _reason(resource: Resource, sid: str) -> bool:
    if not sid:
        return False
    tags = resource.tags()
    tagged = tags.get(f"reason:{sid}") if isinstance(tags, Mapping) else None
    described = re.search(rf"(?:^|[;\n]\s*){re.escape(sid)}: ([^;\n]+)", str(resource.get("description", "")))
    reason = str(tagged or (described[1] if described else "")).strip()
    return len(reason) >= _REASON


def _managed(resource: Resource, context: RuleContext) -> Iterator[Finding]:
    allowed = set(context.settings["allowed"])
    found = [("policyArn", resource.get("policyArn"))] if resource.type.startswith("aws:iam/") else []
    if is_a(resource, "iam", "Role"):
        found += [(f"managedPolicyArns[{n}]", arn) for n, arn in enumerate(items(resource.get("managedPolicyArns")))]
    for field, arn in found:
        match = _BROAD.fullmatch(str(arn))
        if match and match[2] not in allowed:
            yield Finding(
                field, f"is {match[2]}, which allows far more than one service needs", "write a narrow policy"
            )


def _trust(resource: Resource, _context: RuleContext) -> Iterator[Finding]:
    if is_a(resource, "iam", "Role"):
        for statement in statements(resource.get("assumeRolePolicy")):
            if allows_everybody(statement):
                yield Finding("assumeRolePolicy", "lets everybody assume the role", "name the principals")
    elif resource.get("policy") and not is_a(resource, "s3", "Bucket", "BucketPolicy"):
        for statement in statements(resource.get("policy")):
            if allows_everybody(statement):
                yield Finding("policy", f"admits everybody ({statement.get('Sid', 'no Sid')})", "name the principals")


RULES = (
    Rule(
        name="aws-permissions-narrow",
        title="A wildcard in the actions or resources of a permission has a written reason",
        check_resource=_narrow,
    ),
    Rule(
        name="aws-permissions-managed",
        title="No role has an AWS policy that allows everything in a service",
        check_resource=_managed,
        parameters={
            "allowed": Parameter(
                "Names of such policies that are allowed.", {"type": "array", "items": {"type": "string"}}, []
            )
        },
    ),
    Rule(name="aws-trust", title="No role, key, queue or secret admits everybody", check_resource=_trust),
)
