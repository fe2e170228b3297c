"""The replay sends real departures, and labels which belong to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tidemill.runtime.common.errors import NotFoundError
from tidemill.runtime.common.ids import uuid7
from tidemill.stacks.flights import departures
from tidemill.stacks.flights.replay import Replay, sample


class Server:
    """Answers as the model server does, and fails on request."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int], dict[str, Any]] = {}
        self.labels: dict[tuple[str, int], int] = {}
        self.failing: set[str] = set()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path in self.failing:
            return httpx.Response(503, json={"error": "no"})
        body = json.loads(request.content)
        if request.url.path == "/labels":
            self.labels |= {(label["request_id"], label["row"]): label["label"] for label in body["labels"]}
            return httpx.Response(200, json={"accepted": len(body["labels"])})
        identifier = str(uuid7())
        for row, (record, time) in enumerate(zip(body["dataframe_records"], body["event_time"], strict=True)):
            self.rows[identifier, row] = {**record, "event_time": time}
        return httpx.Response(200, json={"request_id": identifier})


def test_labels_later_belong_to_the_rows_that_were_sent(tmp_path: Path) -> None:
    server = Server()
    frame = sample(departures.month_frame(7), 50)
    state = tmp_path / "state.jsonl"
    with httpx.Client(transport=httpx.MockTransport(server), base_url="http://model") as client:
        first = Replay(client, 20, state)
        first.traffic(frame, label=False)
        assert (first.requests, first.failures, first.rows, first.labels) == (3, 0, 50, 0)
        assert not server.labels
        server.failing = {"/labels"}
        second = Replay(client, 20, state)
        second.send_kept_labels()
        assert (second.failures, second.labels) == (3, 0)
        server.failing = set()
        third = Replay(client, 20, state)
        third.send_kept_labels()
        assert (third.failures, third.labels) == (0, 50)
        with pytest.raises(NotFoundError):
            third.send_kept_labels()
    truth = {row["event_time"].isoformat(): row["delayed"] for row in frame.to_dict("records")}
    times = [moment.isoformat() for moment in frame["event_time"]]
    unique = {time for time in times if times.count(time) == 1}
    checked = [key for key, row in server.rows.items() if row["event_time"] in unique]
    assert len(checked) > 40
    assert all(server.labels[key] == truth[server.rows[key]["event_time"]] for key in checked)


def test_failed_traffic_is_counted_and_gets_no_labels() -> None:
    server = Server()
    server.failing = {"/invocations"}
    with httpx.Client(transport=httpx.MockTransport(server), base_url="http://model") as client:
        replay = Replay(client, 10)
        replay.traffic(sample(departures.month_frame(8), 30), label=True)
    assert (replay.requests, replay.failures, replay.rows, replay.labels) == (3, 3, 0, 0)
