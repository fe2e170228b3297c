"""`capture find` and `capture forget`: one request, or one subject, in what model servers captured."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...runtime.common.errors import ConfigError, NotFoundError, PlatformError, UserError
from ...runtime.common.secrets import read_secret
from ..operations import local_root
from . import completion
from .context import JsonOption, StackOption, YesOption, load_chosen_stack, require_model

if TYPE_CHECKING:
    from ...runtime.capture import Found

__all__ = ["app"]

app = typer.Typer(name="capture", help="What model servers captured: find, forget.", no_args_is_help=True)

DirectoryOption = Annotated[
    Path | None,
    typer.Option("--directory", help="The capture folder of a server started alone, instead of the stack's.",
                 show_default=False),
]  # fmt: skip


@app.command()
def find(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST-ID", help="What the answer bore in X-Request-Id.", show_default=False)
    ],
    directory: DirectoryOption = None,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the captured rows of a request, and the files which hold them; exit code 1 when there are none."""
    from ...runtime.capture import find as find_rows
    from ...runtime.serving.hide_pandas import arrow_without_pandas

    arrow_without_pandas()
    found: list[Found] = []
    for folder in _folders(directory, stack):
        try:
            found += find_rows(folder, request_id)
        except ValueError:
            raise ConfigError("not the id of an answer", field="REQUEST-ID", value=request_id) from None
    if as_json:
        held = [{"path": str(each.path), "rows": each.rows.to_pylist()} for each in found]
        typer.echo(json.dumps({"request_id": request_id, "found": held}, indent=2, default=_plain))
    else:
        for each in found:
            typer.echo(str(each.path))
            for row in each.rows.to_pylist():
                typer.echo(f"  {_line(row)}")
    if not found:
        typer.echo(f"no captured row bears {request_id}", err=True)
        raise typer.Exit(1)


@app.command()
def forget(
    column: Annotated[str, typer.Option(help="A feature, or request_id, or client_request_id.", show_default=False)],
    value: Annotated[
        str, typer.Option(help="What the subject has there; - reads it from standard input.", show_default=False)
    ],
    model: Annotated[
        str | None,
        typer.Argument(
            help="The model, as the stack config names it.", show_default=False, autocompletion=completion.models
        ),
    ] = None,
    directory: DirectoryOption = None,
    hash_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key, where the column is hashed. Default: the stack's.", show_default=False),
    ] = None,
    stack: StackOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete the captured rows of one subject, and their labels; servers may go on meanwhile.

    What was published into the lake, and the versions which were trained on it, are not touched.
    """
    from ...runtime.capture import forget as forget_rows

    if (model is None) == (directory is None):
        raise UserError("wants either a MODEL or --directory", field="MODEL")
    folder, key_file = (directory, None) if directory else _of_model(model or "", stack)
    assert folder is not None  # noqa: S101 - one of the two is given
    key_file = hash_key_file or key_file
    wanted = sys.stdin.readline().rstrip("\n") if value == "-" else value
    if not yes:
        typer.confirm(f"Delete every captured row below {folder} whose {column} is that, with its labels?", abort=True)
    key = read_secret(key_file).encode() if key_file else None
    try:
        done = forget_rows(folder, column, wanted, hash_key=key)
    except OSError as error:
        raise PlatformError(
            f"a segment could not be written ({error.strerror or error})", field="directory", value=str(folder),
            hint="hint the disk and forget again",
        ) from None  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
    else:
        typer.echo(f"{done.rows} rows and {done.labels} labels are deleted, in {done.segments} files")
    if done.waiting:
        raise PlatformError(
            f"{done.waiting} more rows are in the journal of a server which cannot write its segments",
            field="directory", value=str(folder), hint="hint the server and forget again",
        )  # fmt: skip


def _folders(directory: Path | None, stack: str | None) -> list[Path]:
    """Return the capture folders to look in: the one which is given, or those of all models of the stack."""
    if directory is not None:
        if not directory.is_dir():
            raise NotFoundError("there is no capture", field="directory", value=str(directory))
        return [directory]
    loaded = load_chosen_stack(stack)
    root = local_root(loaded, "what servers capture")
    return [folder for name in loaded.config.models if (folder := root.data(f"capture-{name}")).is_dir()]


def _of_model(model: str, stack: str | None) -> tuple[Path, Path | None]:
    """Return the capture folder of `model` in the stack, and the file with the key of its hashes, if it has one."""
    loaded = load_chosen_stack(stack)
    require_model(loaded, model)
    root = local_root(loaded, "what servers capture")
    key = root.secrets / f"capture-{model}-hash"
    return root.data(f"capture-{model}"), key if key.is_file() else None


def _line(row: dict[str, Any]) -> str:
    outputs = ", ".join(f"{name} {value}" for name, value in row["outputs"].items())
    features = " ".join(f"{name}={_plain(value)}" for name, value in row["features"].items())
    who = f"{row['model']} version {row['version']} as {row['role']}"
    return f"row {row['row']}, {_plain(row['received_at'])}, {who}: {outputs}; {features}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
