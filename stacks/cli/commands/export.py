"""`export`: write a stack's contents into an archive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..archive import (
    MovingProgress,
    PassphraseOption,
    archive_passphrase,
    manifest_summary,
    manifest_text,
    uncommitted_paths,
)
from ..options import JsonOption, StackOption
from ..selection import load_chosen_stack
from ..terminal import interruptible

_MOST_WARNINGS = 10


def export(
    archive: Annotated[
        Path, typer.Argument(metavar="FILE-or-FOLDER", help="Archive to write: a FILE.tar, or a folder.",
                             show_default=False),
    ],
    stack: StackOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Write a stack's data, models, traffic and keys to an archive. The stack keeps running."""
    from ...moving.export import export as write
    from ...moving.factory import require_migration, source_of, subject_of
    from ...operations import deployed_operations

    loaded = load_chosen_stack(stack)
    require_migration(loaded)
    deployed_operations(loaded)
    passphrase = archive_passphrase(passphrase_file, new=True)
    with interruptible(), MovingProgress(quiet=as_json) as progress, source_of(loaded) as source:
        manifest = write(source, subject_of(loaded), archive, passphrase, progress.show_step)
    if as_json:
        typer.echo(json.dumps({"archive": str(archive), **manifest_summary(manifest)}))
        return
    typer.echo(f"{loaded.config.stack}: {manifest_text(manifest)} in {archive}")
    _warn("was not committed, so it is not in the archive", uncommitted_paths(manifest))
    _warn("is referenced by a run, but is no longer in the lake", manifest.unresolved)


def _warn(problem: str, names: list[str]) -> None:
    for name in names[:_MOST_WARNINGS]:
        typer.echo(f"{name} {problem}", err=True)
    if len(names) > _MOST_WARNINGS:
        typer.echo(f"and {len(names) - _MOST_WARNINGS} more; --json lists all", err=True)
