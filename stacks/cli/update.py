"""`update`: a later version of the project template, taken into the project."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...components.layout import find_project
from ...runtime.common.errors import UserError
from .context import JsonOption
from .terminal import waiting

if TYPE_CHECKING:
    from ..projects.updating import Update

__all__ = ["update"]

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do, and write nothing.")]


def update(
    answer: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", show_default=False,
                     help="Answer a question of the template anew, such as target=docker."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> int:  # fmt: skip
    """Take a later version of the project template in, and keep what the team changed; exit code 1 with conflicts."""
    from ..projects.dependency_update import DependencyUpdate
    from ..projects.updating import update as taken

    with waiting("comparing with the template"):
        done = taken(find_project(), dict(map(_answer, answer or ())), dry_run=dry_run, dependency=DependencyUpdate())
    if as_json:
        typer.echo(json.dumps(_plain(done, dry_run=dry_run), indent=2))
    else:
        _say(done, dry_run=dry_run)
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
        raise UserError("not JSON", field=f"--set {name}", value=value, hint="write an object of JSON") from None


def _plain(done: Update, *, dry_run: bool) -> dict[str, Any]:
    return {
        "from": done.before,
        "to": done.after,
        "dry_run": dry_run,
        "changes": [{"path": str(one.path), "kind": one.kind, "note": one.note} for one in done.changes],
        "conflicts": [str(path) for path in done.conflicts],
        "answers": dict(done.questions),
        "unlocked": done.unlocked,
        "uncommitted": [str(path) for path in done.uncommitted],
    }


def _say(done: Update, *, dry_run: bool) -> None:
    if done.finished:
        typer.echo(f"an interrupted update was finished first: {len(done.finished)} files")
    for change in done.changes:
        typer.echo(f"{change.kind:<8}  {change.path}" + (f"  ({change.note})" if change.note else ""))
    for name, value in done.questions.items():
        typer.echo(f"a new question was answered by its default: {name}={value}; `tidemill update --set {name}=...`")
    told = {change.path for change in done.changes}
    for path in done.unresolved:
        if path not in told:
            typer.echo(f"conflict  {path}  (left by an earlier update)")
    if done.uncommitted:
        typer.echo(f"not committed yet, which it would refuse: {', '.join(map(str, done.uncommitted))}")
    if done.unlocked:
        typer.echo(f"uv.lock is not up to date ({done.unlocked}); run `uv lock`")
    would = "would be" if dry_run else "is"
    if done.conflicts:
        many = "one file" if len(done.conflicts) == 1 else f"{len(done.conflicts)} files"
        typer.echo(f"template {done.after} {would} taken in; decide about {many}, then commit")
    elif done.changes or done.before != done.after:
        after = "" if dry_run else "; look at `git diff`, run the tests, and commit"
        typer.echo(f"template {done.after} {would} taken in{after}")
    else:
        typer.echo(f"the project has template {done.after} already: nothing to do")
