"""`update`: apply a newer project template to a project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....components.layout import find_project
from ....runtime.common.errors import UserError
from ..options import JsonOption
from ..terminal import waiting

if TYPE_CHECKING:
    from ...projects.updating import Update

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the changes without writing them.")]


def update(
    answer: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", show_default=False,
                     help="Change an answer to a question of the template, such as target=docker."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:  # fmt: skip
    """Apply a newer project template. Keeps the team's changes; exit code 1 with conflicts."""
    from ...projects.dependency_update import DependencyUpdate
    from ...projects.updating import update as apply_update

    with waiting("comparing with the template"):
        done = apply_update(
            find_project(), dict(map(_answer, answer or ())), dry_run=dry_run, dependency=DependencyUpdate()
        )
    if as_json:
        typer.echo(json.dumps(_as_json(done, dry_run=dry_run), indent=2))
    else:
        _print(done, dry_run=dry_run)
    return 1 if done.conflicts else 0


def _answer(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError("not an answer", field="--set", value=text, hint="write NAME=VALUE")
    if not value.startswith("{"):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError:
        raise UserError("not JSON", field=f"--set {name}", value=value, hint="write a JSON object") from None


def _as_json(done: Update, *, dry_run: bool) -> dict[str, Any]:
    return {
        "from": done.before,
        "to": done.after,
        "dry_run": dry_run,
        "changes": [{"path": str(change.path), "kind": change.kind, "note": change.note} for change in done.changes],
        "conflicts": [str(path) for path in done.conflicts],
        "answers": dict(done.questions),
        "unlocked": done.unlocked,
        "uncommitted": [str(path) for path in done.uncommitted],
    }


def _print(done: Update, *, dry_run: bool) -> None:
    if done.finished:
        typer.echo(f"finished an interrupted update first: {len(done.finished)} files")
    for change in done.changes:
        typer.echo(f"{change.kind:<8}  {change.path}" + (f"  ({change.note})" if change.note else ""))
    for name, value in done.questions.items():
        typer.echo(
            f"new question, answered with its default {name}={value}; change it with `tidemill update --set {name}=...`"
        )
    changed = {change.path for change in done.changes}
    for path in done.unresolved:
        if path not in changed:
            typer.echo(f"conflict  {path}  (left by an earlier update)")
    if done.uncommitted:
        typer.echo(f"uncommitted files, without --dry-run an error: {', '.join(map(str, done.uncommitted))}")
    if done.unlocked:
        typer.echo(f"uv.lock is out of date ({done.unlocked}); run `uv lock`")
    would = "would be" if dry_run else "is"
    if done.conflicts:
        many = "one file" if len(done.conflicts) == 1 else f"{len(done.conflicts)} files"
        typer.echo(f"template {done.after} {would} applied; resolve the conflicts in {many}, then commit")
    elif done.changes or done.before != done.after:
        after = "" if dry_run else "; look at `git diff`, run the tests, and commit"
        typer.echo(f"template {done.after} {would} applied{after}")
    else:
        typer.echo(f"the project already has template {done.after}")
