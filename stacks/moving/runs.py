"""Writes lakeFS's action runs, which include the gate's verdicts, as entries of its key-value store.

lakeFS's dump of a repository omits them, and its API can list but not create them. `lakefs kv load` loads the dump
written here. Keys and messages follow `pkg/actions` (actions.proto, store.go) of lakeFS 1.86.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict

_PARTITION = "actions"
_VARINT, _BYTES = 0, 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Hook(_Part):
    """One hook of a run, as returned by lakeFS's API."""

    hook_run_id: str
    hook_id: str
    action: str
    status: str
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None


class Run(_Part):
    """A run of a repository's actions with its hooks, as returned by lakeFS's API."""

    run_id: str
    branch: str = ""
    commit_id: str = ""
    event_type: str
    status: str
    start_time: AwareDatetime | None = None
    end_time: AwareDatetime | None = None
    hooks: Sequence[Hook] = ()


def dump_of(runs: Iterable[tuple[str, Run]]) -> str:
    """Return the input of `lakefs kv load` for pairs of repository and run."""
    entries = [
        {"partition": _PARTITION, "key": key, "value": base64.b64encode(value).decode()}
        for repository, run in runs
        for key, value in _entries(repository, run)
    ]
    return json.dumps({"version": "1.0", "timestamp": datetime.now(UTC).isoformat(), "entries": entries})


def _entries(repository: str, run: Run) -> Iterator[tuple[str, bytes]]:
    base = f"repos/{repository}"
    key = f"{base}/runs/{run.run_id}"
    for hook in run.hooks:
        yield f"{base}/tasks/{run.run_id}/{hook.hook_run_id}", _hook(run.run_id, hook)
    index = _field(1, key)
    if run.branch:
        yield f"{base}/branches/{run.branch}/{run.run_id}", index
    if run.commit_id:
        yield f"{base}/commits/{run.commit_id}/{run.run_id}", index
    yield key, _run(run)


def _run(run: Run) -> bytes:
    return (
        _field(1, run.run_id)
        + _field(2, run.branch)
        + _field(3, run.commit_id)
        + _field(5, run.event_type)
        + _time(6, run.start_time)
        + _time(7, run.end_time)
        + _flag(8, run.status)
    )


def _hook(run: str, hook: Hook) -> bytes:
    return (
        _field(1, run)
        + _field(2, hook.hook_run_id)
        + _field(3, hook.hook_id)
        + _field(4, hook.action)
        + _time(5, hook.start_time)
        + _time(6, hook.end_time)
        + _flag(9, hook.status)
    )


def _field(number: int, value: str | bytes) -> bytes:
    """Encode a text or message as a protobuf field; empty values are omitted, as in protobuf."""
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data if data else b""


def _time(number: int, time: datetime | None) -> bytes:
    if time is None:
        return b""
    since = time - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    parts = ((1, seconds), (2, since.microseconds * 1000))
    return _field(number, b"".join(_varint(part << 3 | _VARINT) + _varint(value) for part, value in parts if value))


def _flag(number: int, status: str) -> bytes:
    return _varint(number << 3 | _VARINT) + b"\1" if status == "completed" else b""


def _varint(value: int) -> bytes:
    """Encode the non-negative `value` as a protobuf varint.

    >>> _varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
