"""`keys`: manage the named API keys of a model server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ....runtime.common.errors import UserError
from ...operations import local_root
from .. import completion
from ..options import JsonOption, StackOption
from ..selection import load_chosen_stack, require_model

app = typer.Typer(name="keys", help="Manage the named API keys of a model server.", no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="Keys file of a standalone server (its --keys-file), instead of a MODEL.",
                 show_default=False),
]  # fmt: skip
_MODEL_AND_NAME = "[MODEL] NAME"
NamesArgument = Annotated[
    list[str],
    typer.Argument(metavar=_MODEL_AND_NAME, help="Name of the model in the stack config, and name of the key; "
                                                 "with --file only the name of the key.", show_default=False,
                   autocompletion=completion.models),
]  # fmt: skip


def _file_of(model: str, stack: str | None) -> Path:
    """Return the keys file of the server of `model` in the chosen stack."""
    loaded = load_chosen_stack(stack)
    require_model(loaded, model)
    folder = local_root(loaded, "the named keys of a server").data(f"access-{model}")
    if not folder.is_dir():
        raise UserError("its server is not up", field="model", value=model, hint="run `tidemill up`")
    return folder / "keys.json"


def _file_and_name(names: list[str], stack: str | None, file: Path | None) -> tuple[Path, str]:
    """Return the keys file and the name of the key."""
    if file is not None:
        if len(names) != 1:
            raise UserError("--file takes only the NAME of the key", field="NAME", value=" ".join(names))
        return file, names[0]
    if len(names) != 2:
        hint = "or give NAME and --file for a standalone server"
        raise UserError("MODEL and NAME are required", field=_MODEL_AND_NAME, value=" ".join(names), hint=hint)
    return _file_of(names[0], stack), names[1]


MayOption = Annotated[
    list[str] | None,
    typer.Option("--may", help="A use of the key: predict, label or read (status and metrics). Repeat it, or give a "
                               "comma-separated list. Default: all.", show_default=False),
]  # fmt: skip


@app.command()
def add(names: NamesArgument, may: MayOption = None, stack: StackOption = None, file: FileOption = None) -> None:
    """Create a key and print it once, alone on standard output. Only its hash is stored."""
    from ....runtime.serving.http.key_file import add_key, parse_uses

    uses = parse_uses(may or [])
    path, name = _file_and_name(names, stack, file)
    key = add_key(path, name, uses)
    typer.echo(key)
    typer.echo(f"added key {name}; it is not shown again", err=True)


@app.command("list")
def list_(
    model: Annotated[
        str | None, typer.Argument(help="Name of the model in the stack config.", autocompletion=completion.models)
    ] = None,
    stack: StackOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the names of the keys, their uses, and when they were created."""
    from ....runtime.serving.http.key_file import read_keys

    if (model is None) == (file is None):
        raise UserError("give either a MODEL or --file", field="MODEL")
    path = file if file is not None else _file_of(model or "", stack)
    keys = read_keys(path)
    if as_json:
        typer.echo(json.dumps({"keys": [{"name": key.name, "created": key.created, "may": key.may} for key in keys]}))
        return
    width = max((len(key.name) for key in keys), default=0)
    for key in keys:
        typer.echo(f"{key.name:<{width}}  {key.created}  {','.join(key.may)}")
    if not keys:
        typer.echo("no named keys", err=True)


@app.command()
def revoke(names: NamesArgument, stack: StackOption = None, file: FileOption = None) -> None:
    """Revoke a key. Servers refuse it within seconds, without a restart."""
    from ....runtime.serving.http.key_file import revoke_key

    path, name = _file_and_name(names, stack, file)
    revoke_key(path, name)
    typer.echo(f"revoked key {name}", err=True)
