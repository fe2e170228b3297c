"""Answers are right before anything is timed: those to many different rows at once, compared with the model's own."""

from __future__ import annotations

import numpy as np

from tests.benchmarks.serving.contestants import Served
from tests.benchmarks.serving.models import Model
from tests.benchmarks.serving.openloop import run

TOLERANCE = 1e-6
"""As tidemill demands of a compiled engine."""


def bodies(served: Served, model: Model) -> list[bytes]:
    """Return a body for each row of the model."""
    return [served.body([row]) for row in model.rows]


def check(served: Served, model: Model) -> float:
    """Ask for all rows of `model`, one a request, all at once on 64 connections; return the largest difference.

    Raises:
        RuntimeError: an answer is missing or wrong.
    """
    requests = [served.request(body) for body in bodies(served, model)]
    result = run(served.server.address, requests, np.zeros(len(requests)), connections=64, keep=True, patience=120)
    if not result.good.all():
        first = int(np.argmin(result.good))
        raise RuntimeError(f"{served.name} answers {result.count()}: {result.bodies[first][:500]!r}")
    got = np.array([served.read(body)[0] for body in result.bodies], dtype="float64")
    return _compared(served, got, model.expected)


def check_batch(served: Served, model: Model, body: bytes) -> float:
    """Ask for the model's large batch in one request; return the largest difference."""
    result = run(served.server.address, [served.request(body)], [0.0], connections=1, keep=True, patience=120)
    if not result.good.all():
        raise RuntimeError(f"{served.name} answers {result.count()}: {result.bodies[0][:500]!r}")
    return _compared(served, np.array(served.read(result.bodies[0]), dtype="float64"), model.batch_expected)


def _compared(served: Served, got: np.ndarray, expected: np.ndarray) -> float:
    difference = float(np.abs(got - expected).max())
    # Written such that NaN is wrong.
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{served.name} is wrong: {difference} away from the model itself")
    return difference
