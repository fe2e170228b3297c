"""`score`: a model over a lake path or files, without a server."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .context import JsonOption
from .serve import CompileOption, ModelArgument, TrackingOption, need_compilers, need_serving
from .terminal import lively

if TYPE_CHECKING:
    from ...runtime.batch_scoring import Progress, ScoringResult

__all__ = ["score"]

_STAGES = {"model": "getting the model", "publish": "writing the result"}


def score(
    model: ModelArgument,
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="A lake path, REPOSITORY/REF/PATH, or a file, folder or glob (Parquet, CSV, "
                       "Arrow).", show_default=False),
    ],
    output: Annotated[
        str,
        typer.Argument(metavar="OUT", help="A file (.parquet, .csv, .arrow), or REPOSITORY/BRANCH/PATH in the lake.",
                       show_default=False),
    ],
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Columns of the input which the result carries too, with commas between them; or all.",
                     show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT where it is there already.")] = False,
    validated: Annotated[
        bool, typer.Option("--validated", help="Take only a commit of the lake which its gate accepted.")
    ] = False,
    compiled: CompileOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Score every row of IN with a model, one row of OUT for each, in the same order and in constant memory."""
    need_serving(tracking_uri)
    if compiled:
        need_compilers()
    from ...runtime import batch_scoring

    names = [name for given in keep or () for name in given.split(",") if name]
    with _ending(), _Bar(quiet=as_json) as bar:
        done = batch_scoring.score(
            model,
            source,
            output,
            keep="all" if names == ["all"] else names,
            overwrite=overwrite,
            validated=validated,
            compiled=compiled is not False,
            tracking_uri=tracking_uri,
            progress=bar.show,
        )
    typer.echo(json.dumps(done.as_dict()) if as_json else _sentence(done))


@contextmanager
def _ending() -> Generator[None]:
    """Let SIGTERM end it as carefully as Ctrl-C, so that nothing half-written stays behind."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Bar:
    """One line on standard error, where that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._shown = lively(sys.stderr) and not quiet
        self._began = 0.0
        self._last = 0.0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._write("")

    def show(self, progress: Progress) -> None:
        """Show `progress`, ten times a second at most."""
        now = time.monotonic()
        if progress.stage == "rows" and now - self._last < 0.1:
            return
        self._last = now
        if progress.stage != "rows":
            self._write(f"{_STAGES[progress.stage]} ...")
            return
        self._began = self._began or now
        rate = progress.rows / (now - self._began) if now > self._began else 0
        files = f", file {progress.files + 1} of {progress.total_files}" if progress.total_files > 1 else ""
        self._write(f"{progress.rows:,} rows{files}, {rate:,.0f} rows/s")

    def _write(self, text: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()


def _sentence(done: ScoringResult) -> str:
    commit = f", commit {done.output_commit[:12]}" if done.output_commit else ""
    rate = f"{done.rows / done.seconds:,.0f} rows/s" if done.seconds else "at once"
    return (
        f"{done.rows:,} rows of {done.input} scored by {done.model} version {done.version} "
        f"({done.engine}, {rate}) to {done.output}{commit}"
    )
