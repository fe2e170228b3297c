"""The error tree.

TidemillError
├── UserError            the user made a mistake: exit code 2
│   ├── ConfigError      a stack config or settings file is invalid (also ValueError)
│   └── NotFoundError    a name does not exist (also LookupError)
├── RefusedError         the platform refused the operation: exit code 1
│   ├── GateError        a data or promotion gate refused it
│   └── UnvalidatedError the requested data did not pass the gate
└── PlatformError        the platform failed: exit code 3
    ├── UnreachableError a server does not answer (also ConnectionError)
    ├── ServiceError     a service does not start or stay up; has the last lines of its log
    └── ToolError        a tool is unavailable
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class TidemillError(Exception):
    """Root of all errors that tidemill raises on purpose.

    Args:
        message: what is wrong, one sentence without a full stop.
        field: the setting, argument or resource that has the problem.
        value: its value; never a secret.
        hint: how to fix it, an imperative sentence without a full stop.

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
    """The user made a mistake."""

    exit_code = 2


class ConfigError(UserError, ValueError):
    """A stack config or a settings file is invalid."""


class NotFoundError(UserError, LookupError):
    """A name does not exist."""


class RefusedError(TidemillError):
    """The platform refused the operation."""

    exit_code = 1


class GateError(RefusedError):
    """A data or promotion gate refused the operation.

    Args:
        message: what was refused.
        reasons: why, one sentence each.
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
    """The requested data did not pass the gate."""


class PlatformError(TidemillError):
    """The platform failed."""

    exit_code = 3


class UnreachableError(PlatformError, ConnectionError):
    """A server does not answer."""


class ServiceError(PlatformError):
    """A service does not start or stay up.

    Args:
        message: what is wrong.
        log_tail: the last lines of its log, without secrets.
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
    """A tool is unavailable."""
