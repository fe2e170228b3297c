"""After `up`: follow until every model serves, then say how to go on."""

from __future__ import annotations

import time
from pathlib import Path

from ...components.layout import StackRoot
from ...runtime.common.errors import PlatformError, RefusedError
from ..loading import LoadedStack
from ..operations import stack_operations
from ..overview import LOGINS, ModelView, Turn, ready, turns
from .progress import Progress

__all__ = ["first_steps", "follow"]

_POLL_SECONDS = 1.0


def follow(loaded: LoadedStack, progress: Progress, timeout: float) -> None:
    """Wait until every model of the stack serves, showing the stage each is at.

    Raises:
        RefusedError: the gate refused the first version of a model.
        PlatformError: a training failed, or the time is over.
    """
    operations = stack_operations(loaded)
    waiting = dict.fromkeys(loaded.config.models, "")
    until = time.monotonic() + timeout
    before: set[str] | None = None
    last: Turn | None = None
    while waiting:
        known = None
        for name in list(waiting):
            view = ready(operations, name)
            if view.ready:
                progress.end(name)
                progress.say(f"  {_serves(view)}")
                del waiting[name]
                continue
            if known is None:
                known = turns(operations)
                before = {turn.id for turn in known if turn.state in _CLOSED} if before is None else before
            turn = next((turn for turn in known if turn.model == name), None)
            last = turn or last
            stage = _stage(name, turn, view)
            if stage != waiting[name]:
                waiting[name] = stage
                progress.stage(name, stage)
            if turn and turn.id not in (before or ()):
                _judge(name, turn)
        if not waiting:
            return
        if time.monotonic() > until:
            about = f" ({last.detail})" if last and last.detail else ""
            raise PlatformError(
                f"the platform is up, but after {timeout:.0f} s it does not serve yet{about}",
                field=", ".join(waiting),
                hint="see `tidemill status` and `tidemill logs retraining`; it goes on by itself",
            )
        time.sleep(_POLL_SECONDS)


_CLOSED = ("done", "failed", "refused")


def _judge(name: str, turn: Turn) -> None:
    if turn.state == "refused":
        raise RefusedError(
            f"the platform is up, but the gate refused the first version: {turn.detail}",
            field=name,
            hint="hint the training or `promote` in the config; `tidemill logs retraining` tells more",
        )
    if turn.state == "failed":
        where = f"see {turn.log}" if turn.log else "see `tidemill logs retraining`"
        raise PlatformError(f"the platform is up, but the training failed: {turn.detail}", field=name, hint=where)


def _stage(name: str, turn: Turn | None, view: ModelView) -> str:
    if turn is None:
        return f"{name}: waiting for the alert that it has no champion"
    if turn.state == "done":
        return f"{name}: trained; waiting until it serves ({view.problem})" if view.problem else f"{name}: trained"
    return f"{name}: {turn.state}" + (f", {turn.detail}" if turn.detail else "")


def _serves(view: ModelView) -> str:
    data, code = (view.lake_commit or "?")[:12], (view.git_commit or "?")[:12]
    return f"{view.name}: version {view.version} serves, from data {data} and code {code}"


def first_steps(loaded: LoadedStack, progress: Progress) -> None:
    """Print where everything is, and a first request; keys are named by their file, never shown."""
    operations = stack_operations(loaded)
    progress.say("")
    for name, (user, secret) in LOGINS.items():
        url = operations.url(name)
        if url:
            who = f"user in {operations.secret_place(user)}" if name == "lakefs" else f"user {user}"
            progress.say(f"  {name:<16}  {url}  ({who}, password in {operations.secret_place(secret)})")
    for name in sorted(loaded.config.models):
        service = f"serving-{name}"
        url = operations.url(service)
        if url is None:
            continue
        progress.say(f"  {service:<16}  {url}  (API key in {operations.secret_place(f'{service}-key')})")
        key = operations.secret_file(f"{service}-key")
        example = _example(loaded, service)
        if key and example and ready(operations, name).ready:
            progress.say("\nA first request (bash or zsh; the key stays out of the command line):\n")
            progress.say(f"  curl -s {url}/invocations -H 'Content-Type: application/json' \\")
            progress.say(f"    -H @<(printf 'Authorization: Bearer %s' \"$(cat {key})\") \\")
            progress.say(f"    --data @{example}")
    progress.say("\n`tidemill status` shows how it is.")


def _example(loaded: LoadedStack, service: str) -> Path | None:
    """Return a file of this machine with a request which the served version answers: MLflow keeps one with each."""
    folder = StackRoot.of(loaded.project, loaded.config.stack).service(service)
    return next(iter(sorted(folder.glob("**/serving_input_example.json"))), None)
