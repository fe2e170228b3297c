"""The public name of the error tree: training code catches `tidemill.runtime.errors.GateError`."""

from .common.errors import (
    ConfigError,
    GateError,
    NotFoundError,
    PlatformError,
    RefusedError,
    ServiceError,
    TidemillError,
    ToolError,
    UnreachableError,
    UnvalidatedError,
    UserError,
)

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
