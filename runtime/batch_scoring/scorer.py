"""Scores all rows of an input in one pass: reads, converts, predicts and writes a batch at a time."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ..common.errors import PlatformError, TidemillError, UserError
from ..common.tags import ENVIRONMENT, GIT_COMMIT, GIT_DIRTY, LAKE_COMMIT, LAKE_PATH, LAKE_REPOSITORY
from ..data import LakeLike
from ..serving import AnswerError, Batch, Outputs, Problem, ServedModel, Trusted, non_finite_rows, read_params
from .column_conversion import ColumnConverter
from .inputs import Input, InputFile, open_input
from .models import open_model
from .outputs import Output, Sink, open_output, open_sink
from .score_columns import ScoreColumns

_MAX_BATCH_ROWS = 65_536
# Batches of wide models have fewer rows, to limit memory.
_BATCH_VALUES, _MIN_BATCH_ROWS = 2_000_000, 1_024
# The most Arrow data that one call gets, if a model gets all rows in one call.
_MAX_WHOLE_BYTES = 500_000_000
_LINEAGE_TAGS = (GIT_COMMIT, GIT_DIRTY, LAKE_REPOSITORY, LAKE_COMMIT, LAKE_PATH, ENVIRONMENT)


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

    Attributes:
        stage: preparing the model, reading all rows for one call of the model, scoring rows, or publishing.
        rows: scored rows, or rows that were read.
        files: finished files.
        total_files: number of files.
    """

    stage: Literal["model", "read", "rows", "publish"]
    rows: int = 0
    files: int = 0
    total_files: int = 0


@dataclass(frozen=True)
class ScoringResult:
    """The result of a run.

    Attributes:
        model, version, run_id: the model version; `run_id` is empty for a folder.
        engine, engine_note: the engine, and its difference from the original model or the reason for its choice.
        input: the scored data; for lake data, pinned to a commit.
        input_commit: the commit of the input, None for files.
        output: the destination of the scores.
        output_commit: the commit of the scores, None for a file.
        rows, files: number of rows and files that were read.
        columns: of the output, in order.
        seconds: duration.
        lineage: the tags that are stored with the output.
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
        """Return the fields as JSON values."""
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
    rows_independent: bool | None = None,
    trust: Sequence[Trusted] = (),
    non_finite: Literal["return", "refuse"] = "return",
    tracking_uri: str | None = None,
    lake: LakeLike = None,
    cache: Path | None = None,
    params: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> ScoringResult:
    """Score all rows of `source` with `model`, and write one row for each to `output`, in the same order.

    Args:
        model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a folder with an MLmodel file.
        source: a lake address (`REPOSITORY/REF/PATH`), or a file, folder or glob of Parquet, CSV or Arrow files.
        output: a file, with the format in its suffix, or `REPOSITORY/BRANCH/PATH`, which is committed.
        keep: columns of the input to copy to the output, before the scores; "all" copies all.
        overwrite: replace an existing output.
        validated: require a lake commit that passed the gate.
        compiled: use a compiled engine if its predictions agree with the model, as the server does.
        rows_independent: whether the answer for a row does not depend on the other rows in the call; None: as
            declared in the model's metadata, else only if it is known from its classes. Other models get all rows in
            one call.
        trust: what the model's files may hold; `pickle` accepts a pickle, which can run any code as this user.
        non_finite: write NaN and infinities as they are, or refuse them.
        tracking_uri: the registry; see `model_uri.registry_settings` for the default.
        lake: the lake; by default that of TIDEMILL_RUNTIME.
        cache: folder for downloaded versions; by default in the user's cache.
        params: inference parameters of the signature, as JSON values; the others have their defaults.
        progress: called regularly, in this thread.

    Raises:
        UserError: a parameter is invalid, an input is missing or does not match the model, or the output exists.
        RefusedError: the model cannot serve, or the data did not pass the gate.
        PlatformError: the registry or the lake does not answer, or the model fails.
    """
    started = time.monotonic()
    target = open_output(str(output), overwrite=overwrite, lake=lake)
    source_input = open_input(str(source), validated=validated, lake=lake)
    progress(Progress("model", total_files=source_input.files))
    with open_model(
        model,
        compiled=compiled,
        tracking_uri=tracking_uri,
        cache=cache,
        rows_independent=rows_independent,
        trust=trust,
    ) as served:
        tags = _lineage(served, source_input)
        with target.work() as work:
            run = _Run(
                served,
                target,
                work,
                keep,
                tags,
                _params(served, params),
                progress,
                refuse_non_finite=non_finite == "refuse",
            )
            run.score(source_input)
            progress(Progress("publish", run.rows, source_input.files, source_input.files))
            commit = target.publish(work, tags)
        info = served.info
        return ScoringResult(
            model=info.model,
            version=info.version,
            run_id=info.run_id,
            engine=served.engine.name,
            engine_note=served.engine_note,
            input=source_input.address,
            input_commit=source_input.lineage.get("tidemill.input.commit"),
            output=target.address,
            output_commit=commit,
            rows=run.rows,
            files=source_input.files,
            columns=run.columns,
            seconds=round(time.monotonic() - started, 3),
            lineage=tags,
        )


def _params(model: ServedModel, given: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    try:
        return read_params(model.contract, dict(given or {}))
    except Problem as problem:
        error = problem.errors[0]
        raise UserError(error.message, field=error.field.removeprefix("params.")) from None


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
        **{name: info.tags[name] for name in _LINEAGE_TAGS if name in info.tags},
    }
    return {name: value for name, value in found.items() if value}


class _WholeInput:
    """The rows of all files, for one call of a model whose rows may depend on each other.

    Attributes:
        parts: file, kept columns, their values and the number of rows, for each batch that was read.
        inputs: the model's inputs, for each batch.
        size: bytes of all of them.
        rows: number of all rows.
        absent: positions of the columns that no file has.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[InputFile, Sequence[str], pa.RecordBatch, int]] = []
        self.inputs: list[pa.RecordBatch] = []
        self.size = 0
        self.rows = 0
        self.absent: frozenset[int] = frozenset()

    def add(
        self,
        file: InputFile,
        kept: Sequence[str],
        batch: pa.RecordBatch,
        inputs: pa.RecordBatch,
        absent: frozenset[int],
    ) -> None:
        """Add a batch of a file that lacks the columns `absent`."""
        self.absent = self.absent & absent if self.parts else absent
        self.parts.append((file, kept, batch, inputs.num_rows))
        self.inputs.append(inputs)
        self.size += batch.nbytes + inputs.nbytes
        self.rows += inputs.num_rows


