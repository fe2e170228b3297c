"""Shared by `export` and `import`: the archive's passphrase, the progress, the text about its contents."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...runtime.common.errors import NotFoundError
from .terminal import StatusLine, require_terminal

if TYPE_CHECKING:
    from ..moving.contents import Step
    from ..moving.manifest import Manifest

VARIABLE = "TIDEMILL_ARCHIVE_PASSPHRASE"
"""The environment variable that may hold the passphrase."""

PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help=f"File with the archive's passphrase. Default: {VARIABLE}, or ask for it.",
                 show_default=False),
]  # fmt: skip


def archive_passphrase(file: Path | None, *, new: bool) -> str:
    """Return the passphrase from `file`, or else from the environment, or else from the user.

    Args:
        file: the file that holds it.
        new: ask twice, since the passphrase is new.

    Raises:
        NotFoundError: `file` cannot be read.
        UserError: there is no passphrase, and no terminal to ask on.
    """
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError:
            raise NotFoundError("cannot read the file", field="--passphrase-file", value=str(file)) from None
    if value := os.environ.get(VARIABLE):
        return value
    require_terminal("passphrase", f"add `--passphrase-file`, or set {VARIABLE}")
    return str(typer.prompt("Passphrase of the archive", hide_input=True, confirmation_prompt=new))


class MovingProgress(StatusLine):
    """Shows each step on standard error: in one changing line on a terminal, elsewhere in a line of its own."""

    def __init__(self, *, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self._quiet = quiet
        self._step = ""

    def show_step(self, step: Step) -> None:
        """Show `step`."""
        is_new, self._step = step.what != self._step, step.what
        if self.live:
            total = f" of {_bytes(step.total)}" if step.total else ""
            self.show(f"{step.what} ({_bytes(step.done)}{total})", force=is_new)
        elif is_new and not self._quiet:
            sys.stderr.write(f"{step.what}\n")
            sys.stderr.flush()


def _bytes(count: float) -> str:
    """Format a number of bytes.

    >>> _bytes(123), _bytes(45_678), _bytes(9.1e9)
    ('123 bytes', '45.7 kB', '9.1 GB')
    """
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def uncommitted_paths(manifest: Manifest) -> list[str]:
    """Return the paths that were not committed, so the archive does not hold them."""
    return [f"{name}/{path}" for name, repository in manifest.repositories.items() for path in repository.left_out]


def manifest_summary(manifest: Manifest) -> dict[str, Any]:
    """Return the contents of an archive as JSON."""
    rows = {name: sum(table.rows for table in found.tables.values()) for name, found in manifest.databases.items()}
    return {
        "id": manifest.id,
        "created": manifest.created.isoformat(),
        "of": manifest.stack,
        "versions": manifest.versions,
        "files": manifest.files,
        "bytes": manifest.bytes,
        "repositories": {
            name: {"branches": repository.branches, "commits": repository.commits, "runs": repository.runs}
            for name, repository in manifest.repositories.items()
        },
        "rows": rows,
        "stores": {name: store.model_dump() for name, store in manifest.stores.items()},
        "secrets": len(manifest.secrets),
        "left_out": uncommitted_paths(manifest),
        "unresolved": manifest.unresolved,
    }


def manifest_text(manifest: Manifest) -> str:
    """Return the contents of an archive as text."""
    commits = sum(repository.commits for repository in manifest.repositories.values())
    rows = sum(table.rows for found in manifest.databases.values() for table in found.tables.values())
    return (
        f"{commits} commits of {len(manifest.repositories)} repositories, {rows:,} rows of MLflow, "
        f"{len(manifest.stores)} stores and {len(manifest.secrets)} secrets ({manifest.files:,} files, "
        f"{_bytes(manifest.bytes)})"
    )
