"""Who still uses a version that was swapped out: it is closed when the last call of it is over."""

from __future__ import annotations

from .model import ServedModel

__all__ = ["Leases"]


class Leases:
    """Counts the calls under way of each version. Used from the event loop alone.

    A request takes the serving version and its lease in one step of the loop, and a swap retires the old one by a later
    step, so none can be taken of a version after it was retired.
    """

    def __init__(self) -> None:
        self._calls: dict[ServedModel, int] = {}
        self._retired: set[ServedModel] = set()

    def take(self, model: ServedModel) -> None:
        """Note one more call of `model`."""
        self._calls[model] = self._calls.get(model, 0) + 1

    def give(self, model: ServedModel) -> None:
        """Note that a call of `model` is over."""
        left = self._calls[model] - 1
        if left:
            self._calls[model] = left
            return
        del self._calls[model]
        if model in self._retired:
            self._retired.discard(model)
            model.close()

    def retire(self, model: ServedModel) -> None:
        """Close `model` when no call of it is under way any more."""
        if model in self._calls:
            self._retired.add(model)
        else:
            model.close()
