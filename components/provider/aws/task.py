"""An ECS task that runs once, to its end, and survives a killed engine."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from ....runtime.common.errors import ConfigError, ServiceError
from ..base import Context, Properties
from ..job import failed, interrupted
from .client import connect, error_code, talking

if TYPE_CHECKING:
    import pulumi

    from ..base import Text

CONTAINER = "main"
"""The container that does the work; those before it prepare it."""

EVERY = 2.0
"""Seconds between two polls of a task."""

_TAIL = 20
_OVERRIDES = 8192  # bytes that ECS accepts as overrides of one task
_SECRET = re.compile(r"[^A-Za-z0-9_-]")


class TaskInputs(TypedDict):
    """Where and how a task runs; a change alone does not run it again."""

    stack: Text
    region: Text
    cluster: Text
    definition: Text
    subnets: pulumi.Input[Sequence[Text]]
    security_groups: pulumi.Input[Sequence[Text]]
    log_group: Text


def digest_of(*parts: Any) -> str:
    """Return a hash that identifies a run among those of the same name."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Ended:
    """An ended task.

    Attributes:
        task: its ARN.
        code: exit code of its main container; None if that never ran.
        why: ECS's reason for the end.
        stream: the log stream of the main container.
    """

    task: str
    code: int | None
    why: str
    stream: str


@dataclass
class Task:
    """One run of a task.

    Attributes:
        name: its name in messages.
        inputs: the `TaskInputs`.
        digest: see `digest_of`.
        env: environment of the main container, added to that of the task definition.
    """

    name: str
    inputs: Properties
    digest: str
    env: Mapping[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        region = str(self.inputs["region"])
        self._ecs: Any = connect("ecs", region)
        self._logs: Any = connect("logs", region)

    def run(self, context: Context, timeout: float) -> Ended:
        """Run the task to its end, or wait for the run of an interrupted creation.

        Raises:
            ServiceError: the task failed, did not start, or reached its time limit.
            PlatformError: the user interrupted; the task is stopped.
        """
        with talking(self.name):
            task = self._existing() or self._start()
            ended = self._wait(context, task, timeout)
        if ended.code == 0:
            return ended
        hint = f"read the stream {ended.stream} of the log group {self.inputs['logGroup']}"
        if ended.code is None:
            raise ServiceError(f"did not run ({ended.why})", field=self.name, log_tail=self.tail(ended), hint=hint)
        raise failed(self.name, ended.code, None, self.tail(ended), hint)

    def tail(self, ended: Ended) -> str:
        """Return the last lines of its log; empty if there are none."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = self._logs.get_log_events(
                logGroupName=self.inputs["logGroup"], logStreamName=ended.stream, limit=_TAIL, startFromHead=False
            )
        except (BotoCoreError, ClientError):
            return ""
        return "\n".join(str(event["message"]) for event in found["events"])

    @property
    def _mark(self) -> str:
        return f"{_SECRET.sub('-', self.name)[:60]}-{self.digest[:32]}"

    def _existing(self) -> str | None:
        """Return the task of this run that still runs or succeeded, or None."""
        cluster = self.inputs["cluster"]
        for state in ("RUNNING", "STOPPED"):
            found = self._ecs.list_tasks(cluster=cluster, startedBy=self._mark, desiredStatus=state)["taskArns"]
            for task in self._ecs.describe_tasks(cluster=cluster, tasks=found)["tasks"] if found else ():
                if task["lastStatus"] != "STOPPED" or _code(task) == 0:
                    return str(task["taskArn"])
        return None

    def _start(self) -> str:
        overrides = {
            "containerOverrides": [
                {
                    "name": CONTAINER,
                    "environment": [{"name": name, "value": value} for name, value in sorted(self.env.items())],
                }
            ]
        }
        if len(json.dumps(overrides)) > _OVERRIDES:
            raise ConfigError(f"is larger than the {_OVERRIDES} bytes that ECS accepts", field=self.name)
        inputs = self.inputs
        try:
            answer = self._ecs.run_task(
                cluster=inputs["cluster"],
                taskDefinition=inputs["definition"],
                launchType="FARGATE",
                count=1,
                startedBy=self._mark,
                networkConfiguration={
                    "awsvpcConfiguration": {
                        "subnets": list(_texts(inputs["subnets"])),
                        "securityGroups": list(_texts(inputs["securityGroups"])),
                        "assignPublicIp": "DISABLED",
                    }
                },
                overrides=overrides if self.env else {},
                propagateTags="TASK_DEFINITION",
            )
        except self._ecs.exceptions.ClientException as error:
            raise ServiceError(f"cannot be started ({error_code(error)}: {error})", field=self.name) from None
        if not answer["tasks"]:
            failure = (answer.get("failures") or [{}])[0]
            raise ServiceError(f"cannot be started ({failure.get('reason', 'ECS gives no reason')})", field=self.name)
        return str(answer["tasks"][0]["taskArn"])

    def _wait(self, context: Context, task: str, timeout: float) -> Ended:
        cluster = self.inputs["cluster"]
        until = time.monotonic() + timeout
        while True:
            found = self._ecs.describe_tasks(cluster=cluster, tasks=[task])["tasks"]
            if not found:
                raise ServiceError("ECS no longer knows its task", field=self.name, value=task)
            if found[0]["lastStatus"] == "STOPPED":
                return _ended(found[0])
            if context.cancelled.is_set():
                self._ecs.stop_task(cluster=cluster, task=task, reason="interrupted")
                raise interrupted(self.name)
            if time.monotonic() > until:
                self._ecs.stop_task(cluster=cluster, task=task, reason="time limit")
                raise failed(self.name, None, timeout)
            context.cancelled.wait(EVERY)


def _texts(value: Any) -> Sequence[str]:
    return [str(item) for item in value]


def _code(task: Mapping[str, Any]) -> int | None:
    for container in task.get("containers", ()):
        if container.get("name") == CONTAINER and container.get("exitCode") is not None:
            return int(container["exitCode"])
    return None


def _ended(task: Mapping[str, Any]) -> Ended:
    reasons = [str(task.get("stoppedReason") or "")]
    reasons += [f"{one['name']}: {one['reason']}" for one in task.get("containers", ()) if one.get("reason")]
    reasons += [
        f"{one['name']} ended with {one['exitCode']}"
        for one in task.get("containers", ())
        if one.get("name") != CONTAINER and one.get("exitCode")
    ]
    arn = str(task["taskArn"])
    stream = f"{CONTAINER}/{CONTAINER}/{arn.rsplit('/', 1)[-1]}"
    return Ended(arn, _code(task), "; ".join(filter(None, reasons)) or "ECS gives no reason", stream)
