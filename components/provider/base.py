"""The base class of the provider's resources: plain Python on plain dictionaries, without the engine.

A kind of resource subclasses `NativeResource`, names its type token and its inputs, and creates, reads, changes and
deletes it. Its module exports `RESOURCES`, a list of instances, in which `lookup` finds it. The adapter does the rest:
unknown values during a preview, marks on secrets, unreachable servers during a refresh, the guard before data is
deleted. `resources` adds the class that a program uses.

    class TagInputs(LakeInputs):
        commit: Text

    class Tag(NativeResource, inputs=TagInputs):
        token = "tidemill-native:lakefs:Tag"
        replace_on = ("name",)

        def create(self, context, inputs): ...
        def read(self, context, state): ...
        def delete(self, context, state): ...
"""

from __future__ import annotations

import importlib
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, NotRequired, TypedDict

from ...runtime.common.errors import ConfigError, NotFoundError, RefusedError

if TYPE_CHECKING:
    import pulumi

    Text = pulumi.Input[str]

PACKAGE: Final = "tidemill-native"
"""The package's name; not `tidemill`, because the engine would copy tidemill's config into the provider's inputs."""

Properties = dict[str, Any]
"""Inputs or state of a resource: JSON-like values, and `UNKNOWN` during a preview. Whole numbers are ints."""

DELETE_DATA: Final = "TIDEMILL_DELETE_DATA"
"""Environment variable with the name of the stack whose data may be deleted."""

RECREATE: Final = "TIDEMILL_RECREATE"
"""Environment variable with the names, separated by commas, of lost data resources that may be recreated empty."""

FAILURE_CODE: Final = "failed: exit code "
"""Prefix of the exit code in the message that the adapter sends with each failure."""

_MODULES = {
    "local": ".local",
    "docker": ".docker",
    "aws": ".aws",
    "lakefs": ".content.lakefs",
    "mlflow": ".content.mlflow",
}
_IMPORT = threading.Lock()


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""Placeholder for a value that is unknown until another resource is created."""


class Named(TypedDict):
    """Inputs of a resource with a `name`, which defaults to the resource's name in the program."""

    name: NotRequired[Text]


@dataclass(frozen=True)
class Context:
    """One call of the engine.

    Attributes:
        urn: the engine's name of the resource.
        warn: shows a warning next to the resource.
        say: shows a line of progress next to the resource.
        cancelled: set when the engine is asked to stop; long waits must watch it.
        timeout: seconds that the user allows for this operation; 0 means the resource's own default.
    """

    urn: str
    warn: Callable[[str], None]
    say: Callable[[str], None] = lambda _: None
    cancelled: threading.Event = field(default_factory=threading.Event)
    timeout: float = 0.0


@dataclass(frozen=True)
class Diff:
    """The difference between wanted inputs and the state.

    Attributes:
        changes: names of the properties that differ; empty when there is nothing to do.
        replaces: those changes that require a new resource.
    """

    changes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()

    def adding(self, change: str) -> Diff:
        """Return this difference with one more change, made in place."""
        return Diff((*self.changes, change), self.replaces)


