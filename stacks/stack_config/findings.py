"""A problem with its place: file, line, path, value, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...runtime.common.errors import ConfigError, UserError

__all__ = ["Finding", "first_error"]

_PLACE = re.compile(r"(?P<file>.*?)(?::(?P<line>\d+))?(?:: (?P<path>.*))?")


@dataclass(frozen=True)
class Finding:
    """Something in a config file that does not hold.

    Attributes:
        file: the file, relative_path to the project.
        line: its line, counted from one, or None where the file as a whole is meant.
        path: keys which lead to the value, joined by dots; empty for the file.
        message: what is wrong, one sentence without a full stop.
        value: what stands there; None for a secret, or where nothing does.
        hint: what to do about it.
        stack: the stack whose config it is found in, or None.
    """

    file: str
    line: int | None
    path: str
    message: str
    value: object | None = None
    hint: str | None = None
    stack: str | None = None

    @classmethod
    def of(cls, error: UserError, stack: str | None = None) -> Finding:
        """Return `error`, whose field is `file:line: path` or a part of that."""
        place = _PLACE.fullmatch(error.field or "")
        file, line, path = (place["file"], place["line"], place["path"]) if place else (error.field or "", None, None)
        return cls(file, int(line) if line else None, path or "", error.message, error.value, error.hint, stack)

    def error(self, more: int = 0) -> ConfigError:
        """Return it as an error, which says that there are `more`."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        field = f"{place}: {self.path}" if self.path else place
        hint = self.hint.rstrip(".") if self.hint else None
        if more:
            hint = f"{hint or 'hint it'} (and {more} more after this)"
        return ConfigError(
            _visible(self.message), field=_visible(field), value=self.value, hint=hint and _visible(hint)
        )

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON; a value that JSON has not is told in words."""
        known = isinstance(self.value, str | int | float | bool | list | dict | None)
        return {**asdict(self), "value": self.value if known else str(self.value)}


def _visible(text: str) -> str:
    """Return `text` with what a terminal would obey or not show written out: a key may hold anything."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def first_error(findings: Sequence[Finding]) -> ConfigError:
    """Return the first of `findings` as an error which says how many follow."""
    return findings[0].error(len(findings) - 1)
