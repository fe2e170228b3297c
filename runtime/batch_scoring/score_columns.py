"""Turns outputs of every form into the columns of a file of scores."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa

from ..common.errors import ConfigError, PlatformError, UserError
from ..serving import Answer, Outputs, ServedModel, arrow_array, output_columns
from .outputs import Format


class ScoreColumns:
    """Converts the outputs of one run; all of them have the columns and types of the first.

    A data frame and a mapping give one column for each of theirs, with the prefix `prediction_` if the name is that of
    a kept column. The targets of a classifier give `scores_0`, `scores_1`. All other outputs are one column.

    Args:
        model: the model.
        file_format: of the file; in CSV, lists get a fixed size: one column for each value.
    """

    def __init__(self, model: ServedModel, file_format: Format) -> None:
        self._model = model
        self._format: Format = file_format
        self._types: dict[str, pa.DataType] | None = None

    def convert(self, outputs: Outputs, rows: int, kept: Collection[str]) -> dict[str, pa.Array]:
        """Return the columns of `outputs`, by name.

        Raises:
            UserError: there is not one value for each row.
            PlatformError: the model returned other columns or types than before.
        """
        if isinstance(outputs, Answer) and outputs.rows is None:
            raise UserError(
                f"the model returned {_counted(outputs, self._model.output)} for {rows} {_plural('row', rows)}; "
                "a table of scores needs one value for each row",
                field=self._source,
                hint="use the model server, which returns such an answer as it is",
            )
        names = isinstance(outputs, Answer) and outputs.form in ("frame", "mapping")
        if isinstance(outputs, Answer) and outputs.form == "series":
            # Its name is often that of an input column.
            columns = {self._model.output: outputs.parts[0]}
        else:
            columns = dict(output_columns(outputs, self._model.output))
        found = {
            f"prediction_{name}" if names and name in kept else name: self._array(name, values)
            for name, values in columns.items()
        }
        return self._as_before(found)

    def empty(self, kept: Collection[str]) -> dict[str, pa.Array]:
        """Return the columns for no rows, of the types that the model returned for its sample."""
        model = self._model
        field = model.output_type.field(0)
        if model.form not in ("frame", "mapping", "targets"):
            return {field.name: pa.array([], field.type)}
        targets = field.type.value_type if model.form == "targets" and pa.types.is_list(field.type) else None
        return {
            f"prediction_{name}" if model.form != "targets" and name in kept else name: pa.array(
                [], targets or self._expected(name) or pa.string()
            )
            for name in (str(tensor["name"]) for tensor in model.tensors)
        }

    @property
    def _source(self) -> str:
        return f"version {self._model.info.version}"

    def _array(self, name: str, values: Any) -> pa.Array:
        kind = self._expected(name)
        if isinstance(values, np.ndarray):
            array = arrow_array(values)
            is_number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type)
            if kind is not None and is_number and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                try:
                    return array.cast(kind)
                except pa.ArrowInvalid:
                    return array
            return array
        return arrow_array(values, kind)

    def _expected(self, name: str) -> pa.DataType | None:
        """Return the type of a column for the sample, if it is known."""
        field = self._model.output_type.field(0)
        if name == field.name:
            return field.type
        index = field.type.get_field_index(name) if pa.types.is_struct(field.type) else -1
        return field.type.field(index).type if index >= 0 else None

    def _as_before(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        if self._format == "csv":
            columns = {name: self._fixed_size(name, array) for name, array in columns.items()}
        if self._types is None:
            self._types = {name: array.type for name, array in columns.items()}
        if list(columns) != list(self._types):
            before, now = ", ".join(self._types), ", ".join(columns)
            raise PlatformError(f"the model returned the columns {now} instead of {before}", field=self._source)
        for name, kind in self._types.items():
            if columns[name].type != kind:
                try:
                    columns[name] = columns[name].cast(kind)
                except pa.ArrowException:
                    message = f"the model returned {columns[name].type} instead of {kind} for {name}"
                    raise PlatformError(message, field=self._source) from None
        return columns

    def _fixed_size(self, name: str, array: pa.Array) -> pa.Array:
        if not pa.types.is_list(array.type):
            return array
        if self._types is None:
            width = array.value_lengths()[0].as_py() or 0 if len(array) else 0
            kind = pa.list_(array.type.value_type, width)
        else:
            kind = self._types[name]
        try:
            return array.cast(kind)
        except pa.ArrowInvalid:
            raise ConfigError(
                "CSV cannot represent lists of different lengths", field=name, hint="use Parquet or Arrow"
            ) from None


def _counted(answer: Answer, output: str) -> str:
    """Return the number of values of an answer, such as `5 values`."""
    counts = {len(values) for _, values in output_columns(answer, output)}
    count = max(counts, default=0)
    return f"{count} {_plural('value', count)}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
