"""Shows an engine run: a live list on a terminal, plain lines elsewhere, or one JSON object per line."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

import typer

from ..engine.events import Event
from .terminal import console, is_live

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

Mode = Literal["run", "preview", "refresh"]
"""What the engine does: `preview` shows what would happen, `refresh` what differs from the state."""

_DONE = {
    "create": "created",
    "update": "updated",
    "delete": "deleted",
    "replace": "replaced",
    "create-replacement": "created again",
    "delete-replaced": "deleted the old one",
}
_QUIET = ("same", "refresh", "read")


def summary(changes: dict[str, int]) -> str:
    """Return the counts as text; empty if nothing changed.

    >>> summary({"same": 4, "create": 2})
    '2 created'
    """
    return ", ".join(f"{count} {_DONE.get(operation, operation)}" for operation, count in changes.items()
                     if operation not in _QUIET and count)  # fmt: skip


class Progress:
    """Listens to the engine's events and shows them.

    Args:
        as_json: print one JSON object per line on standard output.
        mode: what the engine does.
    """

    def __init__(self, *, as_json: bool, mode: Mode = "run") -> None:
        self.as_json = as_json
        self._mode = mode
        self._live: Live | None = None
        self._running: dict[str, tuple[str, float]] = {}
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        if not self.as_json and is_live(sys.stdout):
            from rich.live import Live

            self._live = Live(console=console(), get_renderable=self._render, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show `event`."""
        if self.as_json:
            typer.echo(json.dumps(event.as_json()))
            return
        key = f"{event.type} {event.name}"
        if event.kind == "started":
            self._running[key] = (f"{event.operation} {_kind(event)} {event.name}", time.monotonic())
        elif event.kind in ("done", "failed"):
            self._running.pop(key, None)
            if event.kind == "failed":
                self.say(f"  failed: {event.operation} {_kind(event)} {event.name}")
            elif event.operation not in _QUIET:
                word = self._word(event.operation)
                took = f" ({event.seconds:.1f} s)" if event.seconds and event.seconds >= 0.5 else ""
                self.say(f"  {word} {_kind(event)} {event.name}{took}")
        elif event.kind == "note":
            self.say(f"  {event.text}")
        elif event.kind == "message" and event.severity.startswith(("warning", "info")):
            prefix = "warning: " if event.severity.startswith("warning") else ""
            self.say(f"  {prefix}{event.name + ': ' if event.name else ''}{event.text}")

    def _word(self, operation: str) -> str:
        if self._mode == "refresh":
            return "is gone:" if operation == "delete" else "differs:"
        return f"to {operation}" if self._mode == "preview" else _DONE.get(operation, operation)

    def say(self, line: str) -> None:
        """Print `line`, but not with `--json`, which prints only events."""
        if self.as_json:
            return
        if self._live:
            # Soft wrapping keeps long commands and paths in one piece, so that they can be copied.
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            typer.echo(line)

    def stage(self, key: str, text: str) -> None:
        """Show that `key` is at the stage `text`; on a terminal this replaces its earlier stage."""
        if self.as_json:
            self(Event("note", name=key, text=text))
        elif self._live:
            began = self._running.get(key, ("", time.monotonic()))[1]
            self._running[key] = (text, began)
        else:
            typer.echo(f"  {text}")

    def end(self, key: str) -> None:
        """Remove `key` from the live list."""
        self._running.pop(key, None)

    def _render(self) -> RenderableType:
        from rich.text import Text

        now = time.monotonic()
        lines = [f"  {text} ... {now - began:.0f} s" for text, began in list(self._running.values())[:12]]
        return Text("\n".join([*lines, f"  {now - self._began:.0f} s"]), style="dim")


def _kind(event: Event) -> str:
    return event.type.rsplit(":", 1)[-1].lower()
