"""`add model`, `add environment`, `add repository`: more of what a project has, as the template writes it."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from ...components.layout import find_project
from ...runtime.common.errors import UserError
from . import completion
from .context import JsonOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..projects.merging import Change

__all__ = ["app"]

app = typer.Typer(name="add", help="Add to a project what the template writes for it.", no_args_is_help=True)


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits, single dashes.", show_default=False)],
    repository: Annotated[
        str | None,
        typer.Option(help="The repository in which its data lives. Default: the first of the project.",
                     autocompletion=completion.repositories,
                     show_default=False),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Where its data lives, REPOSITORY/BRANCH/PATH, instead of --repository.", show_default=False),
    ] = None,
    train: Annotated[
        str | None,
        typer.Option(help="The command which trains it, run in its folder of code. Default: the template's sample.",
                     show_default=False),
    ] = None,
    target: Annotated[str | None, typer.Option(help="Name of the target column.", show_default=False)] = None,
    owner: Annotated[str | None, typer.Option(help="Who answers for it: an address.", show_default=False)] = None,
    purpose: Annotated[
        str | None, typer.Option(help="The question it answers, one sentence.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Add a model to all stacks, with its code and its test."""
    from ..projects.adding import ModelOptions, add_model

    options = ModelOptions(
        repository=repository, data=data, train=_words(train), target=target, owner=owner, purpose=purpose
    )
    _say(add_model(find_project(), name, options), as_json=as_json)


@app.command()
def environment(
    name: Annotated[str, typer.Argument(help="Its name: small letters and digits.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Add an environment, which is a stack of its own with a config of its own."""
    from ..projects.adding import add_environment

    _say(add_environment(find_project(), name), as_json=as_json)


@app.command()
def repository(
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits, dashes.", show_default=False)],
    as_json: JsonOption = False,
) -> None:
    """Add a data repository to all stacks, with the expectations which its gate asks for."""
    from ..projects.adding import add_repository

    _say(add_repository(find_project(), name), as_json=as_json)


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


def _say(changes: Sequence[Change], *, as_json: bool) -> None:
    if as_json:
        plain = [{"path": str(one.path), "kind": one.kind, "note": one.note} for one in changes]
        typer.echo(json.dumps({"changes": plain}, indent=2))
        return
    for change in changes:
        typer.echo(f"{change.kind:<8}  {change.path}" + (f"  ({change.note})" if change.note else ""))
    typer.echo("look at `git diff`, run the tests, and commit; `tidemill up` makes it")
