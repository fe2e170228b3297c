"""What a native resource is: plain Python, plain dictionaries, no engine in sight.

A kind of resource subclasses `NativeResource`, names its token and says how it is made, read, changed and deleted.
Its module exports `RESOURCES`, a list of instances; `lookup` finds them. The adapter does the rest: unknown values
during a preview, the marks on secrets, an unreachable server during a refresh, the guard before data is deleted.

    class Tag(NativeResource):
        token = "tidemill-native:lakefs:Tag"
        required = ("stack", "url", "name")
        replace_on = ("name",)

        def create(self, context, inputs): ...
        def read(self, context, state): ...
        def delete(self, context, state): ...
"""

from __future__ import annotations

import importlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

from ...runtime.common.errors import ConfigError, NotFoundError, RefusedError

__all__ = [
    "DELETE_DATA",
    "FAILURE_CODE",
    "PACKAGE",
    "RECREATE",
    "UNKNOWN",
    "Context",
    "Diff",
    "NativeResource",
    "Properties",
    "deleting_data",
    "lookup",
]

PACKAGE: Final = "tidemill-native"
"""The package's name; not `tidemill`, whose config the engine would copy into our inputs."""

Properties = dict[str, Any]
"""Inputs or state of a resource: JSON-like values, and `UNKNOWN` during a preview. Whole numbers are ints."""

DELETE_DATA: Final = "TIDEMILL_DELETE_DATA"
"""Environment variable which names the stack whose data may be deleted."""

RECREATE: Final = "TIDEMILL_RECREATE"
"""Environment variable with the names, separated by commas, of data resources which may be made again, empty."""

FAILURE_CODE: Final = "failed: exit code "
"""What precedes the exit code in the message which the adapter sends with each failure."""

_MODULES = {
    "local": ".local",
    "docker": ".docker",
    "aws": ".aws",
    "lakefs": ".content.lakefs",
    "mlflow": ".content.mlflow",
}


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""Stands for a value which is not known before the resource it comes from was made."""


@dataclass(frozen=True)
class Context:
    """What a call of the engine is about.

    Attributes:
        urn: the engine's name of the resource.
        warn: shows a warning beside the resource.
        say: shows a line of progress beside the resource.
        cancelled: set when the engine asks to stop; long waits should watch it.
        timeout: seconds the user allows for this operation, or 0 for the resource's own default.
    """

    urn: str
    warn: Callable[[str], None]
    say: Callable[[str], None] = lambda _: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    timeout: float = 0.0

    @property
    def name(self) -> str:
        """The resource's name in the program."""
        return self.urn.rsplit("::", 1)[-1]


@dataclass(frozen=True)
class Diff:
    """How wanted inputs differ from the state.

    Attributes:
        changes: names of the properties which differ; empty means nothing to do.
        replaces: those of them which only a new resource can have.
    """

    changes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()


class NativeResource(ABC):
    """One kind of resource.

    Attributes:
        token: its type token.
        required: inputs which must be there and not empty.
        optional: further inputs; any other is refused.
        outputs: state beside the inputs, unknown in a preview of a creation.
        secret_outputs: outputs which always leave marked as secret. Inputs which came marked leave marked anyway.
        replace_on: inputs whose change needs a new resource.
        delete_before_replace: whether the old one goes first, because names are deterministic and both cannot stand
            side by side.
        label: the input which names the resource to the user.
        holds_data: it is never silently made again, and deleted only with the user's word (`DELETE_DATA`). Its `read`
            returns the state with `missing: True` where the thing is gone, and `create` makes it again where allowed.
    """

    token: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ("stack", "name")
    optional: ClassVar[tuple[str, ...]] = ()
    outputs: ClassVar[tuple[str, ...]] = ()
    secret_outputs: ClassVar[frozenset[str]] = frozenset()
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name")
    delete_before_replace: ClassVar[bool] = True
    label: ClassVar[str] = "name"
    holds_data: ClassVar[bool] = False

    def check(self, inputs: Properties) -> Properties:
        """Return the inputs with defaults filled in; values may be `UNKNOWN`.

        Raises:
            ConfigError: an input is missing, empty or not known to this kind.
        """
        for key in self.required:
            if inputs.get(key) in (None, ""):
                raise ConfigError("is missing", field=key)
        for key in inputs:
            if key not in self.required and key not in self.optional:
                raise ConfigError("is no input of this resource", field=key)
        return inputs

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare `inputs` with `state`.

        Raises:
            RefusedError: what holds data is gone, and the user did not say that it may be made again.
        """
        del context
        changes = tuple(
            key for key in (*self.required, *self.optional) if (inputs.get(key) or None) != (state.get(key) or None)
        )
        if state.get("missing") and not deleting_data(str(state.get("stack"))):
            self._refuse_to_recreate(str(state.get(self.label)))
            changes += ("missing",)
        return Diff(changes, tuple(key for key in changes if key in self.replace_on))

    @abstractmethod
    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Make it, or adopt what an interrupted creation of the same stack left; return its id and its state.

        It must clean up after itself when it fails, and refuse what another stack owns.
        """

    @abstractmethod
    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state as it really is, or None where it is gone and holds no data.

        Raises:
            UnreachableError: the server does not answer; the adapter then keeps the state and warns.
        """

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Change it in place and return its new state; by default only fixes what is missing."""
        del state
        return self.create(context, inputs)[1]

    @abstractmethod
    def delete(self, context: Context, state: Properties) -> None:
        """Delete it; what is gone already is no error."""

    def guard_delete(self, state: Properties) -> None:
        """Refuse to delete data without the user's word.

        Raises:
            RefusedError: it holds data, and `DELETE_DATA` does not name its stack.
        """
        stack = str(state.get("stack"))
        if self.holds_data and not state.get("missing") and not deleting_data(stack):
            raise RefusedError(
                "holds data and is not deleted",
                field=str(state.get(self.label)),
                hint="`tidemill stop` ends every service and keeps everything, "
                "`tidemill destroy --delete-data` deletes everything; in a program of your own this does "
                f"`pulumi destroy` with {DELETE_DATA}={stack}",
            )

    def _refuse_to_recreate(self, name: str) -> None:
        if name not in os.environ.get(RECREATE, "").split(","):
            raise RefusedError(
                "is gone", field=name, hint=f"restore it, or run `tidemill up --recreate {name}` to start empty"
            )


def deleting_data(stack: str) -> bool:
    """Tell whether the user asked to delete all data of `stack`; a server which is gone is then no error."""
    return bool(stack) and os.environ.get(DELETE_DATA) == stack


def lookup(token: str) -> NativeResource:
    """Return the kind of resource `token` names; its module is imported when it is first asked for.

    Raises:
        NotFoundError: there is none.
    """
    parts = token.split(":")
    module = _MODULES.get(parts[1]) if len(parts) == 3 and parts[0] == PACKAGE else None
    if module is not None:
        for resource in importlib.import_module(module, __package__).RESOURCES:
            if resource.token == token:
                return resource
    raise NotFoundError("no such kind of resource", field="type", value=token)
