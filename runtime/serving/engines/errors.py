"""Errors of preparing and loading a version."""

from __future__ import annotations

from ...common.errors import RefusedError


class UnfitError(RefusedError):
    """A version that cannot serve; the message says why."""


class TemporaryError(UnfitError):
    """A version that cannot serve now; a later attempt may succeed, such as after a failed download."""


class IsolatedModelError(Exception):
    """The model raised an error in its own process.

    Args:
        message: of the model's exception.
        kind: the type of the model's exception; without one, the answer of the process is invalid.
    """

    def __init__(self, message: str, kind: str | None = None) -> None:
        super().__init__(f"{kind}: {message}" if kind else message)
        self.kind = kind
        self.message = message


def kind_and_message(error: Exception) -> tuple[str, str]:
    """Return the name of the type of the model's exception `error`, and its message."""
    if isinstance(error, IsolatedModelError) and error.kind is not None:
        return error.kind, error.message
    try:
        return type(error).__name__, str(error)
    except Exception:  # noqa: BLE001 - the model's own exceptions may fail to print
        return type(error).__name__, ""


class UnsupportedError(Exception):
    """A step, estimator or kernel that cannot be compiled; the message names it."""
