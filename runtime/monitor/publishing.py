"""Labelled windows on their way into the lake, through the gate, each exactly once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from .. import data
from ..common.errors import ConfigError, GateError
from ..common.files import sync, write_private
from ..common.target import Target
from ..data import Lake
from .days import Day, Days, LabelledRows
from .settings import MonitoredModel

_log = logging.getLogger(__name__)
_MOST_ROWS = 50_000
_WINDOW = "tidemill.window"


class WindowFile(BaseModel):
    """A labelled window which was published, is about to be, or was refused.

    Attributes:
        days: its days of event time.
        name: the file's name, the same here and in the lake.
        commit: the lake's commit which brought it.
        predictions, labels: name of the API key -> rows whose request, or whose label, it sent.
        capped: name of the API key -> rows left out because the key has too large a share.
        dropped: reason -> rows left out because their label cannot be used.
        reasons: why the gate refused it.
        head: the newest commit of the branch when it was refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: list[date]
    name: str
    rows: int
    at: AwareDatetime
    commit: str | None = None
    predictions: dict[str, int] = Field(default_factory=dict[str, int])
    labels: dict[str, int] = Field(default_factory=dict[str, int])
    capped: dict[str, int] = Field(default_factory=dict[str, int])
    dropped: dict[str, int] = Field(default_factory=dict[str, int])
    reasons: list[str] = Field(default_factory=list[str])
    head: str | None = None


class State(BaseModel):
    """What is kept of a model's publishing.

    Attributes:
        published: the windows which are in the lake.
        pending: the one window which is on its way; its file is in the outbox.
        refused: those which the gate refused; their files are kept in the outbox.
        refusals: how often the gate refused.
    """

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    published: list[WindowFile] = Field(default_factory=list[WindowFile])
    pending: WindowFile | None = None
    refused: list[WindowFile] = Field(default_factory=list[WindowFile])
    refusals: int = 0

    @property
    def days(self) -> set[date]:
        """The days which are in the lake, on their way, or refused."""
        windows = [*self.published, *self.refused, *([self.pending] if self.pending else [])]
        return {day for window in windows for day in window.days}


