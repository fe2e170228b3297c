"""Rows in, scores out: one pass in which a batch is read, checked, answered by the model and written."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from ..common.errors import ConfigError, PlatformError, TidemillError, UserError
from ..data import LakeLike
from ..serving import Batch, Outputs, ServedModel, output_array
from ..training import lineage
from .column_conversion import ColumnConverter
from .inputs import Input, InputFile, open_input
from .models import loaded
from .outputs import Output, Sink, open_output, open_sink

__all__ = ["Progress", "ScoringResult", "score"]

_ROWS = 65_536
# A batch of a wide model has fewer rows, so that it takes no more memory than one of a narrow one.
_VALUES, _LEAST_ROWS = 2_000_000, 1_024
_OF_VERSION = (
    lineage.GIT_COMMIT,
    lineage.GIT_DIRTY,
    lineage.LAKE_REPOSITORY,
    lineage.LAKE_COMMIT,
    lineage.LAKE_PATH,
    lineage.ENVIRONMENT,
)


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes:
        stage: what goes on.
        rows: rows which are scored.
        files: files which are done.
        of: how many there are.
    """

    stage: Literal["model", "rows", "publish"]
    rows: int = 0
    files: int = 0
    of: int = 0


@dataclass(frozen=True)
class ScoringResult:
    """What became of it.

    Attributes:
        model, version, run_id: the version which scored; `run_id` is empty for a folder.
        engine: what computed the scores, and `engine_note` how far that is from the model itself, or why it serves.
        input: what was scored, pinned where it is of the lake.
        input_commit: its commit, None for files.
        output: where the scores are.
        output_commit: their commit, None for a file.
        rows, files: how many were read.
        columns: the columns of the result, in order.
        seconds: how long it took.
        lineage: what is kept with the result.
    """

    model: str
    version: str
    run_id: str
    engine: str
    engine_note: str
    input: str
    input_commit: str | None
    output: str
    output_commit: str | None
    rows: int
    files: int
    columns: tuple[str, ...]
    seconds: float
    lineage: Mapping[str, str] = field(default_factory=dict[str, str])

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "columns": list(self.columns), "lineage": dict(self.lineage)}


