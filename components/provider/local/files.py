"""Files in a stack's root that the resources share: the owner's mark, the lock, private files, logs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from ....runtime.common.errors import ConfigError, NotFoundError, RefusedError
from ....runtime.common.files import write_private
from ...layout import StackRoot, find_project
from ..base import Context, Properties
from .launch import private

_TAIL_LINES = 20
_TAIL_BYTES = 16_384
_SHORTEST_SECRET = 6


def root_of(properties: Properties) -> StackRoot:
    """Return the stack's root that `properties` names."""
    return StackRoot(Path(os.path.realpath(str(properties["root"]))))


def claim(context: Context, inputs: Properties) -> StackRoot:
    """Create the stack's root if it does not exist, mark it as this stack's and return it.

    Raises:
        RefusedError: the root belongs to another stack or project.
        ConfigError: the root is not an absolute path.
    """
    if not Path(str(inputs["root"])).is_absolute():
        raise ConfigError("must be an absolute path", field="root", value=inputs["root"])
    root = root_of(inputs)
    root.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.run.mkdir(mode=0o700, exist_ok=True)
    try:
        project = find_project()
    except NotFoundError:
        project = Path.cwd()
    mine = {"project": str(project), "program": context.urn.split("::")[1], "stack": inputs["stack"]}
    with locked(root):
        found = read_json(root.owner)
        if found is None:
            write_private(root.owner, json.dumps(mine, indent=2))
        elif found != mine:
            raise RefusedError(
                f"belongs to the stack {found.get('stack')!r} of the project {found.get('project')!r}",
                field="root",
                value=str(root.path),
                hint="set another TIDEMILL_HOME for this stack, or remove the other one with `tidemill destroy`",
            )
    return root


@contextlib.contextmanager
def locked(root: StackRoot) -> Generator[None]:
    """Hold the lock of the root's small files, only for moments."""
    root.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(root.run / "files.lock", "a", opener=private) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in `path`, or None if there is none."""
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def secret_value(root: StackRoot, name: str) -> str:
    """Return the secret `name`.

    Raises:
        NotFoundError: the stack has no such secret.
    """
    try:
        return (root.secrets / name).read_text(encoding="utf-8").strip()
    except OSError:
        raise NotFoundError(
            "the stack has no such secret", field="secret", value=name, hint="run `tidemill up`"
        ) from None


def log_tail(root: StackRoot, name: str) -> str:
    """Return the last lines of the log of the service or job `name`, with the stack's secrets masked."""
    try:
        with root.log(name).open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    values = [path.read_text(encoding="utf-8").strip() for path in root.secrets.glob("*") if path.is_file()]
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return "\n".join(text.splitlines()[-_TAIL_LINES:])
