"""`capture`: find a request, or delete a person's rows, in captured traffic."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ....runtime.common.errors import ConfigError, NotFoundError, PlatformError, UserError
from ....runtime.common.secrets import read_secret
from ...operations import local_root
from .. import completion
from ..options import JsonOption, StackOption, YesOption
from ..selection import load_chosen_stack, require_model

if TYPE_CHECKING:
    from ....runtime.capture import Found

app = typer.Typer(name="capture", help="Find or delete requests that model servers captured.", no_args_is_help=True)

DirectoryOption = Annotated[
    Path | None,
    typer.Option("--directory", help="Capture folder of a standalone server, instead of the stack's.",
                 show_default=False),
]  # fmt: skip


@app.command()
def find(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST-ID", help="Header X-Request-Id of the answer.", show_default=False)
    ],
    directory: DirectoryOption = None,
    stack: StackOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the captured rows of a request and their files. Exit code 1 if there are none."""
    from ....runtime.capture import find as find_rows
    from ....runtime.serving.hide_pandas import hide_pandas_from_arrow

    hide_pandas_from_arrow()
    found: list[Found] = []
    for folder in _folders(directory, stack):
        try:
            found += find_rows(folder, request_id)
        except ValueError:
            raise ConfigError("not a request id", field="REQUEST-ID", value=request_id) from None
    if as_json:
        from ....runtime.serving.codecs.answer_columns import without_non_finite

        files = [{"path": str(each.path), "rows": without_non_finite(each.rows.to_pylist())} for each in found]
        typer.echo(json.dumps({"request_id": request_id, "found": files}, indent=2, default=_json_value))
    else:
        for each in found:
            typer.echo(str(each.path))
            for row in each.rows.to_pylist():
                typer.echo(f"  {_line(row)}")
    if not found:
        typer.echo(f"no captured row has the request id {request_id}", err=True)
        raise typer.Exit(1)


@app.command()
def forget(
    column: Annotated[
        str | None, typer.Option(help="A feature, request_id or client_request_id.", show_default=False)
    ] = None,
    value: Annotated[
        str | None,
        typer.Option(help="Value of the person in this column; - reads it from standard input.", show_default=False),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--labels-of",
            metavar="KEY",
            show_default=False,
            help="Instead of a person's rows, delete the labels that this API key sent.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Argument(
            help="Name of the model in the stack config.", show_default=False, autocompletion=completion.models
        ),
    ] = None,
    directory: DirectoryOption = None,
    hash_key_file: Annotated[
        Path | None,
        typer.Option(help="File with the key of a hashed column. Default: the stack's.", show_default=False),
    ] = None,
    stack: StackOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a person's captured rows and their labels, or the labels of an API key. Servers can keep running.

    Data already published to the lake, and models trained on it, stay.
    """
    from ....runtime.capture import forget as forget_rows
    from ....runtime.capture import forget_labels

    if (key is None) == (column is None) or (column is None) != (value is None):
        raise UserError("give either --column and --value, or --labels-of", field="--column")
    if (model is None) == (directory is None):
        raise UserError("give either a MODEL or --directory", field="MODEL")
    folder, key_file = (directory, None) if directory else _model_capture(model or "", stack)
    assert folder is not None  # noqa: S101 - it or the model is given
    key_file = hash_key_file or key_file
    personal = sys.stdin.readline().rstrip("\n") if value == "-" else value
    if not yes:
        rows = f"labels in {folder} that the key {key} sent"
        subject = f"captured rows in {folder} with this {column}, and their labels" if key is None else rows
        typer.confirm(f"Delete all {subject}?", abort=True)
    hash_key = read_secret(key_file).encode() if key_file else None
    try:
        if key is not None:
            done = forget_labels(folder, key)
        else:
            done = forget_rows(folder, column or "", personal, hash_key=hash_key)
    except OSError as error:
        raise PlatformError(
            f"cannot write a segment ({error.strerror or error})", field="directory", value=str(folder),
            hint="repair the disk, then run this again",
        ) from None  # fmt: skip
    if as_json:
        typer.echo(json.dumps(asdict(done), indent=2))
    else:
        typer.echo(f"deleted {done.rows} rows and {done.labels} labels in {done.segments} files")
    if done.waiting:
        raise PlatformError(
            f"{done.waiting} more rows are in the journal of a server that cannot write its segments",
            field="directory", value=str(folder), hint="repair the server, then run this again",
        )  # fmt: skip


def _folders(directory: Path | None, stack: str | None) -> list[Path]:
    """Return `directory`, or else the capture folders of all models of the stack."""
    if directory is not None:
        if not directory.is_dir():
            raise NotFoundError("no such capture folder", field="directory", value=str(directory))
        return [directory]
    loaded = load_chosen_stack(stack)
    root = local_root(loaded, "captured traffic")
    return [folder for name in loaded.config.models if (folder := root.data(f"capture-{name}")).is_dir()]


def _model_capture(model: str, stack: str | None) -> tuple[Path, Path | None]:
    """Return the capture folder of `model`, and the file with its hash key if it has one."""
    loaded = load_chosen_stack(stack)
    require_model(loaded, model)
    root = local_root(loaded, "captured traffic")
    key = root.secrets / f"capture-{model}-hash"
    return root.data(f"capture-{model}"), key if key.is_file() else None


def _line(row: dict[str, Any]) -> str:
    if row["outputs"] is not None:
        outputs = ", ".join(f"{name} {value}" for name, value in row["outputs"].items())
    else:
        # Of the whole request; row 0 has it.
        outputs = f"answer {row['answer']}" if row["answer"] is not None else "answer of the request in row 0"
    features = " ".join(f"{name}={_json_value(value)}" for name, value in row["features"].items())
    version = f"{row['model']} version {row['version']} as {row['role']}"
    sender = f" for key {row['key']}" if row.get("key") else ""
    return f"row {row['row']}, {_json_value(row['received_at'])}, {version}{sender}: {outputs}; {features}"


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
