"""`score`: score a lake path or files with a model, without a server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import JsonOption
from ..serving_options import (
    CompileOption,
    IndependenceOption,
    ModelArgument,
    NonFiniteOption,
    TrackingOption,
    TrustOption,
    require_compilers,
    require_server_packages,
    trusted,
)
from ..terminal import StatusLine, interruptible

if TYPE_CHECKING:
    from ....runtime.batch_scoring import Progress, ScoringResult

_STAGES = {"model": "loading the model", "read": "reading all rows", "publish": "writing the result"}


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
        typer.Option(help="Input columns to copy to the result, separated by commas; or all.",
                     show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
    validated: Annotated[
        bool, typer.Option("--validated", help="Read only a lake commit that passed the gate.")
    ] = False,
    param: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Inference parameter of the signature; the value is JSON, or text.",
                     show_default=False),
    ] = None,
    compiled: CompileOption = None,
    rows_independent: IndependenceOption = None,
    trust: TrustOption = None,
    non_finite: NonFiniteOption = None,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Score every row of IN with a model. OUT has one row for each, in the same order.

    Memory use is constant, except for a model whose rows may depend on each other: it gets all rows in one call.
    """
    require_server_packages(tracking_uri)
    if compiled:
        require_compilers()
    from ....runtime import batch_scoring

    names = [name for given in keep or () for name in given.split(",") if name]
    with interruptible(), _RowProgress(quiet=as_json) as line:
        done = batch_scoring.score(
            model,
            source,
            output,
            keep="all" if names == ["all"] else names,
            overwrite=overwrite,
            validated=validated,
            compiled=compiled is not False,
            rows_independent=rows_independent,
            trust=trusted(trust),
            non_finite=non_finite or "return",
            tracking_uri=tracking_uri,
            params=_params(param or ()),
            progress=line.show_rows,
        )
    typer.echo(json.dumps(done.as_dict()) if as_json else _result(done))


def _params(given: Iterable[str]) -> dict[str, Any]:
    """Return the parameters of NAME=VALUE texts; a value that is not JSON is text."""
    params: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--param")
        try:
            params[name] = json.loads(value)
        except ValueError:
            params[name] = value
    return params


class _RowProgress(StatusLine):
    _started_at = 0.0

    def show_rows(self, progress: Progress) -> None:
        """Show the stage, or the number of rows and the rate."""
        if progress.stage != "rows":
            self.show(f"{_STAGES[progress.stage]} ...", force=True)
            return
        now = time.monotonic()
        self._started_at = self._started_at or now
        rate = progress.rows / (now - self._started_at) if now > self._started_at else 0
        files = f", file {progress.files + 1} of {progress.total_files}" if progress.total_files > 1 else ""
        self.show(f"{progress.rows:,} rows{files}, {rate:,.0f} rows/s")


def _result(done: ScoringResult) -> str:
    commit = f", commit {done.output_commit[:12]}" if done.output_commit else ""
    rate = f"{done.rows / done.seconds:,.0f} rows/s" if done.seconds else "no time"
    return (
        f"{done.rows:,} rows of {done.input} scored by {done.model} version {done.version} "
        f"({done.engine}, {rate}) to {done.output}{commit}"
    )
