"""Describes a mistake in the command line in one sentence, with a hint."""

from __future__ import annotations

import re
from typing import Any

import typer

from ..loading import nearest

_UNKNOWN_COMMAND = re.compile(r"No such command '(?P<name>.*?)'")


def usage_sentence(error: typer.TyperException) -> str:
    """Return the mistake with a hint; for an unknown command or option, the nearest known one."""
    text = error.format_message().strip().rstrip(".")
    context: Any = getattr(error, "ctx", None)
    see_help = f"see `{context.command_path if context else 'tidemill'} --help`"
    option = getattr(error, "option_name", None)
    if option and hasattr(error, "possibilities"):
        known = [word for parameter in context.command.params for word in (*parameter.opts, *parameter.secondary_opts)]
        close = nearest(str(option), known)
        return f"no such option: {option}; {f'did you mean {close}?' if close else see_help}"
    unknown = _UNKNOWN_COMMAND.match(text)
    if unknown and context:
        close = nearest(unknown["name"], context.command.commands)
        return f"no such command: {unknown['name']}; {f'did you mean {close}?' if close else see_help}"
    return f"{text[:1].lower()}{text[1:]}; {see_help}"
