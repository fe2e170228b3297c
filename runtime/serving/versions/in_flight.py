"""Counts the calls of each version, so that a version which was replaced is closed after its last call."""

from __future__ import annotations

from .model import ServedModel


class InFlightCalls:
    """Counts the running calls of each version. Use it on the event loop only.

    A request reads the serving version and calls `begin` in one step of the loop, and a swap retires the old version in
    a later step. So no call of a version begins after it was retired.
    """

    def __init__(self) -> None:
        self._calls: dict[ServedModel, int] = {}
        self._retired: set[ServedModel] = set()

    def begin(self, model: ServedModel) -> None:
        """Count one more call of `model`."""
        self._calls[model] = self._calls.get(model, 0) + 1

    def end(self, model: ServedModel) -> None:
        """Count one call of `model` less; close the model after the last call if it was retired."""
        left = self._calls[model] - 1
        if left:
            self._calls[model] = left
            return
        del self._calls[model]
        if model in self._retired:
            self._retired.discard(model)
            model.close()

    def retire(self, model: ServedModel) -> None:
        """Close `model` after its last running call."""
        if model in self._calls:
            self._retired.add(model)
        else:
            model.close()
