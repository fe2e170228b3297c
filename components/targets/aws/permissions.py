"""The permissions of services on AWS, as data: statements, the rules for them, and their JSON. Imports no Pulumi.

A wildcard in an action or a resource needs a reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ....runtime.common.errors import ConfigError
from .stores import Use, place

_WILD = re.compile(r"[*?]")
# IAM's maximum.
_DESCRIPTION = 1000
Conditions = Mapping[str, Mapping[str, str | Sequence[str]]]


@dataclass(frozen=True, kw_only=True)
class Statement:
    """One statement of an IAM policy.

    Attributes:
        sid: its name, letters and digits.
        actions: the allowed actions.
        resources: ARNs of the resources.
        conditions: operator -> key -> value.
        reason: why an action or a resource has a wildcard, one sentence; empty if none has.
    """

    sid: str
    actions: Sequence[str]
    resources: Sequence[str]
    conditions: Conditions = field(default_factory=dict[str, Any])
    reason: str = ""


@dataclass(frozen=True)
class SecretRule:
    """Which services and jobs can read secrets.

    Attributes:
        secret: pattern of the secrets' names.
        only: patterns of the only readers; empty allows all except `never`.
        never: patterns of forbidden readers.
        why: the reason.
    """

    secret: str
    only: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    why: str = ""


SECRET_RULES: tuple[SecretRule, ...] = (
    SecretRule("*signing-key*", only=("validation",), why="who signs verdicts decides what may be trained on"),
    SecretRule(
        "lakefs-key-id",
        never=("serving-*", "mlflow", "prometheus", "alertmanager", "grafana"),
        why="a model server needs no data, and is the one which strangers talk to",
    ),
    SecretRule(
        "lakefs-secret",
        never=("serving-*", "mlflow", "prometheus", "alertmanager", "grafana"),
        why="a model server needs no data, and is the one which strangers talk to",
    ),
    SecretRule(
        "lakefs-signing", only=("lakefs",), why="with it links to objects can be made which ask for no credentials"
    ),
    SecretRule("lakefs-encrypt", only=("lakefs",), why="it opens what lakeFS keeps of its keys"),
    SecretRule("mlflow-admin", only=("mlflow", "content-*"), why="the administrator of MLflow may delete every model"),
    SecretRule("mlflow-retraining", only=("retraining", "content-*"), why="it decides which version serves"),
    SecretRule("mlflow-flask", only=("mlflow",), why="with it sessions can be forged"),
    SecretRule("database-*", only=("mlflow", "lakefs", "grafana", "databases-*"), why="each database has one client"),
    SecretRule("grafana-admin", only=("grafana",), why="nobody else speaks to Grafana as its administrator"),
)
"""All rules that match a secret apply. A secret without a rule has no restriction."""


def check_readers(reader: str, secrets: Iterable[str]) -> None:
    """Check that a service or job reads only allowed secrets.

    Raises:
        ConfigError: it does not; names the secret, the reader and the reason.
    """
    for name in secrets:
        for rule in SECRET_RULES:
            if not fnmatchcase(name, rule.secret):
                continue
            allowed = not rule.only or any(fnmatchcase(reader, one) for one in rule.only)
            if not allowed or any(fnmatchcase(reader, one) for one in rule.never):
                raise ConfigError(f"must not be read by {reader}: {rule.why}", field="secret", value=name)


def check(statements: Iterable[Statement]) -> None:
    """Check that each wildcard has a reason.

    Raises:
        ConfigError: one has none; names the statement.
    """
    for statement in statements:
        wild = [text for text in (*statement.actions, *statement.resources) if _WILD.search(text)]
        if wild and not statement.reason:
            raise ConfigError("has a wildcard and no reason", field=statement.sid, value=wild[0])


def reasons(statements: Iterable[Statement]) -> str:
    """Return `Sid: reason` of each statement with a wildcard, for the description of the policy."""
    text = "; ".join(f"{one.sid}: {one.reason}" for one in statements if one.reason)
    return text if len(text) <= _DESCRIPTION else f"{text[: _DESCRIPTION - 3]}..."


def document(statements: Sequence[Statement]) -> str:
    """Return the policy as JSON text.

    Raises:
        ConfigError: a wildcard has no reason.
    """
    check(statements)
    return json.dumps({"Version": "2012-10-17", "Statement": [_plain(one) for one in statements]}, sort_keys=True)


def _plain(statement: Statement) -> dict[str, Any]:
    conditions = {operator: dict(keys) for operator, keys in statement.conditions.items()}
    return {
        "Sid": statement.sid,
        "Effect": "Allow",
        "Action": list(statement.actions),
        "Resource": list(statement.resources),
        **({"Condition": conditions} if conditions else {}),
    }


def assume_tasks(account: str) -> str:
    """Return the trust policy of a task's role: only ECS, on behalf of this account, can assume it."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "ecs-tasks.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": account}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]}, sort_keys=True)


