"""Deadlines of requests: one periodic check of all of them, instead of a timer for each request."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any, Protocol

from .errors import Problem

SLOW_BODY = Problem(408, "the body did not arrive in time", headers={"Connection": "close"})
SLOW_ANSWER = Problem(503, "the answer took too long", headers={"Retry-After": "5"})


class Expiring(Protocol):
    """A request without a task, which knows its own deadline."""

    def expire(self, now: float) -> None:
        """Refuse the request if it is late at `now`, a value of `time.perf_counter`."""
        ...


class Deadlines:
    """The deadlines of the requests in flight.

    Attributes:
        expiring: requests without a task.
    """

    def __init__(self) -> None:
        self.expiring: set[Expiring] = set()
        self._deadlines: dict[asyncio.Task[Any], tuple[float, Problem]] = {}
        self._late: dict[asyncio.Task[Any], Problem] = {}

    def set(self, task: asyncio.Task[Any], deadline: float, problem: Problem) -> None:
        """End `task` with `problem` at `deadline`, a value of `time.perf_counter`; replaces its earlier deadline."""
        self._deadlines[task] = (deadline, problem)

    def clear(self, task: asyncio.Task[Any]) -> None:
        """Remove the deadline of `task`."""
        self._deadlines.pop(task, None)

    def check(self) -> None:
        """Cancel the requests that are late."""
        now = time.perf_counter()
        for task in [task for task, (deadline, _) in self._deadlines.items() if deadline < now]:
            self._late[task] = self._deadlines.pop(task)[1]
            task.cancel()
        for request in list(self.expiring):
            request.expire(now)

    def expire_all(self) -> None:
        """Refuse all requests without a task; the server cancels the tasks itself."""
        for request in list(self.expiring):
            request.expire(math.inf)

    def reason(self, task: asyncio.Task[Any]) -> Problem | None:
        """Return the problem if `task` was cancelled because it was late, and undo the cancellation."""
        problem = self._late.pop(task, None)
        if problem is not None:
            task.uncancel()
        return problem
