"""Watches a registry alias: loads, warms up and checks a new version while the old one serves, then swaps them."""

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
from ..engines.errors import TemporaryError, UnfitError
from ..telemetry.status_schema import Swap
from .model import ServedModel, VersionInfo
from .source import VersionSource

_log = logging.getLogger(__name__)
_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 10.0, 300.0
_SWAPS = 20


@dataclass(frozen=True)
class Failure:
    """The alias names a version that could not be loaded.

    Attributes:
        retry_at: on the monotonic clock; another version of the alias is loaded immediately.
    """

    info: VersionInfo
    error: str
    attempts: int
    retry_at: float


class AliasWatcher:
    """Keeps `current` at the version that the alias names.

    Attributes:
        current: the serving version, or None. One assignment swaps it: a request that reads it once uses one version
            throughout.
        failure: the version that should serve and cannot.
        reachable: whether the registry answered the last poll; None before the first.
        trouble: why the registry did not answer.
        missing: whether the registry answered that the version does not exist.
        lost: whether it is missing although a version served or was promoted before.
        deleted: whether it is missing and the registry no longer has the serving version either.
        swaps: the last swaps and failures, newest first.
        counts: number of swaps and failures.
        hopeless: whether it gave up, because the fixed version can never serve.

    Args:
        source: resolves and fetches the version that should serve.
        load: loads a fetched version.
        poll_seconds: mean time between two polls.
        fixed: whether the source always names the same version: if it can never serve, the watcher gives up. An alias
            can name another version later.
        serve_without_alias: whether to serve the last version from the cache while the alias is missing.
        changed: called after each poll, in the watcher's thread.
        swapped: called in the watcher's thread with the old and the new version.
        gave_up: called in the watcher's thread after it gave up; it polls no more.
    """

    def __init__(
        self,
        source: VersionSource,
        load: Callable[[VersionInfo, Path], ServedModel],
        *,
        poll_seconds: float,
        fixed: bool = False,
        serve_without_alias: bool = False,
        changed: Callable[[AliasWatcher], None] = lambda _: None,
        swapped: Callable[[ServedModel | None, ServedModel], None] = lambda _old, _new: None,
        gave_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.current: ServedModel | None = None
        self.failure: Failure | None = None
        self.reachable: bool | None = None
        self.trouble = ""
        self.missing, self.lost, self.deleted = False, False, False
        self._source = source
        self._load = load
        self._poll_seconds = poll_seconds
        self._serve_without_alias = serve_without_alias
        self._changed = changed
        self._swapped = swapped
        self._fixed = fixed
        self._gave_up = gave_up
        self.hopeless = False
        self.swaps: deque[Swap] = deque(maxlen=_SWAPS)
        self.counts = {"done": 0, "failed": 0}
        self._fall_back_at = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alias-watcher", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, timeout: float = 2.0) -> None:
        """Stop the thread; wait at most `timeout` seconds for a running download or load."""
        self._stopped.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.step()
                if self.hopeless:
                    self._gave_up()
                    return
            except Exception:  # noqa: BLE001 - the thread must survive any error
                _log.exception("polling the alias failed; will retry")
            # Jitter, so that many servers do not poll at the same time.
            self._stopped.wait(self._poll_seconds * random.uniform(0.8, 1.2))  # noqa: S311

    def step(self) -> None:
        """Poll once, and load a new version."""
        try:
            info = self._source.resolve()
            if info is None:
                current = self.current
                lost = current is not None or self._source.had_version()
                deleted = current is not None and self._source.deleted(current.info)
            else:
                lost, deleted = False, False
        except UnreachableError as error:
            if self.reachable is not False:
                _log.warning("the registry is unreachable", extra={"error": str(error)})
            self.reachable, self.trouble = False, str(error)
            self._fall_back(None)
        else:
            if lost and not self.lost:
                _log.error("the registry no longer has the alias or version to serve; restore it in MLflow")
            self.reachable, self.trouble = True, ""
            self.missing, self.lost, self.deleted = info is None, lost, deleted
            if info is not None:
                self._update(info)
            elif self._serve_without_alias:
                self._fall_back(None)
            if self.missing and self._fixed and self.current is None:
                self.hopeless = True
        self._changed(self)

    def _update(self, info: VersionInfo) -> None:
        failure = self.failure
        if self.current is not None and self.current.info.identity == info.identity:
            self.failure = None
            return
        if failure is not None and failure.info.identity != info.identity:
            failure = None
        if failure is not None and time.monotonic() < failure.retry_at:
            return
        attempts = failure.attempts + 1 if failure is not None else 1
        started = time.monotonic()
        was_cached = self._source.cached(info) is not None
        try:
            self._load_and_swap(info, started, first=attempts == 1)
        except Exception as error:  # noqa: BLE001 - a broken model may raise anything
            delay = min(_FIRST_RETRY_SECONDS * 2 ** (attempts - 1), _LAST_RETRY_SECONDS)
            text = str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"
            text = text.removeprefix(f"version {info.version}: ")[:1000]
            never = isinstance(error, UnfitError) and not isinstance(error, TemporaryError)
            if self._fixed and never and attempts == 1 and was_cached:
                delay = 0.0  # the cached files may be damaged: try again with new ones
            said = failure is not None and failure.error == text
            self.failure = Failure(info, text, attempts, time.monotonic() + delay)
            if attempts == 1:
                self._record(info, started, text)
            self._fall_back(info)
            self.hopeless = self._fixed and never and bool(delay) and self.current is None
            if not said and not self.hopeless:
                _log.error(
                    "a version could not be loaded",
                    extra={"version": info.version, "error": text, "retry_in": delay},
                )

    def _load_and_swap(self, info: VersionInfo, started: float, *, first: bool) -> None:
        folder = self._source.fetch(info)
        try:
            model = self._load(info, folder)
        except BaseException:
            if first:
                # The cached files may be damaged: fetch again, but only once.
                self._source.evict(info)
            raise
        before = self.current
        if before is not None:
            reasons = model.contract.incompatibilities(before.contract)
            if model.output != before.output:
                reasons.append(f"the output changed from {before.output} to {model.output}")
            if reasons:
                model.close()
                raise UnfitError(
                    f"version {info.version} breaks the contract of version {before.info.version}: "
                    f"{'; '.join(reasons)} (restart the server to load it anyway)"
                )
        self._serve(model, started)
        self.failure = None
        self._source.record_served(info)

    def _serve(self, model: ServedModel, started: float) -> None:
        before = self.current
        self._record(model.info, started, None)
        self.current = model
        self._swapped(before, model)
        _log.info(
            "serving a new version",
            extra={
                "version": model.info.version,
                "engine": model.engine.name,
                "before": before.info.version if before else None,
                "seconds": round(time.monotonic() - started, 3),
            },
        )

    def _record(self, info: VersionInfo, started: float, error: str | None) -> None:
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
        """If nothing serves, serve the last version from the cache, unless it has just failed."""
        if self.current is not None or time.monotonic() < self._fall_back_at:
            return
        info = self._source.last_served()
        # The same number with another source is another version, which the registry no longer has.
        if info is None or (instead_of is not None and info.version == instead_of.version):
            return
        started = time.monotonic()
        try:
            self._serve(self._load(info, self._source.fetch(info)), started)
        except Exception as error:  # noqa: BLE001 - as above
            self._fall_back_at = time.monotonic() + _FIRST_RETRY_SECONDS
            _log.error("the cached version cannot serve", extra={"version": info.version, "error": str(error)[:1000]})
        else:
            _log.warning("serving the last version from the cache", extra={"version": info.version})
