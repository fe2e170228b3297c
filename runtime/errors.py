"""The errors that callers of tidemill catch, under the name that training code imports."""

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
