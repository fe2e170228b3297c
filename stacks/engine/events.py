"""Progress events of a run, translated from the engine's events."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...components.provider.base import FAILURE_CODE
from ...runtime.common.errors import RefusedError
from .policies import EXECUTABLE

if TYPE_CHECKING:
    from pulumi.automation import EngineEvent

_CODE = re.compile(rf"{re.escape(FAILURE_CODE)}(\d)\b")

Kind = Literal["started", "done", "failed", "message", "note", "summary"]


@dataclass(frozen=True)
class Event:
    """One event of a run.

    Attributes:
        kind: `started`, `done` and `failed` concern one resource, `message` comes from a resource or the program,
            `note` from tidemill, and `summary` ends a run.
        operation: operation on the resource: create, update, replace, delete, refresh, same.
        type: type of the resource.
        name: name of the resource.
        seconds: duration of the operation, or of the whole run.
        text: text of a message or note.
        severity: severity of a message: info, warning, error.
        changes: operation -> number of resources, in a summary.
        exit_code: exit code of an error, if one of tidemill's resources reported it.
    """

    kind: Kind
    operation: str = ""
    type: str = ""
    name: str = ""
    seconds: float | None = None
    text: str = ""
    severity: str = ""
    changes: dict[str, int] | None = None
    exit_code: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the event as JSON, without empty fields."""
        return {key: value for key, value in asdict(self).items() if value not in ("", None)}


Listener = Callable[[Event], None]


class Translator:
    """Translates the engine's events.

    Args:
        listener: receives each translated event.
    """

    def __init__(self, listener: Listener) -> None:
        self.errors: list[Event] = []
        self.changes: dict[str, int] = {}
        self.refreshed: dict[str, str] = {}
        self._listener = listener
        self._started: dict[str, float] = {}
        self._codes: dict[str, int] = {}

    def __call__(self, event: EngineEvent) -> None:
        """Translate one event of the engine."""
        if event.resource_pre_event:
            metadata = event.resource_pre_event.metadata
            self._started[metadata.urn] = time.monotonic()
            self._report("started", metadata)
        elif event.res_outputs_event:
            metadata = event.res_outputs_event.metadata
            self._report("done", metadata, self._seconds(metadata.urn))
        elif event.res_op_failed_event:
            metadata = event.res_op_failed_event.metadata
            self._report("failed", metadata, self._seconds(metadata.urn))
        elif event.diagnostic_event:
            self._report_diagnostic(event.diagnostic_event)
        elif event.policy_event:
            self._report_violation(event.policy_event)
        elif event.summary_event:
            changes = event.summary_event.resource_changes or {}
            self.changes = {getattr(key, "value", str(key)): int(value) for key, value in changes.items()}
            self._listener(Event("summary", changes=self.changes, seconds=float(event.summary_event.duration_seconds)))

    def _seconds(self, urn: str) -> float | None:
        started = self._started.pop(urn, None)
        return None if started is None else round(time.monotonic() - started, 3)

    def _report(self, kind: Kind, metadata: Any, seconds: float | None = None) -> None:
        if str(metadata.type).startswith("pulumi:"):
            return
        operation = str(getattr(metadata.op, "value", metadata.op))
        name = str(metadata.urn).rsplit("::", 1)[1]
        self._listener(Event(kind, operation=operation, type=str(metadata.type), name=name, seconds=seconds))

    def _report_violation(self, violation: Any) -> None:
        # The first line of the message is the title of the rule.
        text = str(violation.message).strip().rpartition("\n")[2]
        refused = violation.enforcement_level == "mandatory"
        found = Event(
            "message",
            text=f"{text} (rule {violation.policy_name})",
            severity="error" if refused else "warning",
            exit_code=RefusedError.exit_code if refused else None,
        )
        if refused:
            self.errors.append(found)
        self._listener(found)

    def _report_diagnostic(self, diagnostic: Any) -> None:
        severity = str(diagnostic.severity)
        urn = str(diagnostic.urn or "")
        if diagnostic.ephemeral and (code := _CODE.search(str(diagnostic.message))):
            self._codes[urn] = int(code[1])
            return
        # Debug messages contain whole requests with secrets: drop them.
        if severity == "debug" or diagnostic.ephemeral:
            return
        text = str(diagnostic.message).strip().removeprefix("error: ").removeprefix("warning: ").strip()
        if not text or text.startswith(f"using {EXECUTABLE} from $PATH"):
            return
        kind = urn.split("::")[2].rsplit("$", 1)[-1] if urn.count("::") >= 3 else ""
        name = urn.rsplit("::", 1)[1] if urn and not kind.startswith("pulumi:") else ""
        code = self._codes.get(urn) if severity == "error" else None
        found = Event("message", name=name, text=text, severity=severity.removesuffix("#err"), exit_code=code)
        if severity == "error":
            self.errors.append(found)
        self._listener(found)
