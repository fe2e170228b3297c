"""What a shell offers where a name is wanted: asked at every press of a key, so it only reads files and never fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

from ...components.layout import StackRoot, find_project
from ...components.targets.extras import TARGETS
from ...runtime.common.errors import TidemillError
from ..loading import LoadedStack, load_stack, stack_names

__all__ = ["models", "paths", "repositories", "services", "stacks", "targets"]


def stacks(incomplete: str) -> list[str]:
    """Return the stacks of the project."""
    return _offered(incomplete, lambda: stack_names(find_project()))


def services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the services of the stack which is meant: those which were made, or else may be."""

    def known() -> Iterable[str]:
        loaded = _meant(ctx)
        folder = StackRoot.of(loaded.project, loaded.config.stack).path / "services"
        made = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return made or loaded.config.services

    return _offered(incomplete, known)


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the models of the stack which is meant."""
    return _offered(incomplete, lambda: _meant(ctx).config.models)


def repositories(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the data repositories of the stack which is meant."""
    return _offered(incomplete, lambda: _meant(ctx).config.lake.repositories)


def paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the dotted paths of the values in the config of the stack which is meant, a key further at a time."""

    def known() -> Iterable[str]:
        from ..stack_config.explanation import explain

        keys = incomplete.count(".") + 1
        found = explain(_meant(ctx))
        return dict.fromkeys(".".join(one.path.split(".")[:keys]) for one in found)

    return _offered(incomplete, known)


def targets(incomplete: str) -> list[str]:
    """Return the targets which there are."""
    return _offered(incomplete, lambda: TARGETS)


def _meant(ctx: typer.Context) -> LoadedStack:
    from .context import chosen_stack_name

    project = find_project()
    return load_stack(project, chosen_stack_name(project, ctx.params.get("stack")))


def _offered(incomplete: str, known: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return [name for name in known() if name.startswith(incomplete)]
    except (TidemillError, OSError):
        return []
