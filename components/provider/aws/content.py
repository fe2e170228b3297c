"""Content on AWS: what lives inside a server which nobody outside the stack's network reaches.

A task within the network does it, with the very resource that does it elsewhere (`components.provider.apply`).
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from ..base import UNKNOWN, Context, Diff, NativeResource, Properties, deleting_data, lookup
from ..content.base import ContentResource
from .task import ACCESS, Task, digest_of

__all__ = ["VARIABLE", "Content"]

VARIABLE = "TIDEMILL_CONTENT"
"""Environment variable with what the task is to do, as JSON."""

_TIMEOUT = 600.0


class Content(NativeResource):
    """A resource of the kind `kind` within a server of the stack, with the inputs `properties`.

    It cannot be looked at from here: what somebody changes inside the server is fixed when an input changes.
    """

    token: ClassVar[str] = "tidemill-native:aws:Content"
    required: ClassVar[tuple[str, ...]] = ("stack", "name", *ACCESS, "kind", "properties")
    outputs: ClassVar[tuple[str, ...]] = ("task",)
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "kind")

    def check(self, inputs: Properties) -> Properties:
        """Check the properties as the kind itself does."""
        checked = super().check(inputs)
        if checked["kind"] is not UNKNOWN and checked["properties"] is not UNKNOWN:
            checked["properties"] = _kind(checked).check(checked["properties"])
        return checked

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare; the kind says which of its properties need a new one."""
        found = super().diff(context, state, inputs)
        if "properties" not in found.changes or found.replaces:
            return found
        old: Properties = state["properties"]
        new: Properties = inputs["properties"]
        changed = {key for key in {*old, *new} if (old.get(key) or None) != (new.get(key) or None)}
        return Diff(found.changes, ("properties",) if changed & set(_kind(inputs).replace_on) else ())

    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Have a task make it, or adopt what is the stack's already."""
        return str(inputs["name"]), {**inputs, "task": self._do(context, "create", inputs)}

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Take it for unchanged."""
        del context
        return state

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Have a task change it; how tasks run may change without one."""
        old, new = _own(state), _own(inputs)
        task = state.get("task") if old == new else self._do(context, "update", inputs)
        return {**inputs, "task": task}

    def delete(self, context: Context, state: Properties) -> None:
        """Have a task delete it; with all data of the stack it goes by itself."""
        if deleting_data(str(state.get("stack"))):
            return
        self._do(context, "delete", state)

    def guard_delete(self, state: Properties) -> None:
        """Refuse to delete data, as the kind itself does."""
        _kind(state).guard_delete({**state["properties"], "stack": state.get("stack")})

    def _do(self, context: Context, action: str, inputs: Properties) -> str:
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
    """Return the properties of the thing itself, without how its server is reached."""
    kind = _kind(inputs)
    access = kind.access if isinstance(kind, ContentResource) else ()
    return {key: value for key, value in inputs["properties"].items() if key not in access}
