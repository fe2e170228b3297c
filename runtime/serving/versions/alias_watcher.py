"""Follows the alias: a thread which loads, warms, compares and swaps, while the version before it goes on answering."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ...common.errors import UnreachableError
from ..engines.errors import UnfitError
from ..telemetry.status_schema import Swap
from .model import ServedModel, VersionInfo
from .source import VersionSource

__all__ = ["Failure", "Follower"]

_log = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 10.0, 300.0
_SWAPS = 20


@dataclass(frozen=True)
class Failure:
    """A version which the alias names and which could not be taken.

    Attributes:
        retry_at: on the monotonic clock; the alias moving on is not waited for.
    """

    info: VersionInfo
    error: str
    attempts: int
    retry_at: float


class Follower:
    """Keeps `current` what the alias says.

    Attributes:
        current: the version which serves, or None. It is swapped by one assignment: who takes it once per request
            answers that request by one version throughout.
        failure: the version which should serve and cannot.
        reachable: whether the registry answered last time; None before the first time.
        trouble: why it did not answer.
        missing: whether the registry answered that there is no such version.
        swaps: the last versions which were taken, or could not be, the newest first.
        counts: how many were, and could not be.

    Args:
        source: tells which version should serve, and brings it.
        load: makes a version ready to answer.
        poll_seconds: mean time between two looks.
        changed: called after each look, from the follower's thread.
        swapped: called there with the version which serves no more, and the one which serves now.
    """

    def __init__(
        self,
        source: VersionSource,
        load: Callable[[VersionInfo, Path], ServedModel],
        *,
        poll_seconds: float,
        changed: Callable[[Follower], None] = lambda _: None,
        swapped: Callable[[ServedModel | None, ServedModel], None] = lambda _old, _new: None,
    ) -> None:
        self.current: ServedModel | None = None
        self.failure: Failure | None = None
        self.reachable: bool | None = None
        self.trouble = ""
        self.missing = False
        self._source = source
        self._load = load
        self._poll_seconds = poll_seconds
        self._changed = changed
        self._swapped = swapped
        self.swaps: deque[Swap] = deque(maxlen=_SWAPS)
        self.counts = {"done": 0, "failed": 0}
        self._fall_back_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """End; a download or load which is under way is not waited for longer than `timeout` seconds."""
        self._stopped.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.step()
            except Exception:  # noqa: BLE001 - the follower must outlive whatever one look brings
                _log.exception("following the alias failed; it goes on")
            # Spread, so that many servers do not ask at once.
            self._stopped.wait(self._poll_seconds * random.uniform(0.8, 1.2))  # noqa: S311

    def step(self) -> None:
        """Look once, and take what is new."""
        try:
            info = self._source.resolve()
        except UnreachableError as error:
            if self.reachable is not False:
                _log.warning("the registry cannot be asked", extra={"error": str(error)})
            self.reachable, self.trouble = False, str(error)
            self._fall_back(None)
        else:
            self.reachable, self.missing, self.trouble = True, info is None, ""
            if info is not None:
                self._follow(info)
        self._changed(self)

    def _follow(self, info: VersionInfo) -> None:
        failure = self.failure
        if self.current is not None and self.current.info.identity == info.identity:
            self.failure = None
            return
        again = failure is not None and failure.info.identity == info.identity
        if failure is not None and again and time.monotonic() < failure.retry_at:
            return
        attempts = failure.attempts + 1 if failure is not None and again else 1
        started = time.monotonic()
        try:
            self._take(info, started, first=attempts == 1)
        except Exception as error:  # noqa: BLE001 - a broken model may raise anything
            delay = min(_FIRST_RETRY_SECONDS * 2 ** (attempts - 1), _LAST_RETRY_SECONDS)
            text = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
            self.failure = Failure(info, text[:1000], attempts, time.monotonic() + delay)
            if attempts == 1:
                self._note(info, started, text[:1000])
            _log.error(
                "a version could not be taken", extra={"version": info.version, "error": text[:1000], "retry_in": delay}
            )
            self._fall_back(info)

    def _take(self, info: VersionInfo, started: float, *, first: bool) -> None:
        folder = self._source.fetch(info)
        try:
            model = self._load(info, folder)
        except BaseException:
            if first:
                # Perhaps what was cached is damaged; more than once it is not fetched for that.
                self._source.forget(info)
            raise
        before = self.current
        if before is not None:
            reasons = model.contract.why_not(before.contract)
            if model.output != before.output:
                reasons.append(f"it gives {model.output} where version {before.info.version} gives {before.output}")
            if reasons:
                model.close()
                raise UnfitError(
                    f"version {info.version} breaks the contract of version {before.info.version}: "
                    f"{'; '.join(reasons)} (a restart of the server takes it all the same)"
                )
        self._serve(model, started)
        self.failure = None
        self._source.remember(info)

    def _serve(self, model: ServedModel, started: float) -> None:
        before = self.current
        self._note(model.info, started, None)
        self.current = model
        self._swapped(before, model)
        _log.info(
            "a version serves",
            extra={
                "version": model.info.version,
                "engine": model.engine.name,
                "before": before.info.version if before else None,
                "seconds": round(time.monotonic() - started, 3),
            },
        )

    def _note(self, info: VersionInfo, started: float, error: str | None) -> None:
        self.counts["failed" if error else "done"] += 1
        self.swaps.appendleft(
            {
                "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "from": self.current.info.version if self.current else None,
                "to": info.version,
                "seconds": round(time.monotonic() - started, 3),
                "error": error,
            }
        )

    def _fall_back(self, instead_of: VersionInfo | None) -> None:
        """Serve what served last, if nothing serves and it is not what has just failed."""
        if self.current is not None or time.monotonic() < self._fall_back_at:
            return
        info = self._source.remembered()
        if info is None or (instead_of is not None and info.identity == instead_of.identity):
            return
        started = time.monotonic()
        try:
            self._serve(self._load(info, self._source.fetch(info)), started)
        except Exception as error:  # noqa: BLE001 - as above
            self._fall_back_at = time.monotonic() + _FIRST_RETRY_SECONDS
            _log.error("the cached version cannot serve", extra={"version": info.version, "error": str(error)[:1000]})
        else:
            _log.warning("the version which served last serves again", extra={"version": info.version})
