"""The targets.

To add one, create the folder `components/targets/NAME/` with a module `spec.py` that defines `SPEC` (see `TargetSpec`),
and add NAME to `_FOLDERS`. docs/kubernetes.md goes through it. Imports no Pulumi.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from pydantic import Field, create_model

from ...runtime.common.settings import Settings
from .spec import TargetSpec

_FOLDERS = (
    "local",
    "docker",
    "aws",
)

TARGETS: dict[str, TargetSpec] = {
    name: cast("TargetSpec", importlib.import_module(f".{name}.spec", __package__).SPEC) for name in _FOLDERS
}
"""Name -> target, the default one first."""

DEFAULT_TARGET = _FOLDERS[0]

if TYPE_CHECKING:
    TargetName = str
else:
    TargetName = Literal[_FOLDERS]

_Model = TypeVar("_Model", bound=Settings)


def names_where(attribute: str) -> str:
    """Return the names of the targets whose spec has `attribute`, as a list for people.

    >>> names_where("source")
    'local and docker'
    """
    *most, last = [name for name, spec in TARGETS.items() if getattr(spec, attribute)]
    return f"{', '.join(most)} and {last}" if most else last


def with_blocks(base: type[_Model]) -> type[_Model]:
    """Return `base` with a field for the block of each target, in which the defaults stand."""
    fields: dict[str, Any] = {
        name: (spec.block, Field(default=spec.block(), description=f"How it runs on the target {name}."))
        for name, spec in TARGETS.items()
        if spec.block
    }
    return create_model(base.__name__, __base__=base, __module__=base.__module__, **fields)


def with_optional_blocks(base: type[_Model]) -> type[_Model]:
    """Return `base` with a field, by default None, for the block of each target that `tidemill init` asks about."""
    fields: dict[str, Any] = {
        name: (
            spec.block | None,
            Field(
                default=None,
                description=f"The block `{name}` which all stacks share, for the target {name}; each answers at "
                "ENVIRONMENT.DOMAIN.",
            ),
        )
        for name, spec in TARGETS.items()
        if spec.block and spec.questions
    }
    return create_model(base.__name__, __base__=base, __module__=base.__module__, **fields)
