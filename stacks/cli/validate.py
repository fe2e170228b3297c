"""`validate`: whether the configs hold, each by itself and all together."""

from __future__ import annotations

import json

import typer

from ...components.layout import find_project
from ...runtime.common.errors import UserError
from ..stack_config.sources import relative_path
from .context import JsonOption, StackOption

__all__ = ["validate"]


def validate(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Check the configs of all stacks, or of one, by themselves and against one another; start and touch nothing."""
    from ..teams.checking import RULES_FILE, check_project

    project = find_project()
    report = check_project(project, [stack] if stack else None)
    if not report.stacks:
        raise UserError("the project has no stack config", field="stack", hint="write one, see the README")
    ill = {one.stack for one in report.findings}
    if as_json:
        stacks = [
            {"name": found.stack, "file": relative_path(found.file, project), "holds": found.stack not in ill}
            for found in report.stacks
        ]
        problems = [one.as_json() for one in report.findings]
        typer.echo(json.dumps({"holds": not problems, "stacks": stacks, "problems": problems}, indent=2))
    else:
        for found in report.stacks:
            if found.stack not in ill:
                typer.echo(f"{relative_path(found.file, project)}: holds")
                for note in found.notes():
                    typer.echo(f"note: {note}")
        for one in report.findings:
            typer.echo(f"tidemill: {one.error()}", err=True)
        if report.rules and not ill:
            typer.echo(f"the rules of {RULES_FILE} are kept")
    if report.findings:
        if not as_json:
            count, files = len(report.findings), len({one.file for one in report.findings})
            typer.echo(
                f"tidemill: {count} problem{'s' * (count > 1)} in {files} file{'s' * (files > 1)}; nothing was started",
                err=True,
            )
        raise typer.Exit(2)
