"""Who is let in: keys, and bounds on what is under way, so that a server with too much to do says so at once."""

from __future__ import annotations

from collections.abc import Mapping

from ..inference.batcher import Batcher
from ..settings import LimitSettings
from .errors import Problem
from .keys import Keys

__all__ = ["Admission"]


class Admission:
    """Counts the requests under way of one worker.

    Args:
        keys: who may ask.
        limits: how much.
        batcher: how busy the model is.
    """

    def __init__(self, keys: Keys, limits: LimitSettings, batcher: Batcher) -> None:
        self._keys = keys
        self._limits = limits
        self._batcher = batcher
        self._under_way: dict[str, int] = {}
        self.requests = 0
        self._most_wait = limits.queue_ms / 1000

    def enter(self, headers: Mapping[bytes, bytes]) -> str:
        """Return the name of the request's key and count it; `leave` must follow.

        Raises:
            Problem: 401 without a valid key, 429 where this key has too much under way, 503 where all together have.
        """
        name = self._keys.name_of(headers.get(b"authorization"), headers.get(b"x-api-key"))
        if name is None:
            raise Problem(401, "a valid API key is needed", headers={"WWW-Authenticate": "Bearer"})
        mine = self._under_way.get(name, 0)
        if mine >= self._limits.per_key:
            raise Problem(
                429, f"this key has {mine} requests under way, as many as it may have", headers={"Retry-After": "1"}
            )
        if self.requests >= self._limits.concurrency:
            raise _busy("as many requests are under way as may be")
        self._under_way[name] = mine + 1
        self.requests += 1
        return name

    def leave(self, name: str) -> None:
        """Note that a request of this key is answered."""
        self.requests -= 1
        left = self._under_way[name] - 1
        if left:
            self._under_way[name] = left
        else:
            del self._under_way[name]

    def check_queue(self) -> None:
        """Turn a request away which would wait too long.

        Raises:
            Problem: 503.
        """
        batcher = self._batcher
        if batcher.waiting_rows and (
            batcher.waiting_rows >= self._limits.queue_rows or batcher.expected_wait > self._most_wait
        ):
            raise _busy("the model has more to do than it can soon")


def _busy(why: str) -> Problem:
    return Problem(503, why, headers={"Retry-After": "1"})
