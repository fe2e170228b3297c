"""What turns alerts into turns, and brings each turn to its end, one small durable step at a time."""

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
from .retrainings import State, Turn, TurnStore, now
from .settings import Reason, RetrainedModel

__all__ = ["Answer", "Retrainer", "Worker"]

_log = logging.getLogger(__name__)
_LONGEST_BACKOFF = 3600.0
_WAITING_SECONDS = 3.0
_STOP_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """What an alert led to: `queued` a turn, or nothing, and `why`."""

    queued: bool
    why: str
    turn: str | None = None


class Retrainer:
    """The rules of retraining; `step` brings every open turn as far as it goes now.

    A turn's state is on the disk before what it announces is done, and everything done may be done again: a service
    which was killed anywhere goes on where it was.

    Args:
        models: the models to keep fresh.
        runtime: file with the RuntimeSettings which jobs get.
        store: the turns.
        launcher: what runs jobs.
        platform: the lake and the registry.
    """

    def __init__(
        self,
        models: Mapping[str, RetrainedModel],
        *,
        runtime: Path,
        store: TurnStore,
        launcher: Launcher,
        platform: Platform,
    ) -> None:
        self.models = models
        self.runtime = runtime
        self.store = store
        self.launcher = launcher
        self.platform = platform
        self._asked: dict[str, float] = {}

    def fire(self, model: str, reason: str, *, why: str, served: str | None = None) -> Answer:
        """Queue a turn for a firing alert, unless there is a reason not to."""
        config = self.models.get(model)
        if config is None:
            return Answer(False, "no such model here")
        known: Reason | None = next((trigger for trigger in config.triggers if trigger == reason), None)
        if known is None:
            return Answer(False, f"{reason!r} is no trigger of {model}")
        if (until := self._not_before(config, known)) > now():
            return Answer(False, f"not before {until.isoformat(timespec='seconds')}")
        turn = Turn(
            id=str(uuid7()),
            model=model,
            reason=known,
            state="queued",
            why=why,
            what=f"{' '.join(config.command)} on {config.data}",
            served=served,
            queued_at=now(),
        )
        if not self.store.add(turn):
            self.store.mark_resolved(model, known, served, None)
            return Answer(False, "a turn is open")
        _log.info("queued", extra={"turn": turn.id, "model": model, "reason": reason})
        return Answer(True, "queued", turn.id)

    def resolve(self, model: str, reason: str, *, served: str | None = None, at: datetime | None = None) -> Answer:
        """Record that an alert ended."""
        known: Reason | None = next((known for known in ("no-champion", "drift") if known == reason), None)
        turn = self.store.mark_resolved(model, known, served, at or now()) if known else None
        return Answer(False, "resolved", turn.id if turn else None)

    def step(self, stopping: Callable[[], bool] = lambda: False) -> None:
        """Bring every open turn as far as it goes now, or until `stopping`."""
        for turn in self.store.open_turns():
            if stopping():
                return
            if turn.state == "waiting" and time.monotonic() < self._asked.get(turn.id, 0.0):
                continue
            self._asked[turn.id] = time.monotonic() + _WAITING_SECONDS
            try:
                changed = self._advance(turn, self.models.get(turn.model))
            except TidemillError as error:
                # The lake or the registry may be back soon; the turn stays where it is.
                changed = turn.model_copy(update={"detail": str(error)})
            except Exception as error:  # noqa: BLE001 - one turn's failure must not end the thread of all
                _log.exception("a turn failed", extra={"turn": turn.id})
                changed = _closed(turn, "failed", f"unexpected {type(error).__name__}: {error}")
            if changed != turn:
                self.store.save(changed)
                _log.info(changed.state, extra={"turn": turn.id, "model": turn.model, "detail": changed.detail})
                if not changed.open:
                    self._asked.pop(turn.id, None)

    def interrupt(self) -> None:
        """End the jobs which run; their turns are queued anew, for when the service is back."""
        for turn in self.store.open_turns():
            if turn.state == "running" and turn.job:
                try:
                    if self.launcher.status(turn.job).state != "running":
                        continue
                    self.launcher.cancel(turn.job)
                except UnreachableError:
                    continue  # it is followed when both are back
                update = {
                    "state": "queued",
                    "interruptions": turn.interruptions + 1,
                    "detail": "interrupted by a stop of the service",
                }
                self.store.save(turn.model_copy(update=update))

    def _not_before(self, model: RetrainedModel, reason: Reason) -> datetime:
        """Return from when on a new turn may be queued: cooldown after drift, backoff after trainings in vain."""
        past = self.store.launched(model.name, reason)
        if not past or (finished := past[0].finished_at) is None:
            return now()
        if reason == "drift":
            return finished + timedelta(seconds=model.cooldown)
        vain = next((index for index, turn in enumerate(past) if turn.state == "done"), len(past))
        if vain == 0:
            return now()
        return finished + timedelta(seconds=min(model.backoff * 2 ** (vain - 1), _LONGEST_BACKOFF))

    def _advance(self, turn: Turn, model: RetrainedModel | None) -> Turn:
        if model is None:
            if turn.job:
                self.launcher.cancel(turn.job)
            return _closed(turn, "failed", "the model is no longer of this stack")
        match turn.state:
            case "queued" | "waiting":
                return self._begin(turn, model)
            case "running":
                return self._follow(turn, model)
            case "judging":
                return self._judge(turn, model)
            case _:
                return turn

    def _begin(self, turn: Turn, model: RetrainedModel) -> Turn:
        champion = self.platform.version_behind(model.name, "champion")
        if turn.reason == "no-champion":
            if champion is not None:
                return _closed(turn, "done", f"already has a champion, version {champion.version}")
            waiting = self.platform.version_behind(model.name, "challenger") if model.promotion == "manual" else None
            if waiting is not None:
                return _closed(turn, "done", _asks(model.name, waiting.version))
        elif turn.served is not None and champion is not None and champion.version != turn.served:
            return _closed(turn, "done", f"version {turn.served} no longer serves, version {champion.version} does")
        newest = self.platform.newest_validated(model.data)
        if newest is None:
            return turn.model_copy(update={"state": "waiting", "detail": "waiting for data which passed the gate"})
        old = champion.data_commit if champion else None
        if turn.reason == "drift" and old is not None and not self.platform.newer_data(model.data, old, newest):
            detail = f"waiting for data newer than commit {old}, on which the champion was trained"
            return turn.model_copy(update={"state": "waiting", "detail": detail})
        number = turn.attempt + turn.interruptions
        job = turn.id if number == 1 else f"{turn.id}-{number}"
        running = turn.model_copy(
            update={
                "state": "running",
                "detail": "training",
                "champion": champion.version if champion else None,
                "data_commit": newest,
                "job": job,
                "log": self.launcher.where(job),
                "started_at": now(),
            }
        )
        self.store.save(running)
        return self._launch(running, model)

    def _launch(self, turn: Turn, model: RetrainedModel) -> Turn:
        assert turn.job is not None  # noqa: S101 - a running turn has one
        env = {
            "TIDEMILL_RUNTIME": str(self.runtime),
            "TIDEMILL_JOB_ID": turn.job,
            "TIDEMILL_MODEL": model.name,
            "DO_NOT_TRACK": "true",
        }
        try:
            self.launcher.launch(JobSpec(turn.job, model.command, model.code, env))
        except UnreachableError:
            raise  # what runs jobs may be back soon, and then is asked whether it heard
        except TidemillError as error:
            return _closed(turn, "failed", str(error))
        return turn

    def _follow(self, turn: Turn, model: RetrainedModel) -> Turn:
        assert turn.job is not None  # noqa: S101 - a running turn has one
        status = self.launcher.status(turn.job)
        if status.state == "unknown":
            return self._launch(turn, model)
        if status.state == "running":
            if status.started is None or time.time() - status.started < model.timeout:
                return turn
            self.launcher.cancel(turn.job)
            return _closed(turn, "failed", f"ended after its time limit of {model.timeout:g} s")
        if status.state == "lost":
            self.launcher.cancel(turn.job)  # what it started may live on
            if turn.attempt > 1:
                return _closed(turn, "failed", "the job was lost twice: killed, or the machine went down")
            update = {"state": "queued", "attempt": 2, "detail": "the job was lost, so it is launched once more"}
            return turn.model_copy(update=update)
        if status.exit_code != 0:
            last = self.launcher.logs(turn.job, 1).strip()
            return _closed(turn, "failed", f"exit code {status.exit_code}" + (f": {last}" if last else ""))
        return turn.model_copy(update={"state": "judging", "detail": "the job ended well"})

    def _judge(self, turn: Turn, model: RetrainedModel) -> Turn:
        assert turn.job is not None  # noqa: S101 - a judged turn has one
        made = self.platform.version_of_job(model.name, turn.job)
        if made is None:
            return _closed(
                turn, "failed", f"the command ended well and registered no version of {model.name} in its own run"
            )
        turn = turn.model_copy(
            update={"version": made.version, "data_commit": made.data_commit, "git_commit": made.git_commit}
        )
        if model.promotion == "manual":
            self.platform.set_alias(model.name, "challenger", made.version)
            return _closed(turn, "done", _asks(model.name, made.version))
        verdict = self.platform.promote(model.name, made.version, model.promote)
        turn = turn.model_copy(update={"verdict": verdict})
        if verdict.accepted:
            return _closed(turn, "done", f"version {made.version} is champion")
        return _closed(turn, "refused", "; ".join(verdict.reasons))


class Worker:
    """The thread which steps a `Retrainer` until it is stopped.

    Args:
        retrainer: what to step.
        every: seconds between two steps.
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
        """Step now."""
        self._wake.set()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Stop the thread, then the jobs, whose turns are taken up when the service is back."""
        self._stopping = True
        self._wake.set()
        # A turn which is being judged may wait for the registry for longer; it is judged anew when the service is back.
        self._thread.join(_STOP_SECONDS)
        self._retrainer.interrupt()

    def _run(self) -> None:
        while not self._stopping:
            self._retrainer.step(lambda: self._stopping)
            self._wake.wait(self._every)
            self._wake.clear()


def _asks(model: str, version: str) -> str:
    return f"version {version} of {model} waits as challenger; to promote it, give it the alias champion in MLflow"


def _closed(turn: Turn, state: State, detail: str) -> Turn:
    return turn.model_copy(update={"state": state, "detail": detail, "finished_at": now()})
