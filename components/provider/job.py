"""The part of a job that all targets share: it runs once, and again only when its triggers change."""

from __future__ import annotations

from typing import ClassVar

from ...runtime.common.errors import PlatformError, ServiceError
from .base import Context, NativeResource, Properties

_TIMEOUT = 1800.0


class RunOnce(NativeResource):
    """A process, container or task that runs once, to its end, and survives a killed engine."""

    outputs: ClassVar[tuple[str, ...]] = ("exitCode", "log")
    replace_on: ClassVar[tuple[str, ...]] = ("stack", "name", "triggers")

    def read(self, context: Context, state: Properties) -> Properties | None:
        """Return the state: a finished run cannot change."""
        return state

    def update(self, context: Context, state: Properties, inputs: Properties) -> Properties:
        """Record changed settings without another run."""
        return {**inputs, **{key: state.get(key) for key in self.outputs}}


def time_limit(inputs: Properties) -> float:
    """Return the seconds that a job may take."""
    return float(inputs.get("timeout") or _TIMEOUT)


def interrupted(name: str) -> PlatformError:
    """Return the error for a job that the user interrupted."""
    return PlatformError("interrupted while it ran", field=name)


def failed(name: str, code: int | None, limit: float | None, log_tail: str = "", hint: str = "") -> ServiceError:
    """Return the error for a job with the exit code `code`, or None if it has none, that may have reached a limit."""
    reason = "was stopped from outside" if code is None else f"failed with exit code {code}"
    if limit is not None:
        reason = f"reached its time limit of {limit:.0f} s and was stopped"
    return ServiceError(reason, field=name, log_tail=log_tail, hint=hint or None)
