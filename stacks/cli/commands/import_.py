"""`import`: load an archive into a new stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ....components.layout import home
from ..archive import MovingProgress, PassphraseOption, archive_passphrase, manifest_summary, manifest_text
from ..options import JsonOption, StackOption
from ..selection import load_chosen_stack
from ..terminal import interruptible


def import_(
    archive: Annotated[
        Path, typer.Argument(metavar="FILE-or-FOLDER", help="Archive that `tidemill export` wrote.",
                             show_default=False),
    ],
    stack: StackOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Load an archive into a stack that was never up. `tidemill up` then starts it with this content."""
    from ...engine.locks import run_lock
    from ...moving.factory import destination_of, require_migration, subject_of
    from ...moving.import_ import import_ as write

    loaded = load_chosen_stack(stack)
    require_migration(loaded)
    passphrase = archive_passphrase(passphrase_file, new=False)
    repositories = loaded.config.lake.repositories
    with (
        run_lock(home(loaded.project), loaded.config.stack),
        interruptible(),
        MovingProgress(quiet=as_json) as progress,
        destination_of(loaded) as destination,
    ):
        try:
            done = write(destination, subject_of(loaded), repositories, archive, passphrase, progress.show_step)
        except KeyboardInterrupt:
            progress.clear()
            typer.echo(f"interrupted; import again to continue, or delete {destination.place()} if it exists", err=True)
            raise
    if as_json:
        facts = {"stack": loaded.config.stack, "resumed": done.resumed, "kept": done.kept}
        typer.echo(json.dumps({"archive": str(archive), **manifest_summary(done.manifest), **facts}))
        return
    kept = f", {done.kept} files of them from the earlier attempt" if done.resumed else ""
    typer.echo(
        f"{loaded.config.stack}: imported {manifest_text(done.manifest)} of {done.manifest.stack} as of "
        f"{done.manifest.at.isoformat()}{kept}; run `tidemill up`"
    )
