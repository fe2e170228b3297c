"""Request and segment ids: UUID version 7 (RFC 9562), which sort by time.

`uuid.uuid7` exists only since Python 3.14.

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

_POOL_SIZE = 256

_lock = threading.Lock()
_last = 0
_pool: list[int] = []
# A forked process must not use the same bits.
os.register_at_fork(after_in_child=_pool.clear)


def uuid7() -> UUID:
    """Return a new id, greater than all earlier ids of this process.

    The 12 bits after the milliseconds hold their fraction (RFC 9562, section 6.2, method 3). If the clock stops or runs
    backwards, the last value is incremented.
    """
    return UUID(int=_value())


def uuid7_text() -> str:
    """Return `str(uuid7())`, in a third of the time."""
    digits = f"{_value():032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7_at(seconds: float) -> UUID:
    """Return a new id for the time `seconds` since the epoch; ids of the same time are unordered.

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
    """Return 64 random bits from a pool, because each read from the kernel is a system call."""
    try:
        return _pool.pop()
    except IndexError:
        first, *rest = struct.unpack(f"{_POOL_SIZE}Q", os.urandom(8 * _POOL_SIZE))
        _pool.extend(rest)
        return first


def time_of(identifier: UUID) -> datetime:
    """Return the creation time of `identifier`, a UUIDv7: UTC, in milliseconds."""
    milliseconds = identifier.int >> 80
    return datetime.fromtimestamp(milliseconds // 1000, UTC).replace(microsecond=milliseconds % 1000 * 1000)


def parse_uuid7(text: str) -> UUID:
    """Parse a UUIDv7 in canonical form.

    Raises:
        ValueError: `text` is not a UUID, not of version 7, or not in canonical form.
    """
    identifier = UUID(text)
    if identifier.version != 7 or str(identifier) != text.lower():
        raise ValueError("not a UUIDv7 in its canonical form")
    return identifier
