"""The registry of drift tests: `score` looks tests up here, by name.

To add a test, write a module like `wasserstein.py` that ends in a `MEASURE`, and list it at the end of this module.
"""

from __future__ import annotations

from ...common.errors import ConfigError
from . import jensen_shannon, null_change, wasserstein
from .base import Measure

MEASURES: dict[str, Measure] = {}
"""Name -> drift test."""


def register(measure: Measure) -> Measure:
    """Add `measure` to the registry and return it.

    Raises:
        ConfigError: another test has this name.
    """
    if MEASURES.setdefault(measure.name, measure) is not measure:
        raise ConfigError("another drift test has this name", field="name", value=measure.name)
    return measure


def find_measure(name: str) -> Measure:
    """Return the drift test called `name`.

    Raises:
        ConfigError: no test has this name.
    """
    if name not in MEASURES:
        raise ConfigError("no such drift test", field="test", value=name, hint=f"use one of {', '.join(MEASURES)}")
    return MEASURES[name]


for _module in (wasserstein, jensen_shannon, null_change):
    register(_module.MEASURE)
