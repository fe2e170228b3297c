"""The base class of content resources: objects inside a server, which may be down or have other credentials."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ....runtime.common.errors import NotFoundError, PlatformError, RefusedError, UnreachableError
from ..base import Context, NativeResource, Properties, deleting_data
from .rest import Rest

OWNER = "tidemill.stack"
"""Metadata key or tag with the stack that created an object."""


class ContentResource(NativeResource):
    """An object inside a server of the stack.

    A subclass implements `connect`, `look` and `remove` instead of `read` and `delete`.

    Attributes:
        access: the inputs that say how to reach the server; a change of them does not change the object.
    """

    access: ClassVar[tuple[str, ...]]

    @abstractmethod
    def connect(self, properties: Properties) -> Rest:
        """Return a connection to the server.

        Raises:
            NotFoundError: a file with credentials is missing.
            ConfigError: it is empty.
        """

    @abstractmethod
    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the actual state, or None when the object is gone and held no data."""

    @abstractmethod
    def remove(self, rest: Rest, state: Properties) -> None:
        """Delete the object; do nothing when it is already gone."""

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the actual state; keep the state when the server refuses access."""
        try:
            return self.look(self.connect(state), state)
        except UnreachableError:
            raise
        except (NotFoundError, PlatformError) as error:
            context.warn(f"{state.get(self.label)} could not be checked and is assumed unchanged: {error}")
            return state

    def delete(self, context: Context, state: Properties) -> None:
        """Delete the object; ignore a failing server when all data of the stack is deleted."""
        try:
            self.remove(self.connect(state), state)
        except (NotFoundError, PlatformError) as error:
            if not deleting_data(str(state.get("stack"))):
                raise
            context.warn(f"{state.get(self.label)} goes with its server's data; the server did not delete it: {error}")


def foreign(kind: str, name: str, owner: str | None) -> RefusedError:
    """Return the error for an existing object that the stack does not own."""
    if owner:
        return RefusedError(
            f"this {kind} belongs to another stack", field=name, value=owner, hint="choose another name for yours"
        )
    return RefusedError(
        f"a {kind} of this name already exists, and no stack created it",
        field=name,
        hint="choose another name, or rename or delete the existing one",
    )
