"""`keys add`, `keys list`, `keys revoke`: named API keys of a model's server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ...runtime.common.errors import UserError
from ..operations import local_root
from . import completion
from .context import JsonOption, StackOption, load_chosen_stack, require_model

__all__ = ["app"]

app = typer.Typer(name="keys", help="Named API keys of a model's server.", no_args_is_help=True)

FileOption = Annotated[
    Path | None,
    typer.Option("--file", help="The keys file of a server started alone (its --keys-file), instead of a MODEL.",
                 show_default=False),
]  # fmt: skip
_WORDS = "[MODEL] NAME"
WordsArgument = Annotated[
    list[str],
    typer.Argument(metavar=_WORDS, help="The model, as the stack config names it, and the key's name; "
                                        "with --file the key's name alone.", show_default=False,
                   autocompletion=completion.models),
]  # fmt: skip


def _file_of(model: str, stack: str | None) -> Path:
    """Return the keys file of `model`'s server in the stack which is meant."""
    loaded = load_chosen_stack(stack)
    require_model(loaded, model)
    folder = local_root(loaded, "the named keys of a server").data(f"access-{model}")
    if not folder.is_dir():
        raise UserError("its server is not up", field="model", value=model, hint="run `tidemill up`")
    return folder / "keys.json"


def _meant(words: list[str], stack: str | None, file: Path | None) -> tuple[Path, str]:
    """Return the keys file and the key's name which `words` mean."""
    if file is not None:
        if len(words) != 1:
            raise UserError("with --file only the key's NAME is given", field="NAME", value=" ".join(words))
        return file, words[0]
    if len(words) != 2:
        raise UserError(
            "wants MODEL and NAME", field=_WORDS, value=" ".join(words), hint="or NAME with --file for a server alone"
        )
    return _file_of(words[0], stack), words[1]


@app.command()
def add(words: WordsArgument, stack: StackOption = None, file: FileOption = None) -> None:
    """Make a key and print it, once, alone on standard output; only its hash is kept."""
    from ...runtime.serving.http.key_file import add_key

    path, name = _meant(words, stack, file)
    key = add_key(path, name)
    typer.echo(key)
    typer.echo(f"key {name} is added; it is shown this once", err=True)


@app.command("list")
def list_(
    model: Annotated[
        str | None, typer.Argument(help="The model, as the stack config names it.", autocompletion=completion.models)
    ] = None,
    stack: StackOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the named keys: names and when they were made."""
    from ...runtime.serving.http.key_file import read_keys

    if (model is None) == (file is None):
        raise UserError("wants either a MODEL or --file", field="MODEL")
    path = file if file is not None else _file_of(model or "", stack)
    keys = read_keys(path)
    if as_json:
        typer.echo(json.dumps({"keys": [{"name": key.name, "created": key.created} for key in keys]}))
        return
    width = max((len(key.name) for key in keys), default=0)
    for key in keys:
        typer.echo(f"{key.name:<{width}}  {key.created}")
    if not keys:
        typer.echo("no named keys", err=True)


@app.command()
def revoke(words: WordsArgument, stack: StackOption = None, file: FileOption = None) -> None:
    """Make a key worthless; servers turn it away within seconds, without a restart."""
    from ...runtime.serving.http.key_file import revoke_key

    path, name = _meant(words, stack, file)
    revoke_key(path, name)
    typer.echo(f"key {name} is revoked", err=True)
