"""Completes names in the shell. It runs at every key press, so it only reads files, and it never fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

from ...components.layout import StackRoot, find_project
from ...components.targets.registry import TARGETS
from ...runtime.common.errors import TidemillError
from ..loading import LoadedStack, load_stack, stack_names
from .selection import chosen_stack_name


def stacks(incomplete: str) -> list[str]:
    """Complete the name of a stack."""
    return _completions(incomplete, lambda: stack_names(find_project()))


def services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a service: of those that were created, or else of all that the config allows."""

    def names() -> Iterable[str]:
        loaded = _chosen_stack(ctx)
        folder = StackRoot.of(loaded.project, loaded.config.stack).path / "services"
        created = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        return created or loaded.config.services

    return _completions(incomplete, names)


def models(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a model."""
    return _completions(incomplete, lambda: _chosen_stack(ctx).config.models)


def repositories(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the name of a data repository."""
    return _completions(incomplete, lambda: _chosen_stack(ctx).config.lake.repositories)


def config_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the dotted path of a config value, one more key at a time."""

    def paths() -> Iterable[str]:
        from ..stack_config.explanation import explain

        length = incomplete.count(".") + 1
        return dict.fromkeys(".".join(value.path.split(".")[:length]) for value in explain(_chosen_stack(ctx)))

    return _completions(incomplete, paths)


def targets(incomplete: str) -> list[str]:
    """Complete the name of a target."""
    return _completions(incomplete, lambda: TARGETS)


def _chosen_stack(ctx: typer.Context) -> LoadedStack:
    project = find_project()
    return load_stack(project, chosen_stack_name(project, ctx.params.get("stack")))


def _completions(incomplete: str, names: Callable[[], Iterable[str]]) -> list[str]:
    try:
        return [name for name in names() if name.startswith(incomplete)]
    except (TidemillError, OSError):
        return []
