"""`users`: manage people's accounts in the stack's MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from ....runtime.common.errors import UserError
from ...operations import deployed_operations
from ..options import JsonOption, StackOption
from ..selection import load_chosen_stack

app = typer.Typer(name="users", help="Manage people's accounts in the stack's MLflow.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the account.", show_default=False)]
MayOption = Annotated[
    list[str],
    typer.Option(
        "--may", metavar="read|train|promote", show_default=False,
        help="What the person may do. `read`: see runs, models and their artifacts. `train`: also create runs and "
             "model versions. `promote`: read, move aliases and set tags of versions. Can be repeated.",
    ),
]  # fmt: skip
FileOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="Write the password to this new file (0600) instead of printing it.",
                 show_default=False),
]  # fmt: skip


@app.command()
def add(name: NameArgument, may: MayOption, stack: StackOption = None, password_file: FileOption = None) -> None:
    """Create an account and print its password once, alone on standard output. MLflow stores only a hash."""
    from ....runtime.common.files import write_private
    from ....runtime.registry.accounts import PEOPLE, Permitted
    from ...people import People

    if unknown := sorted(set(may) - PEOPLE):
        raise UserError("is not a role", field="--may", value=unknown[0], hint="use read, train or promote")
    if password_file is not None and password_file.exists():
        raise UserError(
            "already exists", field="--password-file", value=str(password_file), hint="choose the name of a new file"
        )
    with People(deployed_operations(load_chosen_stack(stack))) as people:
        password = people.add(name, cast("set[Permitted]", set(may)))
        if password_file is None:
            typer.echo(password)
            typer.echo(f"added {name}; the password is not shown again", err=True)
            return
        try:
            write_private(password_file, password)
        except OSError as error:
            people.revoke(name)
            raise UserError(
                f"cannot be written ({error.strerror}); nothing was added",
                field="--password-file",
                value=str(password_file),
                hint="choose a file in a folder that you can write to",
            ) from None
    typer.echo(f"added {name}; the password is in {password_file}", err=True)


@app.command("list")
def list_(stack: StackOption = None, as_json: JsonOption = False) -> None:
    """List people's accounts and what they may do."""
    from ...people import People

    with People(deployed_operations(load_chosen_stack(stack))) as people:
        found = people.all()
    if as_json:
        typer.echo(json.dumps({"users": [{"name": person.name, "may": list(person.may)} for person in found]}))
        return
    width = max((len(person.name) for person in found), default=0)
    for person in found:
        typer.echo(f"{person.name:<{width}}  {', '.join(person.may) or 'nothing'}")
    if not found:
        typer.echo("no accounts of people", err=True)


@app.command()
def revoke(name: NameArgument, stack: StackOption = None) -> None:
    """Delete an account. MLflow refuses it from the next request on, without a restart."""
    from ...people import People

    with People(deployed_operations(load_chosen_stack(stack))) as people:
        people.revoke(name)
    typer.echo(f"revoked {name}", err=True)