class NativeResource(ABC):
    """One kind of resource; `inputs=` in the class statement is the TypedDict of its inputs.

    Attributes:
        token: its type token.
        required: inputs that must be present and not empty; from the TypedDict, together with `name`.
        optional: other inputs, from the TypedDict; any other name is refused.
        defaults: values of optional inputs that are left out.
        outputs: further properties of the state, unknown in the preview of a creation.
        secret_inputs: inputs that the program always marks as secret.
        secret_outputs: outputs that are always marked as secret. Inputs marked as secret stay so in the state.
        replace_on: inputs whose change requires a new resource.
        delete_before_replace: whether to delete the old resource first, because both would have the same name.
        label: the input that names the resource to the user.
        holds_data: never recreate it silently, and delete it only on request (`DELETE_DATA`). Its `read` returns the
            state with `missing: True` when the data is gone, and `create` recreates it where that is allowed.
    """

    token: ClassVar[str]
    required: ClassVar[tuple[str, ...]] = ("stack", "name")
    optional: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[Mapping[str, Any]] = {}
    outputs: ClassVar[tuple[str, ...]] = ()
    secret_inputs: ClassVar[frozenset[str]] = frozenset()
    secret_outputs: ClassVar[frozenset[str]] = frozenset()
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name")
    delete_before_replace: ClassVar[bool] = True
    label: ClassVar[str] = "name"
    holds_data: ClassVar[bool] = False

    def __init_subclass__(cls, inputs: Any = None) -> None:
        super().__init_subclass__()
        if inputs is not None:
            # Postponed annotations are texts, in which Python itself does not see `NotRequired`.
            left_out = {key for key, kind in inputs.__annotations__.items() if "NotRequired[" in kind.__forward_arg__}
            keys = {key: camel_case(key) for key in inputs.__annotations__}
            cls.optional = tuple(name for key, name in keys.items() if key in left_out - {"name"})
            cls.required = tuple(name for name in keys.values() if name not in cls.optional)

    def check(self, inputs: Properties) -> Properties:
        """Return the inputs with defaults filled in; values may be `UNKNOWN`.

        Raises:
            ConfigError: an input is missing, empty or unknown to this kind.
        """
        for key in self.required:
            if inputs.get(key) in (None, ""):
                raise ConfigError("is missing", field=key)
        for key in inputs:
            if key not in self.required and key not in self.optional:
                raise ConfigError("is not an input of this resource", field=key)
        return {**self.defaults, **inputs}

    def diff(self, context: Context, state: Properties, inputs: Properties) -> Diff:
        """Compare `inputs` with `state`.

        Raises:
            RefusedError: a resource that holds data is gone, and the user did not ask to recreate it.
        """
        changes = tuple(
            key for key in (*self.required, *self.optional) if (inputs.get(key) or None) != (state.get(key) or None)
        )
        if state.get("missing") and not deleting_data(str(state.get("stack"))):
            self._refuse_to_recreate(str(state.get(self.label)))
            changes += ("missing",)
        return Diff(changes, tuple(key for key in changes if key in self.replace_on))

    @abstractmethod
    def create(self, context: Context, inputs: Properties) -> tuple[str, Properties]:
        """Create the resource, or adopt what an interrupted creation of the same stack left; return id and state.

        An implementation cleans up when it fails, and refuses what another stack owns.
        """

    @abstractmethod
    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the actual state, or None when the resource is gone and held no data.

        Raises:
            UnreachableError: the server does not answer; the adapter then keeps the state and warns.
        """

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Change the resource in place and return its new state; by default create what is missing."""
        return self.create(context, inputs)[1]

    @abstractmethod
    def delete(self, context: Context, state: Properties) -> None:
        """Delete the resource; do nothing when it is already gone."""

    def guard_delete(self, state: Properties) -> None:
        """Refuse to delete data unless the user asked for it.

        Raises:
            RefusedError: the resource holds data, and `DELETE_DATA` does not name its stack.
        """
        stack = str(state.get("stack"))
        if self.holds_data and not state.get("missing") and not deleting_data(stack):
            raise RefusedError(
                "holds data and is not deleted",
                field=str(state.get(self.label)),
                hint="`tidemill stop` stops all services and keeps everything, "
                "`tidemill destroy --delete-data` deletes everything; in a program of your own, run "
                f"`pulumi destroy` with {DELETE_DATA}={stack}",
            )

    def _refuse_to_recreate(self, name: str) -> None:
        if name not in os.environ.get(RECREATE, "").split(","):
            raise RefusedError(
                "is gone", field=name, hint=f"restore it, or run `tidemill up --recreate {name}` to start empty"
            )


def camel_case(name: str) -> str:
    """Return the engine's form of a Python name.

    >>> camel_case("open_files")
    'openFiles'
    """
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


def without(state: Properties, *keys: str) -> Properties:
    """Return a copy of `state` that lacks `keys`."""
    return {key: value for key, value in state.items() if key not in keys}


def deleting_data(stack: str) -> bool:
    """Return whether the user asked to delete all data of `stack`; a missing server is then not an error."""
    return bool(stack) and os.environ.get(DELETE_DATA) == stack


def lookup(token: str) -> NativeResource:
    """Return the kind of resource for a type token, importing its module on first use.

    Raises:
        NotFoundError: there is no such kind.
    """
    parts = token.split(":")
    module = _MODULES.get(parts[1]) if len(parts) == 3 and parts[0] == PACKAGE else None
    if module is not None:
        # The engine's calls come in threads. Two threads must not import packages that import one another's modules.
        with _IMPORT:
            resources = importlib.import_module(module, __package__).RESOURCES
        for resource in resources:
            if resource.token == token:
                return resource
    raise NotFoundError("no such kind of resource", field="type", value=token)
