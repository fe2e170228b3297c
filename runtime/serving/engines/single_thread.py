"""Limits each call of a model to one thread: thread pools in many processes cost more than they gain."""

from __future__ import annotations

import threading

from threadpoolctl import threadpool_limits

_local = threading.local()


def limit_threads() -> None:
    """Limit OpenMP and BLAS to one thread for calls from the current thread; the limit is kept per thread."""
    if not hasattr(_local, "limits"):
        _local.limits = threadpool_limits(1)
