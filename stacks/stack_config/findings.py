"""A problem in a config file: file, line, path, value and hint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...runtime.common.errors import ConfigError, UserError

_PLACE = re.compile(r"(?P<file>.*?)(?::(?P<line>\d+))?(?:: (?P<path>.*))?")


@dataclass(frozen=True)
class Finding:
    """A problem in a config file.

    Attributes:
        file: the file, relative to the project.
        line: its line, counted from one, or None for the whole file.
        path: dotted path of the value; empty for the whole file.
        message: the problem, one sentence without a full stop.
        value: the value; None for a secret or a missing value.
        hint: how to fix it.
        stack: the stack of the config, or None.
    """

    file: str
    line: int | None
    path: str
    message: str
    value: object | None = None
    hint: str | None = None
    stack: str | None = None

    @classmethod
    def from_error(cls, error: UserError, stack: str | None = None) -> Finding:
        """Convert `error`, whose field is `file:line: path` or a part of that."""
        place = _PLACE.fullmatch(error.field or "")
        file, line, path = (place["file"], place["line"], place["path"]) if place else (error.field or "", None, None)
        return cls(file, int(line) if line else None, path or "", error.message, error.value, error.hint, stack)

    def as_error(self, more: int = 0) -> ConfigError:
        """Return this finding as an error; its hint also gives the number of other problems, `more`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        field = f"{place}: {self.path}" if self.path else place
        hint = self.hint.rstrip(".") if self.hint else None
        if more:
            hint = f"{hint or 'fix it'} (and {more} more)"
        return ConfigError(_escape(self.message), field=_escape(field), value=self.value, hint=hint and _escape(hint))

    def as_json(self) -> dict[str, Any]:
        """Return this as JSON; a value that is not JSON becomes text."""
        is_json = isinstance(self.value, str | int | float | bool | list | dict | None)
        return {**asdict(self), "value": self.value if is_json else str(self.value)}


def _escape(text: str) -> str:
    """Escape unprintable characters, which a key may contain and a terminal would obey."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def first_error(findings: Sequence[Finding]) -> ConfigError:
    """Return the first of `findings` as an error that mentions the number of the others."""
    return findings[0].as_error(len(findings) - 1)
