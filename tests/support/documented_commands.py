"""The commands in docs/commands.md, as the command line has them.

`python -m tests.support.documented_commands` renews them.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from tidemill.stacks.cli.app import app
from tidemill.stacks.cli.examples import EXAMPLES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands.md"
MARK = "<!-- What follows is written by `python -m tests.support.documented_commands`. -->\n"
ROOT = "tidemill"


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each command with its name, the names of its groups before it; a group is no command."""
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        elif not command.hidden:
            yield f"{path}{name}", command


def parameters(command: Any) -> Iterator[tuple[str, Any]]:
    """Yield each argument and option with how it is written; `--help` is everybody's."""
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield parameter.metavar or parameter.name.upper(), parameter
        elif "--help" not in parameter.opts:
            yield ", ".join([*reversed(parameter.opts), *parameter.secondary_opts]), parameter


def section(name: str, command: Any) -> str:
    """Return what the page says of a command."""
    usage = [written for written, parameter in parameters(command) if parameter.param_type_name == "argument"]
    lines = [f"## `{ROOT} {name}`", "", inspect.cleandoc(command.help or ""), ""]
    if found := list(parameters(command)):
        lines += [f"| `{' '.join([ROOT, name, *usage])}` | default | |", "|---|---|---|"]
        for written, parameter in found:
            words = ", ".join(f"`{word}`" for word in written.split(", "))
            lines.append(f"| {words} | {_default(parameter)} | {_cell(parameter.help)} |")
        lines.append("")
    lines += ["```sh", *(f"{example.line}  # {example.does}" for example in EXAMPLES.get(name, ())), "```", ""]
    return "\n".join(lines)


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    value = parameter.default
    return f"`{value}`" if isinstance(value, str | int | float) and value is not False else ""


def _cell(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|")


def renewed(text: str) -> str:
    """Return the page with its commands as they should be."""
    head = text.partition(MARK)[0]
    listed = list(commands())
    table = "\n".join(
        f"| [`{name}`](#tidemill-{name.replace(' ', '-')}) | {_first(command)} |" for name, command in listed
    )
    return f"{head}{MARK}\n| command | does |\n|---|---|\n{table}\n\n" + "\n".join(
        section(name, command) for name, command in listed
    )


def _first(command: Any) -> str:
    return _cell(inspect.cleandoc(command.help or "").split("\n\n")[0])


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
