"""Request and segment ids: UUID version 7 (RFC 9562), whose order is the order of time.

Python has `uuid.uuid7` from 3.14 on only.

>>> first, second = uuid7(), uuid7()
>>> (first.version, first < second)
(7, True)
"""

from __future__ import annotations

import os
import struct
import threading
import time
from datetime import UTC, datetime
from uuid import UUID

__all__ = ["parse_uuid7", "time_of", "uuid7", "uuid7_at", "uuid7_text"]

_DRAWN_AT_ONCE = 256

_lock = threading.Lock()
_last = 0
_drawn: list[int] = []
# A forked process must not give out the same ones.
os.register_at_fork(after_in_child=_drawn.clear)


def uuid7() -> UUID:
    """Return a new id, greater than every one this process made before.

    The 12 bits behind the milliseconds hold their fraction (RFC 9562, section 6.2, method 3); a clock which stands or
    runs backwards is bridged by counting on from the last value.
    """
    return UUID(int=_value())


def uuid7_text() -> str:
    """Return what `str(uuid7())` would, in a third of the time."""
    digits = f"{_value():032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7_at(seconds: float) -> UUID:
    """Return a new id of the time `seconds` since the epoch; two of one time are in no order.

    >>> time_of(uuid7_at(1.5)).isoformat()
    '1970-01-01T00:00:01.500000+00:00'
    """
    return UUID(int=_of_tick(int(seconds * 1000) << 12 | _random() >> 52))


def _value() -> int:
    global _last
    tick = (time.time_ns() << 12) // 1_000_000
    with _lock:
        _last = tick = max(tick, _last + 1)
    return _of_tick(tick)


def _of_tick(tick: int) -> int:
    return (tick >> 12 & (1 << 48) - 1) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0b10 << 62 | _random() >> 2


def _random() -> int:
    """Return 64 random bits of the system's, which are asked for many at a time: it is a call into the kernel."""
    try:
        return _drawn.pop()
    except IndexError:
        first, *rest = struct.unpack(f"{_DRAWN_AT_ONCE}Q", os.urandom(8 * _DRAWN_AT_ONCE))
        _drawn.extend(rest)
        return first


def time_of(identifier: UUID) -> datetime:
    """Return when `identifier`, a UUIDv7, was made: UTC, to the millisecond."""
    milliseconds = identifier.int >> 80
    return datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)


def parse_uuid7(text: str) -> UUID:
    """Return the UUIDv7 written as `text` in its canonical form.

    Raises:
        ValueError: it is no UUID, of another version, or not in canonical form.
    """
    identifier = UUID(text)
    if identifier.version != 7 or str(identifier) != text.lower():
        raise ValueError("not a UUIDv7 in its canonical form")
    return identifier
