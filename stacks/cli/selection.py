"""Selects the project, stack, model or service that a command works on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ...components.layout import find_project
from ...runtime.common.errors import NotFoundError, UserError
from ..loading import LoadedStack, load_stack, nearest, stack_names


def chosen_stack_name(project: Path, stack: str | None) -> str:
    """Return `stack`, or else TIDEMILL_STACK, or else the only stack of `project`.

    Raises:
        UserError: no stack is named, and the project does not have exactly one.
    """
    name = stack or os.environ.get("TIDEMILL_STACK")
    if name:
        return name
    names = stack_names(project)
    if len(names) == 1:
        return names[0]
    if not names:
        raise UserError("the project has no stack config", field="stack", hint="write one, see the README")
    raise UserError("the project has several stacks", field="stack", hint=f"add `--stack` with one of {_list(names)}")


def load_chosen_stack(stack: str | None) -> LoadedStack:
    """Load and check the config of the chosen stack."""
    project = find_project()
    return load_stack(project, chosen_stack_name(project, stack))


def require_model(loaded: LoadedStack, model: str) -> None:
    """Check that the stack config has `model`.

    Raises:
        NotFoundError: it does not.
    """
    _require("model", model, loaded.config.models, "none: the config has no models")


def require_service(service: str, services: Iterable[str]) -> None:
    """Check that `service` is one of `services`.

    Raises:
        NotFoundError: it is not.
    """
    _require("service", service, sorted(services), "none: nothing is up")


def _require(kind: str, name: str, known: Iterable[str], nothing: str) -> None:
    if name not in known:
        close = nearest(name, known)
        hint = f"did you mean {close}?" if close else f"use one of {_list(known) or nothing}"
        raise NotFoundError(f"no such {kind}", field=kind, value=name, hint=hint)


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