def score(
    model: str,
    source: str | Path,
    output: str | Path,
    *,
    keep: Sequence[str] | Literal["all"] = (),
    overwrite: bool = False,
    validated: bool = False,
    compiled: bool = True,
    tracking_uri: str | None = None,
    lake: LakeLike = None,
    cache: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> ScoringResult:
    """Score every row of `source` with `model` and write one row for each, in the same order, to `output`.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a folder with an MLmodel file.
        source: a lake address (`REPOSITORY/REF/PATH`), or a file, folder or glob of Parquet, CSV or Arrow files.
        output: a file, its kind told by its suffix, or `REPOSITORY/BRANCH/PATH`, which is committed.
        keep: columns of the input which are carried to the output, before the scores; "all" carries all.
        overwrite: replace what is there.
        validated: take only a commit of the lake which its gate accepted.
        compiled: let a compiled engine compute where it agrees with the model, as the server does.
        tracking_uri: the registry; see `model_uri.registry_settings` for what is taken without.
        lake: the lake; by default that of TIDEMILL_RUNTIME.
        cache: folder for downloaded versions; by default the user's own.
        progress: told now and then how far it is, from this thread.

    Raises:
        UserError: something that was named is not there, does not fit the model, or would be overwritten.
        RefusedError: the model cannot be served, or the data did not pass the gate.
        PlatformError: registry or lake do not answer, or the model fails.
    """
    started = time.monotonic()
    target = open_output(str(output), overwrite=overwrite, lake=lake)
    rows_of = open_input(str(source), validated=validated, lake=lake)
    progress(Progress("model", of=rows_of.files))
    with loaded(model, compiled=compiled, tracking_uri=tracking_uri, cache=cache) as served:
        tags = _lineage(served, rows_of)
        with target.work() as work:
            run = _Run(served, target, work, keep, tags, progress)
            run.all(rows_of)
            progress(Progress("publish", run.rows, rows_of.files, rows_of.files))
            commit = target.publish(work, tags)
        info = served.info
        return ScoringResult(
            model=info.model,
            version=info.version,
            run_id=info.run_id,
            engine=served.engine.name,
            engine_note=served.engine_note,
            input=rows_of.address,
            input_commit=rows_of.lineage.get("tidemill.input.commit"),
            output=target.address,
            output_commit=commit,
            rows=run.rows,
            files=rows_of.files,
            columns=run.columns,
            seconds=round(time.monotonic() - started, 3),
            lineage=tags,
        )


def _lineage(model: ServedModel, source: Input) -> dict[str, str]:
    info = model.info
    found = {
        "tidemill.version": installed("tidemill"),
        "tidemill.model": info.model,
        "tidemill.model.version": info.version,
        "tidemill.model.run_id": info.run_id,
        "tidemill.model.engine": model.engine.name,
        "tidemill.input": source.address,
        **source.lineage,
        **{name: info.tags[name] for name in _OF_VERSION if name in info.tags},
    }
    return {name: value for name, value in found.items() if value}


class _Run:
    """One pass; the file is opened with the first batch, which tells the types of what is kept."""

    def __init__(
        self,
        model: ServedModel,
        target: Output,
        work: Path,
        keep: Sequence[str] | Literal["all"],
        metadata: Mapping[str, str],
        progress: Callable[[Progress], None],
    ) -> None:
        self.rows = 0
        self.columns: tuple[str, ...] = ()
        self._model = model
        self._target = target
        self._work = work
        self._keep = keep
        self._metadata = metadata
        self._progress = progress
        self._schema: pa.Schema | None = None
        self._batch_rows = max(_LEAST_ROWS, min(_ROWS, _VALUES // len(model.contract.columns)))

    def all(self, source: Input) -> None:
        """Score every part of `source`."""
        with ExitStack() as stack:
            sink: Sink | None = None
            for done, part in enumerate(source.parts()):
                kept = self._kept(part)
                fit = ColumnConverter(self._model.contract, part, kept)
                for batch in self._part(part, kept, fit):
                    if sink is None:
                        sink = stack.enter_context(open_sink(self._work, self._target.format, batch.schema))
                    sink.write(batch)
                    self.rows += batch.num_rows
                    self._progress(Progress("rows", self.rows, done, source.files))
                if sink is None and done + 1 == source.files:
                    # No file has any row; what comes out has none either.
                    schema = self._result(
                        part, pa.RecordBatch.from_pylist([], schema=part.schema), kept, np.empty(0)
                    ).schema
                    stack.enter_context(open_sink(self._work, self._target.format, schema))

    def _part(self, part: InputFile, kept: Sequence[str], fit: ColumnConverter) -> Iterator[pa.RecordBatch]:
        wanted = list(dict.fromkeys((*kept, *fit.columns)))
        row = 1
        for batch in part.batches(wanted, self._batch_rows):
            if batch.num_rows:
                yield self._result(part, batch, kept, self._predicted(fit(batch, row), part, row))
                row += batch.num_rows

    def _kept(self, part: InputFile) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(self._keep))
        if self._keep == "all":
            names = self.columns[:-1] or part.columns
            if other := sorted(set(part.columns) - set(names)):
                raise UserError(
                    f"has a column {other[0]!r} which the files before do not have",
                    field=part.name,
                    hint="name the columns to keep",
                )
        for name in names:
            if name not in part.columns:
                close = difflib.get_close_matches(name, part.columns, n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(part.columns[:20])}"
                raise UserError(f"has no column {name!r} to keep", field=part.name, hint=hint)
        if self._model.output in names:
            raise UserError(
                f"has a column {self._model.output!r}, which is what the model's answer is called",
                field=part.name,
                hint="leave it out of --keep, or rename it",
            )
        return names

    def _predicted(self, batch: pa.RecordBatch, part: InputFile, row: int) -> Outputs:
        where = f"{part.name}, rows {row} to {row + batch.num_rows - 1}"
        try:
            outputs = self._model.predict(Batch(batch.num_rows, batch))
        except TidemillError:
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:300]
            raise PlatformError(f"the model failed ({type(error).__name__}: {first})", field=where) from error
        if isinstance(outputs, np.ndarray) and outputs.dtype.kind in "fc":
            wrong = ~np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
            if wrong.any():
                at = f"{part.name}, row {row + int(wrong.argmax())}"
                raise UserError("the model has no finite answer to this row", field=at)
        return outputs

    def _result(self, part: InputFile, batch: pa.RecordBatch, kept: Sequence[str], outputs: Outputs) -> pa.RecordBatch:
        answer = self._answer(outputs)
        schema = self._schema
        if schema is None:
            fields = [(name, _decoded(batch.column(name)).type) for name in kept]
            schema = pa.schema([*fields, (self._model.output, answer.type)], metadata=dict(self._metadata))
            self._schema, self.columns = schema, tuple(schema.names)
        arrays: list[pa.Array] = []
        for name in kept:
            try:
                arrays.append(_decoded(batch.column(name)).cast(schema.field(name).type))
            except pa.ArrowException as error:
                first = str(error).splitlines()[0][:300]
                raise UserError(
                    f"its column {name} is not of the type which it has in the files before ({first})", field=part.name
                ) from None
        return pa.RecordBatch.from_arrays([*arrays, answer], schema=schema)

    def _answer(self, outputs: Outputs) -> pa.Array:
        """Return `outputs` in the type which the model promises; in CSV a list is a column for each of its values."""
        kind = self._model.output_type.field(0).type
        array = output_array(outputs, kind) if len(outputs) else pa.array([], kind)
        if array.type != kind:
            raise PlatformError(
                f"the model gave {array.type} where it had given {kind}", field=f"version {self._model.info.version}"
            )
        if self._target.format == "csv" and pa.types.is_list(kind):
            return self._of_one_length(array)
        return array

    def _of_one_length(self, array: pa.Array) -> pa.Array:
        if self._schema is None:
            width = array.value_lengths()[0].as_py() if len(array) else 0
            kind = pa.list_(array.type.value_type, width)
        else:
            kind = self._schema.field(self._model.output).type
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            raise ConfigError(
                "CSV cannot say lists of several lengths", field=self._model.output, hint="write Parquet or Arrow"
            ) from None


def _decoded(array: pa.Array) -> pa.Array:
    """Return `array` without its dictionary, which may be another one in each batch."""
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array
