"""Admission of requests: checks API keys and limits the requests in flight, so that a busy server refuses early."""

from __future__ import annotations

from collections.abc import Mapping

from ..inference.batcher import Batcher
from ..settings import LimitSettings
from .errors import Problem
from .key_file import Use
from .keys import Keys, KnownKey


class Admission:
    """Counts the requests in flight of one worker.

    Args:
        keys: the valid API keys.
        limits: of requests in flight and of the queue.
        batcher: reports the queue of the model.

    Attributes:
        requests: requests in flight.
    """

    def __init__(self, keys: Keys, limits: LimitSettings, batcher: Batcher) -> None:
        self._keys = keys
        self._limits = limits
        self._batcher = batcher
        self._per_key: dict[str, int] = {}
        self.requests = 0
        self._max_wait = limits.queue_ms / 1000

    def admit(self, headers: Mapping[bytes, bytes], use: Use = "predict") -> str:
        """Count a request for `use` and return the name of its key; `release` must follow.

        Raises:
            Problem: 401 without a valid key, 403 if the key has no such use, 429 if the key has too many requests in
                flight, 503 if the worker has.
        """
        key = self._keys.find(headers.get(b"authorization"), headers.get(b"x-api-key"))
        if key is None:
            raise Problem(401, "a valid API key is required", headers={"WWW-Authenticate": "Bearer"})
        if use not in key.may:
            raise Problem(403, forbidden(key, use))
        name = key.name
        count = self._per_key.get(name, 0)
        if count >= self._limits.per_key:
            raise Problem(429, f"this API key already has {count} requests in flight", headers={"Retry-After": "1"})
        if self.requests >= self._limits.concurrency:
            raise _busy("too many requests are in flight")
        self._per_key[name] = count + 1
        self.requests += 1
        return name

    def release(self, name: str) -> None:
        """Stop counting a request of the key `name`."""
        self.requests -= 1
        remaining = self._per_key[name] - 1
        if remaining:
            self._per_key[name] = remaining
        else:
            del self._per_key[name]

    def check_queue(self) -> None:
        """Refuse a request that would wait too long.

        Raises:
            Problem: 503.
        """
        batcher = self._batcher
        if batcher.waiting_rows and (
            batcher.waiting_rows >= self._limits.queue_rows or batcher.expected_wait > self._max_wait
        ):
            raise _busy("the queue of the model is too long")


def forbidden(key: KnownKey, *uses: Use) -> str:
    """Return the reason why `key` may not do a request that needs one of `uses`."""
    return (
        f"the API key {key.name} may only {', '.join(key.may)}; this request needs a key that may {' or '.join(uses)}"
    )


def _busy(detail: str) -> Problem:
    return Problem(503, detail, headers={"Retry-After": "1"})
