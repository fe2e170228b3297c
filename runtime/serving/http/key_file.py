"""The file of named API keys: `{"keys": [{"name", "sha256", "created", "may"}]}`, mode 0600, replaced at each change.

    key = add_key(Path("keys.json"), "dashboard")     # the only time the key is shown
    revoke_key(Path("keys.json"), "dashboard")

`may` lists the uses of the key; without it, as in files of earlier releases, the key may do everything. A running
server detects changes of the file. This module imports only the standard library and `filelock`.
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
from typing import Any, Literal, TypeAlias, cast, get_args

from filelock import FileLock, Timeout

from ...common.errors import ConfigError, NotFoundError, UserError
from ...common.files import write_private

KEY_PREFIX = "tm_"
"""The prefix of every key, by which secret scanners recognise leaked keys."""

Use: TypeAlias = Literal["predict", "label", "read"]
"""What a key may do: `predict` (predictions, and the model's contract), `label` (send labels), `read` (status, metrics,
and the contract)."""

USES: tuple[Use, ...] = get_args(Use)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Names in logs, metrics and published windows: the platform's key, and rows without a recorded key.
_RESERVED = ("platform", "unknown")
_LOCK_SECONDS = 10.0


@dataclass(frozen=True)
class NamedKey:
    """A key in the file.

    Attributes:
        name: its owner.
        sha256: SHA-256 of the key, in hexadecimal.
        created: RFC 3339 time in UTC.
        may: its uses.
    """

    name: str
    sha256: str
    created: str
    may: tuple[Use, ...] = USES


def new_key() -> str:
    """Return a new key: a prefix and 32 random bytes.

    >>> key = new_key()
    >>> key.startswith(KEY_PREFIX), len(key)
    (True, 46)
    """
    return KEY_PREFIX + secrets.token_urlsafe(32)


def check_name(name: str) -> None:
    """Check that `name` is a valid name for a key.

    Raises:
        UserError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            "not a valid name for a key",
            field="name",
            value=name,
            hint="use 1 to 64 letters, digits, dots, dashes, underscores or @, and start with a letter or digit",
        )
    if name in _RESERVED:
        raise UserError("this name is reserved", field="name", value=name, hint="choose another name")


def read_keys(path: Path) -> list[NamedKey]:
    """Return the keys in `path`, oldest first; an empty list if the file does not exist.

    Raises:
        ConfigError: the file cannot be read, or is not a file of API keys.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not JSON"
        raise ConfigError(f"the file of API keys cannot be read ({reason})", field="keys", value=str(path)) from None
    items = cast("dict[str, Any]", document).get("keys") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise ConfigError('not a file of API keys; expected {"keys": [...]}', field="keys", value=str(path))
    keys: list[NamedKey] = []
    for index, item in enumerate(cast("list[Any]", items)):
        key = _parse(item)
        if key is None or key.name in {other.name for other in keys}:
            expected = (
                "expected name, sha256 (64 hexadecimal digits), created, and optionally may (a list of "
                f"{', '.join(USES)}), each name only once"
            )
            raise ConfigError(f"{expected}, in {path}", field=f"keys[{index}]")
        keys.append(key)
    return keys


def _parse(item: Any) -> NamedKey | None:
    if not isinstance(item, dict):
        return None
    fields = dict(cast("dict[str, Any]", item))
    may = fields.pop("may", list(USES))
    if set(fields) != {"name", "sha256", "created"} or not all(isinstance(value, str) for value in fields.values()):
        return None
    if not isinstance(may, list) or not may or not all(use in USES for use in cast("list[Any]", may)):
        return None
    key = NamedKey(**fields, may=tuple(use for use in USES if use in may))
    return key if _NAME.fullmatch(key.name) and _SHA256.fullmatch(key.sha256) else None


def parse_uses(texts: Sequence[str]) -> tuple[Use, ...]:
    """Return the uses in `texts`, each a use or a comma-separated list; all uses if `texts` is empty.

    >>> parse_uses(["label,predict"])
    ('predict', 'label')

    Raises:
        UserError: a use is unknown.
    """
    given = [use.strip() for text in texts for use in text.split(",")]
    for use in given:
        if use not in USES:
            raise UserError("not a use of a key", field="--may", value=use, hint=f"use {', '.join(USES)}")
    return tuple(use for use in USES if use in given) if given else USES


def add_key(path: Path, name: str, may: Sequence[Use] = USES) -> str:
    """Create a key for `name`, store its hash in `path`, and return the key, which is stored nowhere.

    Args:
        path: the file.
        name: the owner of the key.
        may: the uses of the key.

    Raises:
        UserError: the name is taken or invalid.
        ConfigError: the file is not a file of API keys, or cannot be written.
    """
    check_name(name)
    with _locked(path):
        keys = read_keys(path)
        if any(key.name == name for key in keys):
            raise UserError(
                "a key with this name exists", field="name", value=name, hint="revoke it first, or choose another name"
            )
        key = new_key()
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        uses: tuple[Use, ...] = tuple(use for use in USES if use in may)
        _write(path, [*keys, NamedKey(name, hashlib.sha256(key.encode()).hexdigest(), created, uses)])
    return key


def revoke_key(path: Path, name: str) -> None:
    """Remove the key of `name` from `path`.

    Raises:
        NotFoundError: no such key; the hint names the closest one.
        ConfigError: the file is not a file of API keys, or cannot be written.
    """
    with _locked(path):
        keys = read_keys(path)
        names = [key.name for key in keys]
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            known = f"use one of {', '.join(names)}" if names else "the file contains no keys"
            hint = f"did you mean {close[0]}?" if close else known
            raise NotFoundError("no key with this name", field="name", value=name, hint=hint)
        _write(path, [key for key in keys if key.name != name])


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Lock `path`: two processes that change it at the same time would lose a key."""
    if not path.parent.is_dir():  # the lock would create it
        raise ConfigError(
            "the folder does not exist", field="keys", value=str(path.parent), hint="create it, or correct the path"
        )
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
    items = [asdict(key) for key in keys]
    for item in items:
        if item["may"] == USES:
            # An earlier release refuses a file with `may`.
            del item["may"]
    write_private(path, json.dumps({"keys": items}, indent=2) + "\n", durable=True)
