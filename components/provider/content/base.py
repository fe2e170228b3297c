"""What the content resources have in common: they live inside a server, which may be down or know others' secrets."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ....runtime.common.errors import NotFoundError, PlatformError, RefusedError, UnreachableError
from ..base import Context, NativeResource, Properties, deleting_data
from .rest import Rest

__all__ = ["OWNER", "ContentResource", "foreign"]

OWNER = "tidemill.stack"
"""Metadata key or tag by which a stack marks what it made."""


class ContentResource(NativeResource):
    """Something inside a server of the stack.

    A subclass implements `connect`, `look` and `remove` in place of `read` and `delete`.

    Attributes:
        access: the inputs which say how the server is reached; they may change without a change of the thing itself.
    """

    access: ClassVar[tuple[str, ...]]

    @abstractmethod
    def connect(self, properties: Properties) -> Rest:
        """Return a connection to the server.

        Raises:
            NotFoundError, ConfigError: a file with credentials is missing or empty.
        """

    @abstractmethod
    def look(self, rest: Rest, state: Properties) -> Properties | None:
        """Return the state as it really is, or None where it is gone and holds no data."""

    @abstractmethod
    def remove(self, rest: Rest, state: Properties) -> None:
        """Delete it; what is gone already is no error."""

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state as it really is; a server which does not let us look has not lost anything."""
        try:
            return self.look(self.connect(state), state)
        except UnreachableError:
            raise
        except (NotFoundError, PlatformError) as error:
            context.warn(f"{state.get(self.label)} could not be looked at and is taken for unchanged: {error}")
            return state

    def delete(self, context: Context, state: Properties) -> None:
        """Delete it; with all data of the stack it goes even where its server does not answer any more."""
        try:
            self.remove(self.connect(state), state)
        except (NotFoundError, PlatformError) as error:
            if not deleting_data(str(state.get("stack"))):
                raise
            context.warn(f"{state.get(self.label)} goes with its server's data, which could not be asked: {error}")


def foreign(kind: str, name: str, owner: str | None) -> RefusedError:
    """Return the error for something which already exists and is not the stack's."""
    if owner:
        return RefusedError(
            f"this {kind} belongs to another stack", field=name, value=owner, hint="choose another name for yours"
        )
    return RefusedError(
        f"there already is a {kind} of this name, and no stack made it",
        field=name,
        hint="choose another name, or rename or delete that one",
    )
