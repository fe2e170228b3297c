"""`validate`: check the stack configs."""

from __future__ import annotations

import json

import typer

from ....components.layout import find_project
from ....runtime.common.errors import UserError
from ...stack_config.sources import relative_path
from ..options import JsonOption, StackOption


def validate(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """Check the stack configs, each alone and all together. Changes nothing."""
    from ...teams.checking import RULES_FILE, check_project

    project = find_project()
    report = check_project(project, [stack] if stack else None)
    if not report.stacks:
        raise UserError("the project has no stack config", field="stack", hint="write one, see the README")
    invalid = {finding.stack for finding in report.findings}
    if as_json:
        stacks = [
            {"name": each.stack, "file": relative_path(each.file, project), "holds": each.stack not in invalid}
            for each in report.stacks
        ]
        problems = [finding.as_json() for finding in report.findings]
        typer.echo(json.dumps({"holds": not problems, "stacks": stacks, "problems": problems}, indent=2))
    else:
        for checked in report.stacks:
            if checked.stack not in invalid:
                typer.echo(f"{relative_path(checked.file, project)}: valid")
                for note in checked.notes():
                    typer.echo(f"note: {note}")
        for finding in report.findings:
            typer.echo(f"tidemill: {finding.as_error()}", err=True)
        if report.rules and not invalid:
            typer.echo(f"all stacks keep the rules of {RULES_FILE}")
    if report.findings:
        if not as_json:
            count, files = len(report.findings), len({finding.file for finding in report.findings})
            typer.echo(
                f"tidemill: {count} problem{'s' * (count > 1)} in {files} file{'s' * (files > 1)}; nothing was started",
                err=True,
            )
        raise typer.Exit(2)
