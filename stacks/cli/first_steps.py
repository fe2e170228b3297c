"""After `up`: waits until every model serves, then prints addresses and a first request."""

from __future__ import annotations

import time
from pathlib import Path

from ...components.layout import StackRoot
from ...runtime.common.errors import PlatformError, RefusedError
from ..loading import LoadedStack
from ..operations import stack_operations
from ..overview import LOGINS, ModelView, RetrainingView, model_view, monitored, retrainings, unvalidated_commits
from .progress import Progress

_POLL_SECONDS = 1.0


def wait_until_serving(loaded: LoadedStack, progress: Progress, timeout: float) -> None:
    """Wait until every model of the stack serves, and show the stage of each.

    Raises:
        RefusedError: the gate refused the first version of a model.
        PlatformError: a training failed, or `timeout` seconds are over.
    """
    operations = stack_operations(loaded)
    waiting = dict.fromkeys(loaded.config.models, "")
    deadline = time.monotonic() + timeout
    ended_before: set[str] | None = None
    last: RetrainingView | None = None
    while waiting:
        known = None
        for name in list(waiting):
            view = model_view(operations, name)
            if view.ready:
                progress.end(name)
                progress.say(f"  {_serving_line(view)}")
                del waiting[name]
                continue
            if known is None:
                known = retrainings(operations)
                if ended_before is None:
                    ended_before = {retraining.id for retraining in known if retraining.state in _END_STATES}
            latest = next((retraining for retraining in known if retraining.model == name), None)
            last = latest or last
            stage = _stage(name, latest, view)
            if stage != waiting[name]:
                waiting[name] = stage
                progress.stage(name, stage)
            if latest and latest.id not in (ended_before or ()):
                _raise_if_unsuccessful(name, latest)
        if not waiting:
            return
        if time.monotonic() > deadline:
            detail = f" ({last.detail})" if last and last.detail else ""
            raise PlatformError(
                f"the platform is up, but does not serve after {timeout:.0f} s{detail}",
                field=", ".join(waiting),
                hint="the training continues; see `tidemill status` and `tidemill logs retraining`",
            )
        time.sleep(_POLL_SECONDS)


_END_STATES = ("done", "failed", "refused")


def _raise_if_unsuccessful(name: str, retraining: RetrainingView) -> None:
    if retraining.state == "refused":
        raise RefusedError(
            f"the platform is up, but the gate refused the first version: {retraining.detail}",
            field=name,
            hint="improve the training, or change `promote` in the config; see `tidemill logs retraining`",
        )
    if retraining.state == "failed":
        hint = f"see {retraining.log or '`tidemill logs retraining`'}"
        raise PlatformError(f"the platform is up, but the training failed: {retraining.detail}", field=name, hint=hint)


def _stage(name: str, retraining: RetrainingView | None, view: ModelView) -> str:
    if retraining is None:
        return f"{name}: waiting for the alert that it has no champion"
    if retraining.state == "done":
        return f"{name}: trained; waiting until it serves ({view.problem})" if view.problem else f"{name}: trained"
    return f"{name}: {retraining.state}" + (f", {retraining.detail}" if retraining.detail else "")


def _serving_line(view: ModelView) -> str:
    data, code = (view.lake_commit or "?")[:12], (view.git_commit or "?")[:12]
    return f"{view.name}: serving version {view.version} (data {data}, code {code})"


def print_first_steps(loaded: LoadedStack, progress: Progress) -> None:
    """Print the address and the credentials file of each service, and a first request."""
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
        if key and example and model_view(operations, name).ready:
            progress.say("\nA first request (bash or zsh; the key stays out of the command line):\n")
            progress.say(f"  curl -s {url}/invocations -H 'Content-Type: application/json' \\")
            progress.say(f"    -H @<(printf 'Authorization: Bearer %s' \"$(cat {key})\") \\")
            progress.say(f"    --data @{example}")
    for commit in unvalidated_commits(monitored(operations)):
        progress.say(f"\n  {commit}")
    progress.say("\n`tidemill status` shows the health of all services.")


def _example(loaded: LoadedStack, service: str) -> Path | None:
    """Return the example request that MLflow stored with the served version, if it is on this machine."""
    folder = StackRoot.of(loaded.project, loaded.config.stack).service(service)
    return next(iter(sorted(folder.glob("**/serving_input_example.json"))), None)