def execution(repositories: Sequence[str], log_group: str, secrets: Sequence[str], key: str) -> list[Statement]:
    """Allow ECS to prepare a task: to pull its images, read its secrets and open its log."""
    found = [
        Statement(sid="Log", actions=["logs:CreateLogStream", "logs:PutLogEvents"], resources=[f"{log_group}:*"],
                  reason="the streams of a group, which bear the ids of tasks"),
    ]  # fmt: skip
    if repositories:
        found += [
            Statement(
                sid="Login",
                actions=["ecr:GetAuthorizationToken"],
                resources=["*"],
                reason="the action knows no resource; what may be pulled says the next statement",
            ),
            Statement(
                sid="Pull",
                actions=["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
                resources=list(repositories),
            ),
        ]
    if secrets:
        found += [
            Statement(sid="Secrets", actions=["secretsmanager:GetSecretValue"], resources=list(secrets)),
            *use_key(key, write=False),
        ]
    return found


def use_key(key: str, *, write: bool) -> list[Statement]:
    """Allow decryption with the stack's key, and encryption if `write`."""
    actions = ["kms:Decrypt", *(["kms:GenerateDataKey"] if write else [])]
    return [Statement(sid="Key" if write else "KeyRead", actions=actions, resources=[key])]


def task_files(bucket: str, name: str) -> list[Statement]:
    """Allow the task `name` to read its files."""
    return [Statement(sid="Files", actions=["s3:GetObject"], resources=[f"{bucket}/tasks/{name}/*"], reason=_FILES)]


_FILES = "each version of the files is an object of its own, named by its contents"
_PLACE = "a place in the bucket, whose objects are many"
_READ = ("s3:GetObject",)
_WRITE = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts")
_STORE_ACTIONS: Mapping[Use, tuple[str, ...]] = {
    "direct": _WRITE,
    "keep": _WRITE,
    "send": ("s3:PutObject", "s3:AbortMultipartUpload"),
    "fetch": _READ,
    "lost": (),
}


def store(bucket: str, name: str, use: Use) -> list[Statement]:
    """Allow the given use of one store in the bucket."""
    actions = _STORE_ACTIONS[use]
    if not actions:
        return []
    sid = "".join(part.title() for part in name.split("-"))
    found = [
        Statement(sid=f"Store{sid}", actions=list(actions), resources=[f"{bucket}/{place(name)}/*"], reason=_PLACE)
    ]
    if use != "send":
        conditions = {"StringLike": {"s3:prefix": [f"{place(name)}/*"]}}
        found.append(Statement(sid=f"List{sid}", actions=["s3:ListBucket"], resources=[bucket], conditions=conditions))
    return found


def table(arn: str, key: str) -> list[Statement]:
    """Allow use of a DynamoDB table as a key-value store, without creating or deleting tables."""
    actions = [
        *("dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:Query"),
        *("dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:UpdateItem"),
    ]
    # DynamoDB uses the key on behalf of its caller.
    through = {"StringLike": {"kms:ViaService": "dynamodb.*.amazonaws.com"}}
    return [
        Statement(sid="Table", actions=actions, resources=[arn]),
        Statement(
            sid="TableKey",
            actions=["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"],
            resources=[key],
            conditions=through,
        ),
    ]


def metrics_write(workspace: str) -> list[Statement]:
    """Allow writing metrics to the workspace."""
    return [Statement(sid="MetricsWrite", actions=["aps:RemoteWrite"], resources=[workspace])]


def metrics_query(workspace: str) -> list[Statement]:
    """Allow queries of the workspace."""
    actions = ["aps:QueryMetrics", "aps:GetSeries", "aps:GetLabels", "aps:GetMetricMetadata"]
    return [Statement(sid="MetricsQuery", actions=actions, resources=[workspace])]


def launching(
    *, cluster: str, families: Sequence[str], roles: Sequence[str], log_group: str, tasks: str
) -> list[Statement]:
    """Allow running and watching the stack's trainings as tasks, and no other tasks."""
    in_cluster = {"ArnEquals": {"ecs:cluster": cluster}}
    return [
        Statement(
            sid="Run",
            actions=["ecs:RunTask"],
            resources=[f"{family}:*" for family in families],
            conditions=in_cluster,
            reason="every revision of a training's task definition",
        ),
        Statement(
            sid="Watch",
            actions=["ecs:DescribeTasks", "ecs:StopTask"],
            resources=[tasks],
            conditions=in_cluster,
            reason="tasks are named by ids which are made when they start",
        ),
        Statement(
            sid="Find",
            actions=["ecs:ListTasks"],
            resources=["*"],
            conditions=in_cluster,
            reason="the action knows no resource but container instances, and Fargate has none",
        ),
        Statement(
            sid="Mark",
            actions=["ecs:TagResource"],
            resources=[tasks],
            conditions={"StringEquals": {"ecs:CreateAction": "RunTask"}},
            reason="tasks are named by ids which are made when they start",
        ),
        Statement(
            sid="Hand",
            actions=["iam:PassRole"],
            resources=list(roles),
            conditions={"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}},
        ),
        Statement(
            sid="Read",
            actions=["logs:GetLogEvents"],
            resources=[f"{log_group}:log-stream:*"],
            reason="the streams of a group, which bear the ids of tasks",
        ),
    ]
