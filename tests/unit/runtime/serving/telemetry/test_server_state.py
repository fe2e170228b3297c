"""Shared state of the workers: traffic, statuses, keys, and comparisons with the shadow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tidemill.runtime.serving.contract.model_contract import Column, Contract
from tidemill.runtime.serving.http.key_file import add_key, revoke_key
from tidemill.runtime.serving.http.keys import PLATFORM, Keys
from tidemill.runtime.serving.inference.batch import Batch
from tidemill.runtime.serving.telemetry.traffic import Histogram, Traffic
from tidemill.runtime.serving.telemetry.worker_status import WorkerStatuses
from tidemill.runtime.serving.versions.shadow import adapt_batch, compare


def some_traffic() -> Traffic:
    traffic = Traffic()
    for seconds, status in ((0.0009, 200), (0.003, 200), (20.0, 503)):
        traffic.answered("1", status, seconds, 1)
    traffic.called(3, 0.001)
    traffic.captured = 3
    return traffic


def test_traffic_adds_up_over_json() -> None:
    whole = Traffic.summed([json.loads(json.dumps(some_traffic().to_json())) for _ in range(3)])
    assert whole.requests == {("1", 200): 6, ("1", 503): 3}
    assert whole.captured == 9
    assert sum(whole.call_rows.counts) == 3
    assert whole.seconds.total == pytest.approx(3 * 20.0039)


def test_a_bucket_includes_its_upper_bound_and_the_last_one_everything() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 3.0):
        histogram.observe(value)
    assert histogram.cumulative() == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]


def test_the_traffic_of_a_dead_worker_is_kept(tmp_path: Path) -> None:
    import os

    ours = WorkerStatuses(tmp_path, 0)
    ours.publish({"traffic": some_traffic().to_json()})
    parent = WorkerStatuses(tmp_path, 9)
    assert len(parent.others()) == 1
    assert parent.ended_traffic() is None
    parent.retire(0, os.getpid())
    parent.retire(0, os.getpid())
    assert parent.others() == []
    ended = parent.ended_traffic()
    assert ended is not None
    assert Traffic.summed([ended]).requests == {("1", 200): 2, ("1", 503): 1}
    assert WorkerStatuses(None).others() == []


def name_of(keys: Keys, authorization: bytes | None, api_key: bytes | None) -> str | None:
    found = keys.find(authorization, api_key)
    return found.name if found else None


def test_keys_open_until_they_are_revoked_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = Keys("platform-token", file)
    assert name_of(keys, b"Bearer platform-token", None) == PLATFORM
    secret = add_key(file, "mobile").encode()
    assert name_of(keys, None, secret) is None, "not read yet"
    keys.refresh()
    assert name_of(keys, None, secret) == name_of(keys, b"bearer " + secret, None) == "mobile"
    assert name_of(keys, b"Basic " + secret, secret) is None, "one header is looked at, the first"
    revoke_key(file, "mobile")
    keys.refresh()
    assert name_of(keys, None, secret) is None
    assert name_of(keys, b"Bearer platform-token", None) == PLATFORM
    add_key(file, "other")
    keys.refresh()
    file.write_text("{")
    keys.refresh()
    assert name_of(keys, b"Bearer platform-token", None) == PLATFORM, "a broken file opens nothing more"
    assert name_of(keys, b"Bearer ", b"") is None


@pytest.mark.parametrize(
    ("output", "ours", "theirs", "differences", "disagreed"),
    [
        ("score", [0.4, 0.6], [0.45, 0.4], [0.05, 0.2], 1),
        ("scores", [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]], [[0.2, 0.7, 0.1], [0.1, 0.7, 0.2]], [0.5, 0.1], 1),
        ("prediction", [1.0, 2.0], [1.0, 2.5], [0.0, 0.5], 1),
        ("prediction", ["a", "b"], ["a", "c"], [], 1),
        ("prediction", [{"x": 1}], [{"x": 1}], [0.0], 0),
        ("prediction", [{"x": "a"}], [{"x": "b"}], [], 1),
    ],
)
def test_answers_are_compared(output: str, ours: Any, theirs: Any, differences: list[float], disagreed: int) -> None:
    found, count = compare(ours, np.array(theirs) if output == "score" else theirs, output)
    assert found == pytest.approx(differences)
    assert count == disagreed


def test_a_shadow_with_other_columns_is_asked_by_name() -> None:
    given = Contract((Column("a", "integer"), Column("b", "string"), Column("c", "double", required=False)))
    wanted = Contract((Column("new", "double", required=False), Column("b", "string"), Column("a", "double")))
    rows = Batch(2, [(1, "x", None), (2, "y", 3.0)])
    assert adapt_batch(rows, given, wanted).values == [(None, "x", 1), (None, "y", 2)]
    assert adapt_batch(rows, given, given) is rows
    table = pa.RecordBatch.from_struct_array(given.to_arrow(rows))
    moved = adapt_batch(Batch(2, table), given, wanted).values
    assert isinstance(moved, pa.RecordBatch)
    assert moved.to_pylist() == [{"new": None, "b": "x", "a": 1.0}, {"new": None, "b": "y", "a": 2.0}]
    with pytest.raises(ValueError, match="z is new and required"):
        adapt_batch(rows, given, Contract((*wanted.columns, Column("z", "double"))))