class _Run:
    """One pass over the input. The output is opened with the first batch, which has the types of the kept columns."""

    def __init__(
        self,
        model: ServedModel,
        target: Output,
        work: Path,
        keep: Sequence[str] | Literal["all"],
        metadata: Mapping[str, str],
        params: Mapping[str, Any] | None,
        progress: Callable[[Progress], None],
        *,
        refuse_non_finite: bool = False,
    ) -> None:
        self._refuse_non_finite = refuse_non_finite
        self._scores = ScoreColumns(model, target.format)
        self.rows = 0
        self.columns: tuple[str, ...] = ()
        self._model = model
        self._target = target
        self._work = work
        self._keep = keep
        self._metadata = metadata
        self._params = params
        self._progress = progress
        self._schema: pa.Schema | None = None
        self._all_columns: tuple[str, ...] = ()
        self._batch_rows = max(_MIN_BATCH_ROWS, min(_MAX_BATCH_ROWS, _BATCH_VALUES // len(model.contract.columns)))

    def score(self, source: Input) -> None:
        """Score all files of `source`."""
        with ExitStack() as stack:
            sink: Sink | None = None
            whole = _WholeInput() if not self._model.rows_independent else None
            for done, file in enumerate(source.open_files()):
                kept = self._kept_columns(file)
                converter = ColumnConverter(self._model.contract, file, kept)
                if whole is not None:
                    self._read_file(whole, file, kept, converter, Progress("read", 0, done, source.files))
                    if done + 1 < source.files:
                        continue
                    scored = self._score_whole(whole)
                else:
                    scored = self._score_file(file, kept, converter)
                for batch in scored:
                    if sink is None:
                        sink = stack.enter_context(open_sink(self._work, self._target.format, batch.schema))
                    sink.write(batch)
                    self.rows += batch.num_rows
                    self._progress(Progress("rows", self.rows, done, source.files))
                if sink is None and done + 1 == source.files:
                    # No file has any rows: write an empty output.
                    empty = pa.RecordBatch.from_pylist([], schema=file.schema)
                    schema = self._output_batch(file, empty, kept, self._scores.empty(kept)).schema
                    stack.enter_context(open_sink(self._work, self._target.format, schema))

    def _score_file(self, file: InputFile, kept: Sequence[str], converter: ColumnConverter) -> Iterator[pa.RecordBatch]:
        columns = list(dict.fromkeys((*kept, *converter.columns)))
        row = 1
        for batch in file.batches(columns, self._batch_rows):
            if batch.num_rows:
                outputs = self._predict(converter.convert(batch, row), converter.absent, file.name, row)
                yield self._output_batch(file, batch, kept, self._scores.convert(outputs, batch.num_rows, kept))
                row += batch.num_rows

    def _read_file(
        self, whole: _WholeInput, file: InputFile, kept: Sequence[str], converter: ColumnConverter, progress: Progress
    ) -> None:
        """Add the rows of `file` to those that the model gets in one call.

        Raises:
            UserError: they are too large for one call.
        """
        columns = list(dict.fromkeys((*kept, *converter.columns)))
        row = 1
        for batch in file.batches(columns, self._batch_rows):
            if not batch.num_rows:
                continue
            inputs = converter.convert(batch, row)
            row += batch.num_rows
            whole.add(file, kept, batch.select(list(kept)), inputs, converter.absent)
            if whole.size > _MAX_WHOLE_BYTES:
                note = self._model.merging_note.partition("; ")[0].removeprefix("requests are not merged: ")
                raise UserError(
                    "has more rows than the model can get in one call "
                    f"({whole.rows:,} rows take {whole.size:,} bytes): {note}",
                    field=file.name,
                    hint="add --rows-independent if the answer for a row does not depend on the other rows; "
                    "else score parts that belong together one after the other",
                )
            self._progress(replace(progress, rows=whole.rows))

    def _score_whole(self, whole: _WholeInput) -> Iterator[pa.RecordBatch]:
        """Score all rows in one call."""
        if not whole.parts:
            return
        table = pa.Table.from_batches(whole.inputs).combine_chunks()
        whole.inputs.clear()
        names = list(dict.fromkeys(file.name for file, *_ in whole.parts))
        name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        outputs = self._predict(table.to_batches()[0], whole.absent, name, 1)
        # All at once, so that the types are those of all values.
        columns = self._scores.convert(outputs, whole.rows, whole.parts[0][1])
        position = 0
        for file, kept, batch, rows in whole.parts:
            part = {name: array.slice(position, rows) for name, array in columns.items()}
            yield self._output_batch(file, batch, kept, part)
            position += rows

    def _kept_columns(self, file: InputFile) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(self._keep))
        if self._keep == "all":
            # In the order of the first file, also if another file has its columns in another order.
            names = self._all_columns = self._all_columns or file.columns
            if other := sorted(set(file.columns) - set(names)):
                raise UserError(
                    f"has a column {other[0]!r} that the previous files do not have",
                    field=file.name,
                    hint="name the columns to keep",
                )
        for name in names:
            if name not in file.columns:
                close = difflib.get_close_matches(name, file.columns, n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(file.columns[:20])}"
                raise UserError(f"has no column {name!r} to keep", field=file.name, hint=hint)
        if self._model.output in names and not self._model.has_columns:
            raise UserError(
                f"has a column {self._model.output!r}, the same name as the model's output",
                field=file.name,
                hint="leave it out of --keep, or rename it",
            )
        return names

    def _predict(self, batch: pa.RecordBatch, absent: frozenset[int], name: str, row: int) -> Outputs:
        where = f"{name}, rows {row} to {row + batch.num_rows - 1}"
        try:
            outputs = self._model.predict_and_learn(Batch(batch.num_rows, batch, absent=absent, params=self._params))
        except TidemillError:
            raise
        except AnswerError as error:
            raise PlatformError(str(error), field=where) from error
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:300]
            raise PlatformError(f"the model failed ({type(error).__name__}: {first})", field=where) from error
        if self._refuse_non_finite and (found := non_finite_rows(outputs)):
            at = f"{name}, row {row + found[0]}"
            raise UserError("the model has no finite output for this row", field=at)
        return outputs

    def _output_batch(
        self, file: InputFile, batch: pa.RecordBatch, kept: Sequence[str], columns: Mapping[str, pa.Array]
    ) -> pa.RecordBatch:
        schema = self._schema
        if schema is None:
            fields = [(name, _decode_dictionary(batch.column(name)).type) for name in kept]
            fields += [(name, array.type) for name, array in columns.items()]
            schema = pa.schema(fields, metadata=dict(self._metadata))
            self._schema, self.columns = schema, tuple(schema.names)
        arrays: list[pa.Array] = []
        for name in kept:
            try:
                arrays.append(_decode_dictionary(batch.column(name)).cast(schema.field(name).type))
            except pa.ArrowException as error:
                first = str(error).splitlines()[0][:300]
                raise UserError(
                    f"the column {name} has another type than in the previous files ({first})", field=file.name
                ) from None
        return pa.RecordBatch.from_arrays([*arrays, *columns.values()], schema=schema)


def _decode_dictionary(array: pa.Array) -> pa.Array:
    """Return `array` without its dictionary, which can differ between batches."""
    return array.cast(array.type.value_type) if pa.types.is_dictionary(array.type) else array