class Publisher:
    """Publishes due days as one Parquet file below the model's path.

    First the file is written to the outbox, then its name to the state; only then the lake is touched, on a branch of
    the window's own, and at the end the state says that it is published. Killed anywhere, the next call goes on with
    the same file under the same names: a window which is in the lake already is only recorded, a branch which was left
    over is taken up. A refused window is kept and tried again when the branch it goes to has moved, since expectations
    are judged against what is there; its days are not part of another one.

    Args:
        model: what is watched.
        folder: where the state and the outbox are kept.

    Attributes:
        state: what is kept.
        withheld: labelled rows which were not published since this process started, because the capture lacks columns.
        waiting: name of the API key -> rows above its share in the due days, which wait for labels of other keys.
        target: the contract of the labels, or None if it is unknown.
    """

    def __init__(self, model: MonitoredModel, folder: Path) -> None:
        self.model = model
        self._outbox = folder / "outbox"
        self._outbox.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = folder / "state.json"
        self.withheld = 0
        self.waiting: Mapping[str, int] = {}
        self.target: Target | None = None
        self._waited_with: object = None
        self._repository, self._branch, self._path = model.data.split("/", 2)
        self.state = self._load()
        kept = {window.name for window in [*self.state.refused, *([self.state.pending] if self.state.pending else [])]}
        for left in self._outbox.iterdir():
            if left.name not in kept:
                left.unlink()

    def tick(self, days: Days, lake: Lake) -> None:
        """Publish what is due; at most one new window a call.

        Raises:
            UnreachableError: the lake or its gate does not answer; the window stays on its way.
        """
        self._withhold(days)
        if self.state.pending is None:
            self.state.pending = self._again(lake) or self._prepare(days)
            if self.state.pending is None:
                return
            self._save()
        days.finish(self.state.pending.days)
        self._send(self.state.pending, lake)

    def _withhold(self, days: Days) -> None:
        """Take due days as done whose rows lack features: a table of them would be no data to train on."""
        lacking = [day for day in days.due() if day.omitted]
        if not lacking:
            return
        days.finish([day.day for day in lacking])
        self.withheld += sum(day.labelled for day in lacking)
        _log.error(
            "labelled days are not published: the capture leaves out or hashes columns of theirs",
            extra={
                "model": self.model.name,
                "days": [day.day.isoformat() for day in lacking],
                "columns": sorted({name for day in lacking for name in day.omitted}),
            },
        )

    def _prepare(self, days: Days) -> WindowFile | None:
        """Write the due days to the outbox; return the window, or None while there are too few rows."""
        due: list[Day] = []
        full = False
        for day in days.due():
            full = bool(due) and sum(each.labelled for each in due) + day.labelled > _MOST_ROWS
            if full:
                break
            due.append(day)
        if sum(day.labelled for day in due) < self.model.publish_min_rows:
            self.waiting = {}
            return None
        # Reading the rows is expensive: do not repeat it for the same rows.
        tried = (self.target, full, [(day.day, day.rows, day.labelled, day.labels_came) for day in due])
        if tried == self._waited_with:
            return None
        found = days.labelled_rows(due, self.target)
        least = 1 if full else self.model.publish_min_rows
        if found.table.num_rows < least:
            self._wait(found, tried)
            return None
        self.waiting, self._waited_with = {}, None
        return self._write(found, sorted(day.day for day in due))

    def _wait(self, found: LabelledRows, tried: object) -> None:
        """Record that the days wait: too few rows are left without unusable labels and rows above a key's share."""
        self._waited_with = tried
        if found.capped and not self.waiting:
            _log.warning(
                "labelled days wait: without the rows above watch.max_share_per_key, too few are left",
                extra={"model": self.model.name, "rows": found.table.num_rows, "above_share": dict(found.capped)},
            )
        self.waiting = found.capped

    def _write(self, found: LabelledRows, days: list[date]) -> WindowFile:
        hidden = self._outbox / ".window.partial"
        with hidden.open("wb") as file:
            os.fchmod(file.fileno(), 0o600)
            pq.write_table(found.table, file, compression="zstd")
        sync(hidden)
        with hidden.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
        name = f"labelled-{days[0].isoformat()}-{days[-1].isoformat()}-{digest}.parquet"
        hidden.rename(self._outbox / name)
        sync(self._outbox)
        if found.capped or found.dropped:
            _log.warning(
                "labelled rows are left out of a window",
                extra={"model": self.model.name, "window": name, "above_share": dict(found.capped),
                       "unusable": dict(found.dropped)},
            )  # fmt: skip
        return WindowFile(
            days=days,
            name=name,
            rows=found.table.num_rows,
            at=datetime.now(UTC),
            predictions=dict(found.predictions),
            labels=dict(found.labels),
            capped=dict(found.capped),
            dropped={str(reason): rows for reason, rows in found.dropped.items()},
        )

    def _again(self, lake: Lake) -> WindowFile | None:
        """Return a refused window whose branch has moved since."""
        if not self.state.refused:
            return None
        head = lake.head(self._repository, self._branch).id
        for window in self.state.refused:
            if window.head != head:
                self.state.refused.remove(window)
                return window.model_copy(update={"reasons": [], "head": None})
        return None

    def _send(self, window: WindowFile, lake: Lake) -> None:
        path = f"{self._path.rstrip('/')}/{window.name}"
        branch = f"publish-{self.model.name}-{window.name.rsplit('-', 1)[1].removesuffix('.parquet')}"
        file = self._outbox / window.name
        address, own = f"{self._repository}/{self._branch}", f"{self._repository}/{branch}"
        if data.exists(f"{address}/{path}", lake=lake):
            commit = data.brought_by(f"{address}/{path}", lake=lake)
        elif not file.exists():
            _log.error("a window's file is gone, its days are not published", extra={"window": window.name})
            self.state.pending = None
            self._save()
            return
        else:
            message = f"Labelled traffic of {self.model.name}, {window.days[0]} to {window.days[-1]}"
            metadata = self._metadata(window)
            data.branch(own, source=self._branch, lake=lake)
            if not data.exists(f"{own}/{path}", lake=lake):
                data.write(file, f"{own}/{path}", lake=lake)
            data.commit(own, message, metadata=metadata, lake=lake)
            try:
                commit = data.publish(own, into=self._branch, message=message, metadata=metadata, lake=lake).commit
            except GateError as error:
                self._refused(window, error, lake)
                return
        lake.delete_branch(self._repository, branch)
        self.state.published.append(window.model_copy(update={"commit": commit, "at": datetime.now(UTC)}))
        self.state.pending = None
        self._save()
        file.unlink(missing_ok=True)
        _log.info("published a window", extra={"model": self.model.name, "window": window.name, "commit": commit})

    def _metadata(self, window: WindowFile) -> dict[str, str]:
        """Return the metadata of the window's commits: who sent its rows, and what was left out."""
        metadata = {_WINDOW: window.name, "tidemill.model": self.model.name, "tidemill.rows": str(window.rows)}
        for name in ("predictions", "labels", "capped", "dropped"):
            metadata[f"{_WINDOW}.{name}"] = json.dumps(getattr(window, name))
        return metadata

    def _refused(self, window: WindowFile, error: GateError, lake: Lake) -> None:
        head = lake.head(self._repository, self._branch).id
        reasons = list(error.reasons) or [error.message]
        self.state.refused.append(window.model_copy(update={"reasons": reasons, "head": head}))
        self.state.pending = None
        self.state.refusals += 1
        self._save()
        _log.warning(
            "the gate refused a window", extra={"model": self.model.name, "window": window.name, "reasons": reasons}
        )

    def _load(self) -> State:
        with contextlib.suppress(FileNotFoundError):
            try:
                return State.model_validate_json(self._file.read_text(encoding="utf-8"))
            except ValueError as error:
                # A new state would publish windows twice, so a lost one is not replaced.
                raise ConfigError(
                    f"the record of what was published is damaged ({type(error).__name__})",
                    field="state",
                    value=str(self._file),
                    hint="restore it from a copy",
                ) from None
        return State()

    def _save(self) -> None:
        write_private(self._file, json.dumps(self.state.model_dump(mode="json")), durable=True)
