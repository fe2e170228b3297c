"""The largest share that one API key may have of the labels in a published window."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Capped:
    """The rows to keep, and the number of dropped rows of each API key."""

    kept: NDArray[np.bool_]
    dropped: Mapping[str, int]


def cap_shares(senders: list[str | None], order: NDArray[np.uint64], share: float) -> Capped:
    """Keep at most `share` of the kept rows for each API key, if several keys sent labels.

    With k keys, a `share` below 1/k is impossible and counts as 1/k: all keys then have the same number of rows.
    The rows of a key that are kept are those with the smallest `order`, a hash of the request: the choice does not
    depend on features or labels, and is the same each time. Rows of unknown senders, from before keys were recorded,
    are kept.

    Args:
        senders: the key that sent the label of each row; None is unknown.
        order: a hash of each row.
        share: 0 to 1.

    >>> capped = cap_shares(["a"] * 6 + ["b"] * 2, np.arange(8, dtype="uint64"), 0.5)
    >>> capped.kept.tolist(), capped.dropped
    ([True, True, False, False, False, False, True, True], {'a': 4})
    """
    names = sorted({sender for sender in senders if sender is not None})
    kept = np.ones(len(senders), bool)
    if len(names) < 2:
        return Capped(kept, {})
    given = np.array([sender or "" for sender in senders])
    counts = {name: int(np.sum(given == name)) for name in names}
    most = _largest(list(counts.values()), len(senders) - sum(counts.values()), max(share, 1 / len(names)))
    dropped: dict[str, int] = {}
    for name, count in counts.items():
        if count > most:
            rows = np.flatnonzero(given == name)
            kept[rows[np.argsort(order[rows], kind="stable")][most:]] = False
            dropped[name] = count - most
    return Capped(kept, dropped)


def _largest(counts: list[int], others: int, share: float) -> int:
    """Return the largest number of rows of a key that is at most `share` of all kept rows."""

    def fits(most: int) -> bool:
        return most <= share * (others + sum(min(count, most) for count in counts)) + 1e-9

    # Each step of `most` adds fewer kept rows, so all numbers up to the result fit, and no larger one does.
    low, high = 0, max(counts)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
