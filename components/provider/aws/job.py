"""Job on AWS: a task of ECS within the stack's network, which runs once."""

from __future__ import annotations

from typing import ClassVar

from ..base import Context, NativeResource, Properties
from .task import ACCESS, Task, digest_of

__all__ = ["Job"]

_TIMEOUT = 1800.0


class Job(NativeResource):
    """A task which ran once; only changed triggers make it run again."""

    token: ClassVar[str] = "tidemill-native:aws:Job"
    required: ClassVar[tuple[str, ...]] = ("stack", "name", *ACCESS)
    optional: ClassVar[tuple[str, ...]] = ("timeout", "triggers")
    outputs: ClassVar[tuple[str, ...]] = ("exitCode", "task", "log")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "triggers")

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Run it, or wait for the run which an interrupted creation left."""
        name = str(inputs["name"])
        digest = digest_of(inputs["stack"], name, inputs.get("triggers") or {})
        context.say("runs in the network of the stack")
        ended = Task(name, inputs, digest).run(context, float(inputs.get("timeout") or _TIMEOUT))
        return name, {**inputs, "exitCode": 0, "task": ended.task, "log": ended.stream}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """A run is over; nothing of it can change."""
        del context
        return state

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Take note of other settings."""
        del context
        return {**inputs, **{key: state.get(key) for key in self.outputs}}

    def delete(self, context: Context, state: Properties) -> None:
        """Do nothing: it has run; its log stays."""
