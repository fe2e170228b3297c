"""Mistakes in a command line, as one sentence with the way to hint it."""

from __future__ import annotations

import re
from typing import Any

import typer

from ..loading import nearest

__all__ = ["sentence"]

_UNKNOWN = re.compile(r"No such command '(?P<name>.*?)'")


def sentence(error: typer.TyperException) -> str:
    """Return what is wrong with a command line; an unknown command or option comes with the nearest one."""
    text = error.format_message().strip().rstrip(".")
    context: Any = getattr(error, "ctx", None)
    where = f"see `{context.command_path if context else 'tidemill'} --help`"
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        known = [word for parameter in context.command.params for word in (*parameter.opts, *parameter.secondary_opts)]
        close = nearest(str(option), known)
        return f"no such option: {option}; {f'did you mean {close}?' if close else where}"
    unknown = _UNKNOWN.match(text)
    if unknown and context:
        close = nearest(unknown["name"], context.command.commands)
        return f"no such command: {unknown['name']}; {f'did you mean {close}?' if close else where}"
    return f"{text[:1].lower()}{text[1:]}; {where}"
