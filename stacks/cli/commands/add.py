"""`add`: add a model, an environment or a repository to a project."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from ....components.layout import find_project
from ....runtime.common.errors import UserError
from .. import completion
from ..options import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...projects.merging import Change

app = typer.Typer(name="add", help="Add a model, an environment or a repository to the project.", no_args_is_help=True)


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="Name: lower-case letters, digits, single dashes.", show_default=False)],
    repository: Annotated[
        str | None,
        typer.Option(help="Repository of its data. Default: the first of the project.",
                     autocompletion=completion.repositories,
                     show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Path of its data, REPOSITORY/BRANCH/PATH, instead of --repository.", show_default=False),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(help="Training command, run in its code folder. Default: the sample of the template.",
                     show_default=False),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Name of the target column.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(help="E-mail address of its owner.", show_default=False)] = None,
    purpose: Annotated[
        str | None, typer.Option(help="Question that it answers, one sentence.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Add a model with code and a test to all stacks."""
    from ...projects.adding import ModelOptions, add_model

    options = ModelOptions(
        repository=repository, data=data, train=_words(train), target=target, owner=owner, purpose=purpose
    )
    _print(add_model(find_project(), name, options), as_json=as_json)


@app.command()
def environment(
    name: Annotated[str, typer.Argument(help="Name: lower-case letters and digits.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Add an environment: another stack with its own config."""
    from ...projects.adding import add_environment

    _print(add_environment(find_project(), name), as_json=as_json)


@app.command()
def repository(
    name: Annotated[str, typer.Argument(help="Name: lower-case letters, digits, dashes.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Add a data repository, with the expectations of its gate, to all stacks."""
    from ...projects.adding import add_repository

    _print(add_repository(find_project(), name), as_json=as_json)


def _words(command: str | None) -> list[str] | None:
    if command is None:
        return None
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UserError(f"not a command ({error})", field="--train", value=command, hint="close the quotes") from None
    if not words:
        raise UserError("not a command", field="--train", value=command, hint='write one, such as "python train.py"')
    return words


def _print(changes: Sequence[Change], *, as_json: bool) -> None:
    if as_json:
        as_objects = [{"path": str(change.path), "kind": change.kind, "note": change.note} for change in changes]
        typer.echo(json.dumps({"changes": as_objects}, indent=2))
        return
    for change in changes:
        typer.echo(f"{change.kind:<8}  {change.path}" + (f"  ({change.note})" if change.note else ""))
    typer.echo("review `git diff`, run the tests, and commit; then `tidemill up` applies it")
