"""Content on AWS: objects inside a server that only the stack's network reaches.

A task in the network changes them with the same resource as on other targets (`components.provider.apply`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from ..base import UNKNOWN, Context, Diff, Named, NativeResource, Properties, deleting_data, lookup
from ..content.base import ContentResource
from .task import Task, TaskInputs, digest_of

VARIABLE = "TIDEMILL_CONTENT"
"""Environment variable with the task's order, as JSON."""

_TIMEOUT = 600.0


class ContentInputs(TaskInputs, Named):
    """Inputs of content: the type token of a content resource, and its own inputs."""

    kind: str
    properties: Mapping[str, Any]


class Content(NativeResource, inputs=ContentInputs):
    """A resource of the kind `kind` in a server of the stack, with the inputs `properties`.

    This machine cannot read it: what others change in the server is repaired only when an input changes.
    """

    token: ClassVar[str] = "tidemill-native:aws:Content"
    outputs: ClassVar[tuple[str, ...]] = ("task",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "kind")

    def check(self, inputs: Properties) -> Properties:
        """Check the properties with their own kind."""
        checked = super().check(inputs)
        if checked["kind"] is not UNKNOWN and checked["properties"] is not UNKNOWN:
            checked["properties"] = _kind(checked).check(checked["properties"])
        return checked

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; the kind decides which of its properties require a new resource."""
        found = super().diff(context, state, inputs)
        if "properties" not in found.changes or found.replaces:
            return found
        old: Properties = state["properties"]
        new: Properties = inputs["properties"]
        changed = {key for key in {*old, *new} if (old.get(key) or None) != (new.get(key) or None)}
        return Diff(found.changes, ("properties",) if changed & set(_kind(inputs).replace_on) else ())

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Run a task that creates the content, or adopts what the stack already owns."""
        return str(inputs["name"]), {**inputs, "task": self._run(context, "create", inputs)}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the stored state unchanged, because the content cannot be read from this machine."""
        return state

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Run a task that changes the content, unless only the way to run tasks has changed."""
        old, new = _own(state), _own(inputs)
        task = state.get("task") if old == new else self._run(context, "update", inputs)
        return {**inputs, "task": task}

    def delete(self, context: Context, state: Properties) -> None:
        """Run a task that deletes the content, unless all data of the stack is deleted anyway."""
        if deleting_data(str(state.get("stack"))):
            return
        self._run(context, "delete", state)

    def guard_delete(self, state: Properties) -> None:
        """Refuse to delete data, like the kind itself."""
        _kind(state).guard_delete({**state["properties"], "stack": state.get("stack")})

    def _run(self, context: Context, action: str, inputs: Properties) -> str:
        name = str(inputs["name"])
        wanted = {"action": action, "kind": inputs["kind"], "properties": inputs["properties"]}
        task = Task(
            name,
            inputs,
            digest_of(inputs["stack"], name, wanted),
            env={VARIABLE: json.dumps(wanted, sort_keys=True, separators=(",", ":"))},
        )
        return task.run(context, context.timeout or _TIMEOUT).task


def _kind(inputs: Properties) -> NativeResource:
    return lookup(str(inputs["kind"]))


def _own(inputs: Properties) -> dict[str, Any]:
    """Return the properties of the content itself, without those that only say how to reach its server."""
    kind = _kind(inputs)
    access = kind.access if isinstance(kind, ContentResource) else ()
    return {key: value for key, value in inputs["properties"].items() if key not in access}
