"""Reads the usual JSON bodies with msgspec decoders built for one contract: a few microseconds per row.

Why there are two readers: msgspec stops at the first error, often without the field's path, and accepts duplicate keys.
Locating every invalid value takes a slower walk over parsed JSON. So `json_fast` returns None for
any body it is not sure of, and `json_exact` reads it again; a property test checks that both return the same values.

msgspec checks JSON, UTF-8, types and ranges as strictly as we do, except that it keeps the last of duplicate keys.
Duplicates are found by counting quotation marks. Each key and each string in valid JSON has two, and any others are
escaped, inside a string. The decoded values tell how many keys and strings to expect. The body has exactly twice as
many quotation marks if, and only if, no key is duplicated and no string contains a quotation mark.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from operator import itemgetter
from typing import Annotated, Any, Union

import msgspec
import numpy as np
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import astuple

from ..contract.columns import LARGEST, Column, InvalidValueError, parse_rfc3339
from ..contract.model_contract import Contract
from ..inference.batch import Batch
from ..settings import LimitSettings
from .checks import Rows, is_default_index

_LONG: Any = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_TYPES: dict[str, Any] = {
    "boolean": bool,
    "integer": Annotated[int, Meta(ge=-(1 << 31), le=(1 << 31) - 1)],
    "long": _LONG,
    "float": Annotated[float, Meta(ge=-LARGEST["float"], le=LARGEST["float"])],
    "double": float,
    "string": str,
    "binary": str,
    "datetime": str,
}
_TIMES: Any = Union[str, list[str], UnsetType]  # noqa: UP007 - a value, not an annotation
# Nesting of the deepest usual body: body, `dataframe_split`, `data`, row.
_DEPTH = 4
_DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, InvalidValueError)
# The longest time: date, clock, nine decimals, offset.
_TIME_LENGTH = 35
# Column orders for which decoders are kept.
_MAX_ORDERS = 32
# Above this size numpy counts faster.
_LONG_BODY = 4096


class FastReader:
    """Reads the usual JSON bodies for one contract."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract
        columns = contract.columns
        self._width = len(columns)
        self._names = list(contract.names)
        self._longest_name = max(map(len, self._names))
        self._params = contract.default_params
        self._integers = not contract.named or any(column.integer_name for column in columns)
        self._optional_at = [at for at, column in enumerate(columns) if not column.required]
        self._optional = _getter(self._optional_at)
        texts = [(at, column) for at, column in enumerate(columns) if _TYPES[column.kind] is str]
        self._texts = [at for at, _ in texts]
        self._required_texts = sum(column.required for _, column in texts)
        self._optional_texts = _getter([at for at, column in texts if not column.required])
        self._converted = [(at, column) for at, column in texts if column.kind != "string"]
        row = msgspec.defstruct(
            "Row",
            [_field(f"f{at}", column) for at, column in enumerate(columns)],
            rename={f"f{at}": name for at, name in enumerate(self._names)},
            kw_only=True,
            forbid_unknown_fields=True,
            gc=False,
        )
        listed: Any = list[row] if contract.named else list[Union[row, _tuple(columns)]]  # noqa: UP007
        split = _struct(
            columns=_column_names(contract),
            data=list[_tuple(columns)],
            index=Union[list[_LONG], UnsetType],  # noqa: UP007
        )
        body = _struct(
            dataframe_records=Union[list[row], UnsetType],  # noqa: UP007
            dataframe_split=Union[split, UnsetType],  # noqa: UP007
            instances=Union[listed, UnsetType],  # noqa: UP007
            event_time=_TIMES,
        )
        self._decode = msgspec.json.Decoder(body).decode
        self._decode_rows = msgspec.json.Decoder(_struct(rows=list[row], event_time=_TIMES)).decode
        self._orders: dict[tuple[str, ...], tuple[Callable[[Any], Rows], Callable[[Any], Any]]] = {}

    @classmethod
    def of(cls, contract: Contract) -> FastReader | None:
        """Return the reader for `contract`, built once; None if the contract needs the exact reader."""
        try:
            return contract.derived["fast"]
        except KeyError:
            pass
        reader: FastReader | None = None
        if not contract.hinted and all(column.kind in _TYPES for column in contract.columns):
            # msgspec refuses some names, such as one with a quotation mark.
            with suppress(ValueError):
                reader = cls(contract)
        contract.derived["fast"] = reader
        return reader

    def read_invocations(self, body: bytes, limits: LimitSettings) -> Batch | None:
        """Return the rows of `body`, a body of `/invocations`, or None."""
        try:
            found: Any = self._decode(body)
        except _DECODE_ERRORS:
            return self._reordered(body, limits)
        records, split, listed = found.dataframe_records, found.dataframe_split, found.instances
        if records is UNSET and split is UNSET:
            records = listed
        elif listed is not UNSET:
            return None
        if records is not UNSET:
            if split is not UNSET or not records:
                return None
            if type(records[0]) is not tuple:
                return self._records(records, body, found.event_time, limits)
            return self._batch(records, body, 1, found.event_time, limits) if _tuples(records) else None
        if split is UNSET:
            return None
        keys, names = 3, split.columns
        if names is UNSET:
            keys, names = 2, self._names
        elif names != self._names:
            if not self._integers or [str(name) for name in names] != self._names:
                return self._reordered(body, limits)
            if self._contract.named and any(
                type(name) is int and not column.integer_name
                for name, column in zip(names, self._contract.columns, strict=True)
            ):
                return None
            keys -= sum(type(name) is int for name in names)
        if split.columns is not UNSET:
            keys += self._width
        return self._labelled(
            self._batch(split.data, body, keys + (split.index is not UNSET), found.event_time, limits), split
        )

    def read_predict(self, body: bytes, limits: LimitSettings) -> Batch | None:
        """Return the rows of `body`, a body of `/predict`, or None."""
        try:
            found: Any = self._decode_rows(body)
        except _DECODE_ERRORS:
            return None
        return self._records(found.rows, body, found.event_time, limits)

    def _records(self, records: list[Any], body: bytes, times: Any, limits: LimitSettings) -> Batch | None:
        try:
            rows: Rows = [astuple(record) for record in records]
        except TypeError:
            return None  # lists among the objects
        keys = 1 + len(rows) * self._width
        absent: frozenset[int] = frozenset()
        if self._optional is not None and (
            missing := sum([values.count(UNSET) for values in map(self._optional, rows)])
        ):
            keys -= missing
            absent = frozenset([at for at in self._optional_at if all(row[at] is UNSET for row in rows)])
            rows = [tuple([None if value is UNSET else value for value in row]) for row in rows]
        batch = self._batch(rows, body, keys, times, limits)
        if batch is not None:
            batch.absent = absent
        return batch

    def _batch(self, rows: Rows, body: bytes, strings: int, times: Any, limits: LimitSettings) -> Batch | None:
        """Return `rows` if the limits and the number of quotation marks hold, else None.

        Args:
            rows: decoded from `body`.
            body: the whole body.
            strings: expected number of keys and strings, apart from those in `rows` and `times`.
            times: decoded `event_time`, or UNSET.
            limits: of the request.
        """
        count = len(rows)
        if not 0 < count <= limits.rows or self._width > limits.columns or limits.depth < _DEPTH:
            return None
        strings += count * self._required_texts
        if self._optional_texts is not None:
            strings += sum([len(values) - values.count(None) for values in map(self._optional_texts, rows)])
        if times is not UNSET:
            strings += 2 if type(times) is str else 1 + len(times)
        if _quotes(body) != 2 * strings:
            return None
        if len(body) > limits.text and (
            self._longest_name > limits.text
            or (times is not UNSET and limits.text < _TIME_LENGTH)
            or any((text := row[at]) is not None and len(text) > limits.text for at in self._texts for row in rows)
        ):
            return None
        if times is UNSET and not self._converted:
            return Batch(count, rows, params=self._params)
        try:
            if self._converted:
                rows = self._convert(rows)
            return Batch(count, rows, None if times is UNSET else _event_times(times, count), params=self._params)
        except InvalidValueError:
            return None

    def _convert(self, rows: Rows) -> Rows:
        converted: Rows = []
        for row in rows:
            values = list(row)
            for at, column in self._converted:
                if values[at] is not None:
                    values[at] = column.convert(values[at])
            converted.append(tuple(values))
        return converted

    def _reordered(self, body: bytes, limits: LimitSettings) -> Batch | None:
        """Return the rows of a `dataframe_split` whose columns are in another order than the contract's, or None."""
        try:
            found: Any = _decode_raw(body)
            split = found.dataframe_split
            names = tuple(split.columns)
            if len(names) != self._width or set(names) != set(self._names):
                return None
            decode, reorder = self._orders.get(names) or self._decoder_of(names)
            rows: Rows = [reorder(row) for row in decode(split.data)]
        except _DECODE_ERRORS:
            return None
        keys = 3 + self._width + (split.index is not UNSET)
        return self._labelled(self._batch(rows, body, keys, found.event_time, limits), split)

    def _labelled(self, batch: Batch | None, split: Any) -> Batch | None:
        """Return `batch` with the index of `split`."""
        if batch is None or split.index is UNSET:
            return batch
        if len(split.index) != batch.rows:
            return None
        if not is_default_index(split.index):
            batch.index = split.index
        return batch

    def _decoder_of(self, names: tuple[str, ...]) -> tuple[Callable[[Any], Rows], Callable[[Any], Any]]:
        columns = [self._contract.columns[self._contract.positions[name]] for name in names]
        decode = msgspec.json.Decoder(list[_tuple(columns)]).decode
        reorder = _getter([names.index(name) for name in self._names])
        assert reorder is not None  # noqa: S101 - a contract has a column
        if len(self._orders) < _MAX_ORDERS:
            self._orders[names] = decode, reorder
        return decode, reorder


