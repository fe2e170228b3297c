"""Job on AWS: an ECS task in the stack's network that runs once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NotRequired

from ..base import Context, Named, Properties
from ..job import RunOnce, time_limit
from .task import Task, TaskInputs, digest_of

if TYPE_CHECKING:
    import pulumi

    from ..base import Text


class JobInputs(TaskInputs, Named):
    """Inputs of a job; it runs again when `triggers` change. `timeout` is in seconds."""

    timeout: NotRequired[pulumi.Input[float] | None]
    triggers: NotRequired[Mapping[str, Text] | None]


class Job(RunOnce, inputs=JobInputs):
    """A task that runs once; only changed triggers make it run again."""

    token: ClassVar[str] = "tidemill-native:aws:Job"
    outputs: ClassVar[tuple[str, ...]] = ("exitCode", "task", "log")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Run the task, or wait for the run of an interrupted creation."""
        name = str(inputs["name"])
        digest = digest_of(inputs["stack"], name, inputs.get("triggers") or {})
        context.say("runs in the stack's network")
        ended = Task(name, inputs, digest).run(context, time_limit(inputs))
        return name, {**inputs, "exitCode": 0, "task": ended.task, "log": ended.stream}

    def delete(self, context: Context, state: Properties) -> None:
        """Do nothing: the task has ended, and its log stays."""
