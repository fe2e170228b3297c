"""The one tree of errors.

TidemillError
├── UserError            the user's mistake: exit code 2
│   ├── ConfigError      a stack config or settings file (also ValueError)
│   └── NotFoundError    a name which does not exist (also LookupError)
├── RefusedError         the answer is no: exit code 1
│   ├── GateError        a data or promotion gate said no
│   └── UnvalidatedError a commit without a good verdict was asked for as validated
└── PlatformError        the platform failed: exit code 3
    ├── UnreachableError a server does not answer (also ConnectionError)
    ├── ServiceError     a service does not start or stay up; holds the last lines of its log
    └── ToolError        a tool cannot be had
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "ConfigError",
    "GateError",
    "NotFoundError",
    "PlatformError",
    "RefusedError",
    "ServiceError",
    "TidemillError",
    "ToolError",
    "UnreachableError",
    "UnvalidatedError",
    "UserError",
]


class TidemillError(Exception):
    """Root of all errors which tidemill raises on purpose.

    Args:
        message: what is wrong, one sentence without a full stop.
        field: the setting, argument or resource it is about.
        value: the value found there; never a secret.
        hint: what to do about it, an imperative sentence without a full stop.

    >>> str(TidemillError("unknown target", field="target", value="moon", hint="use local, docker or aws"))
    "target: unknown target, got 'moon'; use local, docker or aws"
    """

    exit_code: ClassVar[int] = 3

    def __init__(
        self, message: str, *, field: str | None = None, value: object | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.value = value
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        if self.value is not None:
            text += f", got {self.value!r}"
        if self.hint:
            text += f"; {self.hint}"
        return text


class UserError(TidemillError):
    """The user's mistake."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A stack config or a settings file is not valid."""


class NotFoundError(UserError, LookupError):
    """A name which does not exist."""


class RefusedError(TidemillError):
    """The answer is no."""

    exit_code = 1


class GateError(RefusedError):
    """A gate on data or on a promotion said no.

    Args:
        message: what was refused.
        reasons: why, a sentence each.
    """

    def __init__(
        self,
        message: str,
        *,
        reasons: Sequence[str] = (),
        field: str | None = None,
        value: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, field=field, value=value, hint=hint)
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}: {'; '.join(self.reasons)}" if self.reasons else text


class UnvalidatedError(RefusedError):
    """A commit without a good verdict was asked for as validated."""


class PlatformError(TidemillError):
    """The platform failed."""

    exit_code = 3


class UnreachableError(PlatformError, ConnectionError):
    """A server does not answer."""


class ServiceError(PlatformError):
    """A service does not start or stay up.

    Args:
        message: what is wrong.
        log_tail: the last lines of the service's log, without secrets.
    """

    def __init__(
        self,
        message: str,
        *,
        log_tail: str = "",
        field: str | None = None,
        value: object | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, field=field, value=value, hint=hint)
        self.log_tail = log_tail

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\nlast lines of its log:\n{self.log_tail}" if self.log_tail else text


class ToolError(PlatformError):
    """A tool cannot be had."""
