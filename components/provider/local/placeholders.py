"""Resolves the placeholders of `components.targets.base` for processes on this machine."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ....runtime.common.errors import ConfigError
from ....runtime.common.files import write_private
from ...layout import StackRoot
from ...placeholders import PLACEHOLDER, substitute
from .files import locked, secret_value

_NAMED: Final = frozenset({"secret-file", "secret", "bcrypt", "store", "database", "tool", "tool-home"})
_PLAIN: Final = frozenset({"config", "python", "host", "port", "scratch"})
_SECRET: Final = frozenset({"secret", "bcrypt"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# Prometheus and Alertmanager check the hash at every request: 2^10 rounds take about 50 ms; passwords are random.
_BCRYPT_COST = 10
_BCRYPT_LIMIT = 72
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BCRYPT64 = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def check_placeholders(text: str, field: str, *, secrets: bool) -> None:
    """Check the placeholders in a text.

    Args:
        text: the text to check.
        field: the input that contains it.
        secrets: whether it may contain values of secrets.

    Raises:
        ConfigError: a placeholder does not exist, or a secret's value would be visible to others.
    """
    for found in PLACEHOLDER.finditer(text):
        kind, name = found[1], found[2]
        known = kind in _NAMED if name is not None else kind in _PLAIN
        if not known or (name is not None and not _NAME.fullmatch(name)):
            raise ConfigError("no such placeholder", field=field, value=found[0])
        if kind in _SECRET and not secrets:
            raise ConfigError(
                "a secret's value may only be used in a config file",
                field=field,
                value=found[0],
                hint="use a config file, `secretEnv`, or @{secret-file:...}",
            )


@dataclass(frozen=True)
class Placeholders:
    """Resolves the placeholders in the texts of one service or job.

    Attributes:
        root: the stack's root.
        folder: the folder of the service or job, with its `config` and `scratch`.
        endpoint: host and port of its first endpoint, or None.
        tool: returns the path of a program.
        hashed: insert hashes of secrets, and tidemill's version for Python; for comparing texts without writing them.
    """

    root: StackRoot
    folder: Path
    endpoint: tuple[str, int] | None
    tool: Callable[[str], Path]
    hashed: bool = False

    def resolve(self, text: str) -> str:
        """Return `text` with every placeholder replaced.

        Raises:
            ConfigError: a placeholder does not exist, or there is no endpoint.
            NotFoundError: there is no such secret.
            ToolError: the program cannot be installed.
        """
        return substitute(text, self._value)

    def _value(self, kind: str, name: str, whole: str) -> str:
        match kind:
            case "config" | "scratch":
                return str(self.folder / kind)
            case "python":
                # A running process imports modules late: after an upgrade it must not find those of another version.
                return f"{sys.executable} {_version()}" if self.hashed else sys.executable
            case "secret-file":
                return str(self.root.secrets / name)
            case "secret" | "bcrypt" if self.hashed:
                return hashlib.sha256(secret_value(self.root, name).encode()).hexdigest()
            case "secret":
                return secret_value(self.root, name)
            case "bcrypt":
                return _bcrypt(secret_value(self.root, name), self.salt_key(), name)
            case "store":
                return str(self.root.data(name))
            case "database":
                return f"sqlite:///{self.root.data(name) / name}.db"
            case "tool":
                return str(self.tool(name))
            case "tool-home":
                return str(_home(self.tool(name).resolve(), name))
            case "host" | "port" if self.endpoint:
                return str(self.endpoint[0 if kind == "host" else 1])
            case _:
                raise ConfigError("cannot be resolved here", field="placeholder", value=whole)

    def salt_key(self) -> bytes:
        """Return the key from which salts are derived, so that a config is written the same each time."""
        path = self.root.run / "salt"
        with locked(self.root):
            if not path.is_file():
                write_private(path, os.urandom(32).hex())
            return path.read_bytes()


def _home(program: Path, name: str) -> Path:
    """Return the folder of the program's other files: its unpacked archive, or `share` of its prefix."""
    prefix = program.parent.parent
    share = prefix / "share" / name
    return share if share.is_dir() and not (prefix / "conf").is_dir() else prefix


@functools.lru_cache(maxsize=1)
def _version() -> str:
    from importlib.metadata import version

    return version("tidemill")


@functools.lru_cache(maxsize=64)
def _bcrypt(secret: str, key: bytes, name: str) -> str:
    import bcrypt

    if len(secret.encode()) > _BCRYPT_LIMIT:
        raise ConfigError(f"is longer than the {_BCRYPT_LIMIT} bytes that bcrypt accepts", field=f"secret {name}")
    raw = hmac.digest(key, secret.encode(), "sha256")[:16]
    salt = base64.b64encode(raw).rstrip(b"=").translate(bytes.maketrans(_BASE64, _BCRYPT64))
    return bcrypt.hashpw(secret.encode(), b"$2b$%d$%s" % (_BCRYPT_COST, salt)).decode()
