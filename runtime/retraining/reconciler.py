"""The rules of retraining, and the thread that brings each retraining to its end in small durable steps."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from ..common.errors import TidemillError, UnreachableError
from ..common.ids import uuid7
from .jobs.launcher import JobSpec, Launcher
from .platform import Platform
from .retrainings import Retraining, RetrainingStore, now
from .settings import Reason, RetrainedModel

_log = logging.getLogger(__name__)
_LONGEST_BACKOFF = 3600.0
_WAITING_SECONDS = 3.0
_STOP_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """The answer to an alert: whether it queued a retraining, and why."""

    queued: bool
    why: str
    retraining: str | None = None


class Retrainer:
    """Applies the rules of retraining; `step` advances every open retraining as far as possible.

    Each state is on disk before its action starts, and each action is safe to repeat. So the service continues where it
    stopped after a crash at any point.

    Args:
        models: name -> the models to retrain.
        runtime: file with the RuntimeSettings for jobs.
        store: the record of retrainings.
        launcher: runs the jobs.
        platform: the lake and the registry.
    """

    def __init__(
        self,
        models: Mapping[str, RetrainedModel],
        *,
        runtime: Path,
        store: RetrainingStore,
        launcher: Launcher,
        platform: Platform,
    ) -> None:
        self.models = models
        self.runtime = runtime
        self.store = store
        self.launcher = launcher
        self.platform = platform
        self._next_check: dict[str, float] = {}

    def fire(self, model: str, reason: str, *, why: str, served: str | None = None) -> Answer:
        """Queue a retraining for a firing alert, unless the rules forbid it."""
        config = self.models.get(model)
        if config is None:
            return Answer(False, "unknown model")
        known: Reason | None = next((trigger for trigger in config.triggers if trigger == reason), None)
        if known is None:
            return Answer(False, f"{reason!r} is not a trigger of {model}")
        if (until := self._not_before(config, known)) > now():
            return Answer(False, f"not before {until.isoformat(timespec='seconds')}")
        retraining = Retraining(
            id=str(uuid7()),
            model=model,
            reason=known,
            state="queued",
            why=why,
            what=f"{' '.join(config.command)} on {config.data}",
            served=served,
            queued_at=now(),
        )
        if not self.store.add(retraining):
            self.store.mark_resolved(model, known, served, None)
            return Answer(False, "a retraining is already open")
        _log.info("queued", extra={"retraining": retraining.id, "model": model, "reason": reason})
        return Answer(True, "queued", retraining.id)

    def resolve(self, model: str, reason: str, *, served: str | None = None, at: datetime | None = None) -> Answer:
        """Record that an alert ended."""
        known: Reason | None = next((known for known in ("no-champion", "drift") if known == reason), None)
        retraining = self.store.mark_resolved(model, known, served, at or now()) if known else None
        return Answer(False, "resolved", retraining.id if retraining else None)

    def step(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Advance every open retraining as far as possible, until `stopping` returns True."""
        for retraining in self.store.open_retrainings():
            if stopping():
                return
            if retraining.state == "waiting" and time.monotonic() < self._next_check.get(retraining.id, 0.0):
                continue
            self._next_check[retraining.id] = time.monotonic() + _WAITING_SECONDS
            try:
                changed = self._advance(retraining, self.models.get(retraining.model))
            except TidemillError as error:
                # Temporary: the retraining keeps its state and is tried again.
                changed = retraining.changed(detail=str(error))
            except Exception as error:  # noqa: BLE001 - one failure must not end the thread
                _log.exception("a retraining failed", extra={"retraining": retraining.id})
                changed = retraining.closed("failed", f"unexpected {type(error).__name__}: {error}")
            if changed != retraining:
                self.store.save(changed)
                _log.info(
                    changed.state,
                    extra={"retraining": retraining.id, "model": retraining.model, "detail": changed.detail},
                )
                if not changed.open:
                    self._next_check.pop(retraining.id, None)

    def interrupt(self) -> None:
        """Cancel the running jobs and queue their retrainings again for the next start."""
        for retraining in self.store.open_retrainings():
            if retraining.state == "running" and retraining.job:
                try:
                    if self.launcher.status(retraining.job).state != "running":
                        continue
                    self.launcher.cancel(retraining.job)
                except UnreachableError:
                    continue  # the next start finds the job again
                interruptions, detail = retraining.interruptions + 1, "interrupted because the service stopped"
                self.store.save(retraining.changed(state="queued", interruptions=interruptions, detail=detail))

    def _not_before(self, model: RetrainedModel, reason: Reason) -> datetime:
        """Return the earliest time for a new retraining: cooldown after drift, backoff after failed trainings."""
        past = self.store.launched(model.name, reason)
        if not past or (finished := past[0].finished_at) is None:
            return now()
        if reason == "drift":
            return finished + timedelta(seconds=model.cooldown)
        failures = next((index for index, retraining in enumerate(past) if retraining.state == "done"), len(past))
        if failures == 0:
            return now()
        return finished + timedelta(seconds=min(model.backoff * 2 ** (failures - 1), _LONGEST_BACKOFF))

    def _advance(self, retraining: Retraining, model: RetrainedModel | None) -> Retraining:
        if model is None:
            if retraining.job:
                self.launcher.cancel(retraining.job)
            return retraining.closed("failed", "the model was removed from the stack")
        match retraining.state:
            case "queued" | "waiting":
                return self._begin(retraining, model)
            case "running":
                return self._follow(retraining, model)
            case "judging":
                return self._judge(retraining, model)
            case _:
                return retraining

    def _begin(self, retraining: Retraining, model: RetrainedModel) -> Retraining:
        champion = self.platform.version_by_alias(model.name, "champion")
        if retraining.reason == "no-champion":
            if champion is not None:
                return retraining.closed("done", f"the model already has a champion, version {champion.version}")
            waiting = self.platform.version_by_alias(model.name, "challenger") if model.promotion == "manual" else None
            if waiting is not None:
                return retraining.closed("done", _approval_request(model.name, waiting.version))
        elif retraining.served is not None and champion is not None and champion.version != retraining.served:
            return retraining.closed("done", f"version {retraining.served} was replaced by version {champion.version}")
        newest = self.platform.newest_validated(model.data)
        if newest is None:
            return retraining.changed(state="waiting", detail="waiting for data that passed the gate")
        old = champion.data_commit if champion else None
        if retraining.reason == "drift" and old is not None and not self.platform.newer_data(model.data, old, newest):
            detail = f"waiting for data newer than commit {old}, the champion's training data"
            return retraining.changed(state="waiting", detail=detail)
        number = retraining.attempt + retraining.interruptions
        job = retraining.id if number == 1 else f"{retraining.id}-{number}"
        running = retraining.changed(
            state="running",
            detail="training",
            champion=champion.version if champion else None,
            data_commit=newest,
            job=job,
            log=self.launcher.where(job),
            started_at=now(),
        )
        self.store.save(running)
        return self._launch(running, model)

    def _launch(self, retraining: Retraining, model: RetrainedModel) -> Retraining:
        assert retraining.job is not None  # noqa: S101 - a running retraining has one
        env = {
            "TIDEMILL_RUNTIME": str(self.runtime),
            "TIDEMILL_JOB_ID": retraining.job,
            "TIDEMILL_MODEL": model.name,
            "DO_NOT_TRACK": "true",
        }
        try:
            self.launcher.launch(JobSpec(retraining.job, model.command, model.code, env))
        except UnreachableError:
            raise  # temporary; the next step asks the launcher whether the job started
        except TidemillError as error:
            return retraining.closed("failed", str(error))
        return retraining

    def _follow(self, retraining: Retraining, model: RetrainedModel) -> Retraining:
        assert retraining.job is not None  # noqa: S101 - a running retraining has one
        status = self.launcher.status(retraining.job)
        if status.state == "unknown":
            return self._launch(retraining, model)
        if status.state == "running":
            if status.started is None or time.time() - status.started < model.timeout:
                return retraining
            self.launcher.cancel(retraining.job)
            return retraining.closed("failed", f"cancelled at its time limit of {model.timeout:g} s")
        if status.state == "lost":
            self.launcher.cancel(retraining.job)  # its child processes may still run
            if retraining.attempt > 1:
                return retraining.closed("failed", "the job was lost twice: it was killed, or the machine went down")
            return retraining.changed(state="queued", attempt=2, detail="the job was lost; launching it a second time")
        if status.exit_code != 0:
            last = self.launcher.logs(retraining.job, 1).strip()
            return retraining.closed("failed", f"exit code {status.exit_code}" + (f": {last}" if last else ""))
        return retraining.changed(state="judging", detail="the job succeeded")

    def _judge(self, retraining: Retraining, model: RetrainedModel) -> Retraining:
        assert retraining.job is not None  # noqa: S101 - a judged retraining has one
        made = self.platform.version_of_job(model.name, retraining.job)
        if made is None:
            return retraining.closed(
                "failed", f"the command succeeded but registered no version of {model.name} in its own run"
            )
        commits = {"data_commit": made.data_commit, "git_commit": made.git_commit}
        retraining = retraining.changed(version=made.version, **commits)
        if not self.platform.trained_on_validated_data(made):
            detail = f"version {made.version} was not trained on data that passed the gate: use `run.read()` to get it"
            return retraining.closed("refused", detail)
        if model.promotion == "manual":
            self.platform.set_alias(model.name, "challenger", made.version)
            return retraining.closed("done", _approval_request(model.name, made.version))
        verdict = self.platform.promote(model.name, made.version, model.promote)
        retraining = retraining.changed(verdict=verdict)
        if verdict.accepted:
            return retraining.closed("done", f"version {made.version} is champion")
        return retraining.closed("refused", "; ".join(verdict.reasons))


class Reconciler:
    """The thread that calls `Retrainer.step` until it is stopped.

    Args:
        retrainer: the rules.
        every: seconds between steps.
    """

    def __init__(self, retrainer: Retrainer, every: float = 1.0) -> None:
        self._retrainer = retrainer
        self._every = every
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="retraining", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Step immediately."""
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop the thread, then cancel the jobs; the next start queues them again."""
        self._stopping = True
        self._wake.set()
        # A promotion may wait longer for the registry; the next start repeats it.
        self._thread.join(_STOP_SECONDS)
        self._retrainer.interrupt()

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._retrainer.step(lambda: self._stopping)
            except Exception:  # noqa: BLE001 - such as a full disk; the next step repeats it
                _log.exception("a step of the retrainings failed")
            self._wake.wait(self._every)
            self._wake.clear()


def _approval_request(model: str, version: str) -> str:
    return f"version {version} of {model} is the challenger; to promote it, set the alias champion in MLflow"
