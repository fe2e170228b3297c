"""Permissions are as narrow as they can be, and where they are not, somebody has written down why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .aws import is_a
from .base import Finding, Parameter, Resource, Rule, Situation, items
from .exposure import anybody, statements

__all__ = ["RULES"]

_WILD = re.compile(r"[*?]")
_REASON = 10  # characters; less says nothing
_BROAD = re.compile(
    r"arn:aws[a-z-]*:iam::aws:policy/(\S*/)?(AdministratorAccess|PowerUserAccess|IAMFullAccess|\w*FullAccess)"
)
_MEND = (
    "name the actions and resources, or write `SID: why it cannot be narrower` into the policy's `description`, "
    "or as its tag `reason:SID`"
)


def _documents(resource: Resource) -> Iterator[tuple[str, Any]]:
    """Yield property and policy of what gives somebody permissions; policies of resources name whom they let in."""
    if is_a(resource, "iam", "Policy", "RolePolicy", "UserPolicy", "GroupPolicy"):
        yield "policy", resource.get("policy")
    elif is_a(resource, "iam", "Role"):
        for number, inline in enumerate(items(resource.get("inlinePolicies"))):
            yield f"inlinePolicies[{number}].policy", inline.get("policy")


def _narrow(resource: Resource, _situation: Situation) -> Iterator[Finding]:
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
            # What is left over from a list is more than a star.
            wild += [key for key in ("NotAction", "NotResource") if statement.get(key)]
            if wild and not _reason(resource, sid):
                yield Finding(f"{field}.{sid or f'Statement[{number}]'}", f"allows {wild[0]} without a reason", _MEND)


def _reason(resource: Resource, sid: str) -> bool:
    if not sid:
        return False
    tags = resource.tags()
    tagged = tags.get(f"reason:{sid}") if isinstance(tags, Mapping) else None
    described = re.search(rf"(?:^|[;\n]\s*){re.escape(sid)}: ([^;\n]+)", str(resource.get("description", "")))
    reason = str(tagged or (described[1] if described else "")).strip()
    return len(reason) >= _REASON


def _managed(resource: Resource, situation: Situation) -> Iterator[Finding]:
    allowed = set(situation.settings["allowed"])
    found = [("policyArn", resource.get("policyArn"))] if resource.type.startswith("aws:iam/") else []
    if is_a(resource, "iam", "Role"):
        found += [(f"managedPolicyArns[{n}]", arn) for n, arn in enumerate(items(resource.get("managedPolicyArns")))]
    for field, arn in found:
        match = _BROAD.fullmatch(str(arn))
        if match and match[2] not in allowed:
            yield Finding(
                field, f"is {match[2]}, which allows far more than one service needs", "write a policy of its own"
            )


def _trust(resource: Resource, _situation: Situation) -> Iterator[Finding]:
    if is_a(resource, "iam", "Role"):
        for statement in statements(resource.get("assumeRolePolicy")):
            if anybody(statement):
                yield Finding("assumeRolePolicy", "lets everybody take the role", "name who may")
    elif resource.get("policy") and not is_a(resource, "s3", "Bucket", "BucketPolicy"):
        for statement in statements(resource.get("policy")):
            if anybody(statement):
                yield Finding("policy", f"lets everybody in ({statement.get('Sid', 'no Sid')})", "name who may")


RULES = (
    Rule(
        name="aws-permissions-narrow",
        title="No permission has a star in its actions or resources without a written reason",
        each=_narrow,
    ),
    Rule(
        name="aws-permissions-managed",
        title="No role has one of AWS's policies which allow everything of a service",
        each=_managed,
        parameters={
            "allowed": Parameter(
                "Names of such policies which may be used.", {"type": "array", "items": {"type": "string"}}, []
            )
        },
    ),
    Rule(name="aws-trust", title="No role, key, queue or secret lets everybody in", each=_trust),
)
