"""The file of named API keys: `{"keys": [{"name", "sha256", "created"}]}`, mode 0600, replaced whole at each change.

    key = add_key(Path("keys.json"), "dashboard")     # told once, kept nowhere
    revoke_key(Path("keys.json"), "dashboard")

A server which reads the file takes a change up by itself. Only the standard library and `filelock` are imported.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import json
import re
import secrets
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from filelock import FileLock, Timeout

from ...common.errors import ConfigError, NotFoundError, UserError
from ...common.files import write_private

__all__ = ["KEY_PREFIX", "NamedKey", "add_key", "check_name", "new_key", "read_keys", "revoke_key"]

KEY_PREFIX = "tm_"
"""What every key begins with, so that scanners for leaked secrets can know one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What logs and metrics call the key of the listen settings.
_RESERVED = "platform"
_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class NamedKey:
    """A key as the file keeps it.

    Attributes:
        name: who it was given to.
        sha256: SHA-256 of the key, in hexadecimal.
        created: when, RFC 3339 in UTC.
    """

    name: str
    sha256: str
    created: str


def new_key() -> str:
    """Return a new key: 32 random bytes behind a prefix.

    >>> key = new_key()
    >>> key.startswith(KEY_PREFIX), len(key)
    (True, 46)
    """
    return KEY_PREFIX + secrets.token_urlsafe(32)


def check_name(name: str) -> None:
    """See to it that `name` can be a key's.

    Raises:
        UserError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            "not a name for a key",
            field="name",
            value=name,
            hint="write 1 to 64 letters, digits, dots, dashes, underscores or @, beginning with a letter or digit",
        )
    if name == _RESERVED:
        raise UserError("the server's own key goes by that name", field="name", value=name, hint="choose another")


def read_keys(path: Path) -> list[NamedKey]:
    """Return the keys in `path`, in the order in which they were added; none where there is no such file.

    Raises:
        ConfigError: it cannot be read, or is no such file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise ConfigError(f"the file of API keys cannot be read ({reason})", field="keys", value=str(path)) from None
    given = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(given, list):
        raise ConfigError('not a file of API keys: {"keys": [...]}', field="keys", value=str(path))
    keys: list[NamedKey] = []
    for index, item in enumerate(cast("list[Any]", given)):
        key = _key(item)
        if key is None or key.name in {kept.name for kept in keys}:
            wants = "wants name, sha256 (64 hexadecimal digits) and created, each name once"
            raise ConfigError(f"{wants}, in {path}", field=f"keys[{index}]")
        keys.append(key)
    return keys


def _key(item: Any) -> NamedKey | None:
    if not isinstance(item, dict):
        return None
    kept = cast("dict[str, Any]", item)
    if set(kept) != {"name", "sha256", "created"} or not all(isinstance(value, str) for value in kept.values()):
        return None
    key = NamedKey(**kept)
    return key if _NAME.fullmatch(key.name) and _SHA256.fullmatch(key.sha256) else None


def add_key(path: Path, name: str) -> str:
    """Make a key for `name`, keep its hash in `path`, and return it: it is told here and never again.

    Raises:
        UserError: the name is taken, or is none.
        ConfigError: the file is not one of keys, or cannot be written.
    """
    check_name(name)
    with _changing(path):
        keys = read_keys(path)
        if any(key.name == name for key in keys):
            raise UserError(
                "there is a key of that name", field="name", value=name, hint="revoke it first, or choose another name"
            )
        key = new_key()
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        _write(path, [*keys, NamedKey(name, hashlib.sha256(key.encode()).hexdigest(), created)])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take the key of `name` out of `path`.

    Raises:
        NotFoundError: there is none; names the nearest.
        ConfigError: the file is not one of keys, or cannot be written.
    """
    with _changing(path):
        keys = read_keys(path)
        names = [key.name for key in keys]
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = (
                f"did you mean {close[0]}?" if close else f"use one of {', '.join(names) or 'none: there are no keys'}"
            )
            raise NotFoundError("no key of that name", field="name", value=name, hint=hint)
        _write(path, [key for key in keys if key.name != name])


@contextlib.contextmanager
def _changing(path: Path) -> Generator[None]:
    """Keep others from changing `path`: two which read and write at once would lose one of the keys."""
    if not path.parent.is_dir():  # the lock would make it
        raise ConfigError("no such folder", field="keys", value=str(path.parent), hint="make it, or hint the path")
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=_LOCK_SECONDS, mode=0o600):
            yield
    except Timeout:
        raise ConfigError("another process is changing the file of API keys", field="keys", value=str(path)) from None
    except OSError as error:
        raise ConfigError(
            f"the file of API keys cannot be written ({error.strerror})", field="keys", value=str(path)
        ) from None


def _write(path: Path, keys: Sequence[NamedKey]) -> None:
    """Put `keys` into `path`: a reader sees the old file or the new one, and a crash leaves one of them."""
    write_private(path, json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n", durable=True)
