"""Every query of the dashboard has an answer on the running platform."""

from __future__ import annotations

import json

import pytest
from tidemill.templates import render

from tests.support.platform import RunningPlatform, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

PANELS = json.loads(render("monitoring/dashboard.json.j2", stack="flights-dev"))["panels"]


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_has_data(platform: RunningPlatform, panel: dict) -> None:
    (target,) = panel["targets"]
    with platform.client("prometheus", user="admin", secret="prometheus-admin") as client:

        def series() -> list | None:
            window = {"query": f"last_over_time(({target['expr']})[30m:5s])"}
            answer = client.get("/api/v1/query", params=window)
            assert answer.status_code == 200, answer.text
            return answer.json()["data"]["result"] or None

        assert wait_for(f"data for {panel['title']}", series, timeout=30)
