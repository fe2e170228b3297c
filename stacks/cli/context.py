"""What every command needs first: the project, and the stack which is meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ...components.layout import find_project
from ...runtime.common.errors import NotFoundError, UserError
from ..loading import LoadedStack, load_stack, nearest, stack_names
from . import completion

__all__ = ["JsonOption", "ModelNameArgument", "StackOption", "YesOption", "load_chosen_stack", "chosen_stack_name", "require_model"]

StackOption = Annotated[
    str | None,
    typer.Option("--stack", "-s", help="The stack, TEAM-ENVIRONMENT. Default: TIDEMILL_STACK, or the only one.",
                 show_default=False, autocompletion=completion.stacks),
]  # fmt: skip
ModelNameArgument = Annotated[
    str, typer.Argument(help="The model, as the stack config names it.", autocompletion=completion.models)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def chosen_stack_name(project: Path, stack: str | None) -> str:
    """Return the stack which is meant.

    Raises:
        UserError: none is named and there is not exactly one.
    """
    name = stack or os.environ.get("TIDEMILL_STACK")
    if name:
        return name
    names = stack_names(project)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError("the project has no stack config", field="stack", hint="write one, see the README")
    raise UserError(
        "it is not clear which is meant", field="stack", hint=f"add `--stack` with one of {', '.join(names)}"
    )


def load_chosen_stack(stack: str | None) -> LoadedStack:
    """Return the config of the stack which is meant, checked."""
    project = find_project()
    return load_stack(project, chosen_stack_name(project, stack))


def require_model(loaded: LoadedStack, model: str) -> None:
    """Check that the stack has such a model.

    Raises:
        NotFoundError: it has not.
    """
    models = loaded.config.models
    if model not in models:
        close = nearest(model, models)
        hint = f"did you mean {close}?" if close else f"use one of {', '.join(models) or 'none: the config has none'}"
        raise NotFoundError("no such model", field="model", value=model, hint=hint)
