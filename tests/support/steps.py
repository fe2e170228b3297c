"""Steps that build on one another, as one test: so a step never runs without those before it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest


def in_order(*steps: Callable[..., None]) -> Callable[..., None]:
    """Return one test that runs `steps` in order, with the fixtures they name.

    A step marked with `pytest.mark.parametrize` runs once for each set of its values.
    """
    given = {name for step in steps for mark in _marks(step) for name in _names(mark)}
    wanted = {name: None for step in steps for name in inspect.signature(step).parameters if name not in given}

    def scenario(**fixtures: Any) -> None:
        for step in steps:
            for values in _sets(step):
                named = {name: fixtures[name] for name in inspect.signature(step).parameters if name not in values}
                try:
                    step(**named, **values)
                except BaseException as error:
                    error.add_note(f"in the step {step.__name__} {values or ''}".rstrip())
                    raise

    kind = inspect.Parameter.KEYWORD_ONLY
    scenario.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in wanted])  # type: ignore[attr-defined]
    return scenario


def _marks(step: Callable[..., None]) -> list[pytest.Mark]:
    return [mark for mark in getattr(step, "pytestmark", []) if mark.name == "parametrize"]


def _names(mark: pytest.Mark) -> list[str]:
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def _sets(step: Callable[..., None]) -> Iterator[dict[str, Any]]:
    marks = _marks(step)
    if not marks:
        yield {}
        return
    (mark,) = marks  # one is enough for all that use this
    names = _names(mark)
    for values in mark.args[1]:
        yield dict(zip(names, values if len(names) > 1 else [values], strict=True))
