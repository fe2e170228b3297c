"""Turns outputs of every form into the columns of a file of scores."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..common.errors import ConfigError, PlatformError, UserError
from ..serving import Answer, Outputs, ServedModel, arrow_array, output_columns
from .outputs import Format

# Its functions are created on import; a type checker does not see them.
_compute: Any = pc


class ScoreColumns:
    """Converts the outputs of one run; all of them have the columns and types of the first.

    A data frame and a mapping give one column for each of theirs. The targets of a classifier give `scores_0`,
    `scores_1`. All other outputs are one column. A column with the name of a kept column has the prefix `prediction_`,
    so often that its name is that of no other column.

    Later integers become floats if the first were floats. Floats become integers if the first were integers, and they
    are whole numbers: pandas makes floats of integers if one is missing. So NaN is null then.

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
        if isinstance(outputs, Answer) and outputs.form == "series":
            # Its name is often that of an input column.
            columns = {self._model.output: outputs.parts[0]}
        else:
            columns = dict(output_columns(outputs, self._model.output))
        names = _distinct(columns, kept)
        return self._as_before({names[name]: self._array(name, values) for name, values in columns.items()})

    def empty(self, kept: Collection[str]) -> dict[str, pa.Array]:
        """Return the columns for no rows, of the types that the model returned for its sample."""
        model = self._model
        field = model.output_type.field(0)
        if model.form not in ("frame", "mapping", "targets"):
            return {field.name: pa.array([], field.type)}
        targets = field.type.value_type if model.form == "targets" and pa.types.is_list(field.type) else None
        names = _distinct([str(tensor["name"]) for tensor in model.tensors], kept)
        return {names[name]: pa.array([], targets or self._expected(name) or pa.string()) for name in names}

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
        kind = self._model.answer_type
        if kind is None or name == self._model.output:
            return kind
        index = kind.get_field_index(name) if pa.types.is_struct(kind) else -1
        return kind.field(index).type if index >= 0 else None

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
                    columns[name] = _converted(columns[name], kind)
                except pa.ArrowException:
                    message = f"the model returned {columns[name].type} instead of {kind} for {name}"
                    hint = "return values of one type for all rows, such as only floats"
                    raise PlatformError(message, field=self._source, hint=hint) from None
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


def _distinct(names: Iterable[str], kept: Collection[str]) -> dict[str, str]:
    """Return the name in the file of each column of the outputs: none is that of another column, or of a kept one."""
    names = list(names)
    found: dict[str, str] = {}
    for name in names:
        new = name
        while new in kept or new in found.values() or (new != name and new in names):
            new = f"prediction_{new}"
        found[name] = new
    return found


def _converted(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return an array as one of `kind`.

    Raises:
        pyarrow.ArrowException: a value would change.
    """
    if pa.types.is_string(kind) and not pa.types.is_nested(array.type):
        return arrow_array(array.to_pylist(), kind)
    if pa.types.is_floating(array.type) and pa.types.is_integer(kind):
        array = _compute.if_else(_compute.is_nan(array), pa.scalar(None, array.type), array)
    return array.cast(kind)


def _counted(answer: Answer, output: str) -> str:
    """Return the number of values of an answer, such as `5 values`."""
    counts = {len(values) for _, values in output_columns(answer, output)}
    count = max(counts, default=0)
    return f"{count} {_plural('value', count)}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