def _column_names(contract: Contract) -> Any:
    """Return the type of the names in `dataframe_split`."""
    if not contract.named:
        return Union[list[Union[str, int]], UnsetType]  # noqa: UP007
    if any(column.integer_name for column in contract.columns):
        return list[Union[str, int]]  # noqa: UP007
    return list[str]


def _field(name: str, column: Column) -> tuple[Any, ...]:
    kind = _TYPES[column.kind]
    # UNSET, not None: an absent key has no quotation marks, null has.
    return (name, kind) if column.required else (name, Union[kind, None, UnsetType], UNSET)  # noqa: UP007


def _tuple(columns: Sequence[Column]) -> Any:
    kinds = tuple(
        _TYPES[column.kind] if column.required else Union[_TYPES[column.kind], None]  # noqa: UP007
        for column in columns
    )
    return tuple[kinds]


def _struct(**kinds: Any) -> Any:
    fields = [
        (name, kind, UNSET) if UnsetType in getattr(kind, "__args__", ()) else (name, kind)
        for name, kind in kinds.items()
    ]
    return msgspec.defstruct("Body", fields, kw_only=True, forbid_unknown_fields=True, gc=False)


def _getter(positions: Sequence[int]) -> Callable[[Any], tuple[Any, ...]] | None:
    if not positions:
        return None
    if len(positions) == 1:
        only = slice(positions[0], positions[0] + 1)
        return itemgetter(only)
    return itemgetter(*positions)


def _tuples(records: list[Any]) -> bool:
    return set(map(type, records)) == {tuple}


def _quotes(body: bytes) -> int:
    if len(body) < _LONG_BODY:
        return body.count(b'"')
    return int(np.count_nonzero(np.frombuffer(body, np.uint8) == ord('"')))


def _event_times(times: Any, rows: int) -> list[datetime]:
    if type(times) is str:
        return [parse_rfc3339(times)] * rows
    if len(times) != rows:
        raise InvalidValueError("not one time per row")
    return [parse_rfc3339(text) for text in times]


_decode_raw = msgspec.json.Decoder(
    _struct(
        dataframe_split=_struct(
            columns=list[str],
            data=msgspec.Raw,
            index=Union[list[_LONG], UnsetType],  # noqa: UP007
        ),
        event_time=_TIMES,
    )
).decode
