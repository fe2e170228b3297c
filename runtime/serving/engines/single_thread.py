"""One thread for each call of a model: the pools of many processes cost far more than they give."""

from __future__ import annotations

import threading

from threadpoolctl import threadpool_limits

__all__ = ["one_thread"]

_seen = threading.local()


def one_thread() -> None:
    """Let the pools of OpenMP and BLAS have one thread, for calls from this one; their limits are kept by thread."""
    if not hasattr(_seen, "limits"):
        _seen.limits = threadpool_limits(1)
