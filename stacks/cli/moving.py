"""`export` and `import`: a stack's contents, moved to another machine or target."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...components.layout import home
from ...runtime.common.errors import NotFoundError, UserError
from .context import JsonOption, StackOption, load_chosen_stack
from .terminal import lively

if TYPE_CHECKING:
    from ..moving.contents import Step
    from ..moving.manifest import Manifest

__all__ = ["export", "import_"]

VARIABLE = "TIDEMILL_ARCHIVE_PASSPHRASE"
"""Where the passphrase may stand."""

_MENTIONED = 10

PassphraseOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help=f"A file with the archive's passphrase. Default: {VARIABLE}, or it is "
                 "asked for.", show_default=False),
]  # fmt: skip


def export(
    archive: Annotated[
        Path, typer.Argument(metavar="FILE-or-FOLDER", help="Where the archive will be: a FILE.tar, or a folder.",
                             show_default=False),
    ],
    stack: StackOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Write a stack's data, models, traffic and keys into an archive; the stack stays as it is, and up."""
    from ..moving.export import export as write
    from ..moving.factory import old_ends_of, require_ends, subject_of
    from ..operations import deployed_operations

    loaded = load_chosen_stack(stack)
    require_ends(loaded)
    deployed_operations(loaded)
    passphrase = _passphrase(passphrase_file, new=True)
    with _working(quiet=as_json) as bar, old_ends_of(loaded) as ends:
        manifest = write(ends, subject_of(loaded), archive, passphrase, bar.show)
    if as_json:
        typer.echo(json.dumps({"archive": str(archive), **_summary(manifest)}))
        return
    typer.echo(f"{loaded.config.stack}: {_sentence(manifest)} in {archive}")
    _mention("was written and not committed, so it is not in the archive", _left_out(manifest))
    _mention("is named by a run and is not in the lake any more", manifest.unresolved)


def import_(
    archive: Annotated[
        Path, typer.Argument(metavar="FILE-or-FOLDER", help="The archive which `tidemill export` wrote.",
                             show_default=False),
    ],
    stack: StackOption = None,
    passphrase_file: PassphraseOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Give a stack which was never up what an archive holds; `tidemill up` then brings it up with that."""
    from ..engine.locks import run_lock
    from ..moving.factory import new_ends_of, require_ends, subject_of
    from ..moving.import_ import import_ as write

    loaded = load_chosen_stack(stack)
    require_ends(loaded)
    passphrase = _passphrase(passphrase_file, new=False)
    repositories = loaded.config.lake.repositories
    with (
        run_lock(home(loaded.project), loaded.config.stack),
        _working(quiet=as_json) as bar,
        new_ends_of(loaded) as ends,
    ):
        try:
            done = write(ends, subject_of(loaded), repositories, archive, passphrase, bar.show)
        except KeyboardInterrupt:
            bar.clear()
            typer.echo(f"interrupted; import again to go on, or delete {ends.place()} if it is there", err=True)
            raise
    if as_json:
        facts = {"stack": loaded.config.stack, "resumed": done.resumed, "kept": done.kept}
        typer.echo(json.dumps({"archive": str(archive), **_summary(done.manifest), **facts}))
        return
    again = f", {done.kept} files of them from the attempt before" if done.resumed else ""
    typer.echo(
        f"{loaded.config.stack}: has {_sentence(done.manifest)} of {done.manifest.stack} as of "
        f"{done.manifest.at.isoformat()}{again}; run `tidemill up`"
    )


def _passphrase(file: Path | None, *, new: bool) -> str:
    """Return the passphrase: of the file, of the environment, or of whoever is asked."""
    if file is not None:
        try:
            return file.read_text(encoding="utf-8").strip()
        except OSError:
            raise NotFoundError("cannot be read", field="--passphrase-file", value=str(file)) from None
    if value := os.environ.get(VARIABLE):
        return value
    if not sys.stdin.isatty():
        raise UserError(
            "there is nobody to ask", field="passphrase", hint=f"give `--passphrase-file`, or set {VARIABLE}"
        )
    return str(typer.prompt("Passphrase of the archive", hide_input=True, confirmation_prompt=new))


@contextmanager
def _working(*, quiet: bool) -> Generator[_Bar]:
    """Show how far it is; SIGTERM ends it as carefully as Ctrl-C."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    bar = _Bar(quiet=quiet)
    try:
        yield bar
    finally:
        bar.clear()
        signal.signal(signal.SIGTERM, before)


class _Bar:
    """One line on standard error: changing on a terminal; elsewhere a new one for each thing that is begun."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live = lively(sys.stderr)
        self._what = ""
        self._last = 0.0

    def show(self, step: Step) -> None:
        """Show `step`, ten times a second at most."""
        new = step.what != self._what
        if self._quiet or not (new or (self._live and time.monotonic() - self._last >= 0.1)):
            return
        self._what, self._last = step.what, time.monotonic()
        total = f" of {_bytes(step.total)}" if step.total else ""
        text = f"{step.what} ({_bytes(step.done)}{total})"
        sys.stderr.write(f"\r\x1b[K{text}" if self._live else f"{step.what}\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave no half line behind."""
        if self._live and self._what:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _bytes(count: float) -> str:
    """Return a number of bytes for people.

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


def _left_out(manifest: Manifest) -> list[str]:
    return [f"{name}/{path}" for name, about in manifest.repositories.items() for path in about.left_out]


def _summary(manifest: Manifest) -> dict[str, Any]:
    """Return what programs are told of an archive."""
    rows = {name: sum(table.rows for table in found.tables.values()) for name, found in manifest.databases.items()}
    return {
        "id": manifest.id,
        "created": manifest.created.isoformat(),
        "of": manifest.stack,
        "versions": manifest.versions,
        "files": manifest.files,
        "bytes": manifest.bytes,
        "repositories": {
            name: {"branches": about.branches, "commits": about.commits, "runs": about.runs}
            for name, about in manifest.repositories.items()
        },
        "rows": rows,
        "stores": {name: store.model_dump() for name, store in manifest.stores.items()},
        "secrets": len(manifest.secrets),
        "left_out": _left_out(manifest),
        "unresolved": manifest.unresolved,
    }


def _sentence(manifest: Manifest) -> str:
    commits = sum(about.commits for about in manifest.repositories.values())
    rows = sum(table.rows for found in manifest.databases.values() for table in found.tables.values())
    return (
        f"{commits} commits of {len(manifest.repositories)} repositories, {rows:,} rows of MLflow, "
        f"{len(manifest.stores)} stores and {len(manifest.secrets)} secrets ({manifest.files:,} files, "
        f"{_bytes(manifest.bytes)})"
    )


def _mention(how: str, things: list[str]) -> None:
    for thing in things[:_MENTIONED]:
        typer.echo(f"{thing} {how}", err=True)
    if len(things) > _MENTIONED:
        typer.echo(f"and {len(things) - _MENTIONED} more, which --json names", err=True)
