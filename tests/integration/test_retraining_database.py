"""The retraining service with a damaged database."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidemill.runtime.retraining.retrainings import COPY_FILE, FILE

from tests.support.services import Service, idle_settings

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_the_service_starts_from_the_copy_and_says_so(tmp_path: Path) -> None:
    settings = idle_settings("retraining", tmp_path)
    model = {
        "name": "flights",
        "code": str(tmp_path),
        "command": ["python", "-c", "0"],
        "data": "flights/main/departures",
        "cooldown": 1,
        "triggers": ["no-champion"],
    }
    service = Service("retraining", tmp_path / "service", {**settings, "models": [model]})
    service.start()
    alert = {"status": "firing", "labels": {"model": "flights", "reason": "no-champion"}}
    try:
        with service.client() as client:
            answer = client.post("/alerts", json={"version": "4", "alerts": [alert]}).json()
        assert answer["alerts"][0]["queued"], answer
        (queued,) = service.get("/status").json()["retrainings"]
        service.stop()

        state = tmp_path / "state"
        content = bytearray((state / FILE).read_bytes())
        content[4096:] = b"\xa5" * (len(content) - 4096)
        (state / FILE).write_bytes(content)
        service.start()
        status = service.get("/status").json()
        assert [each["id"] for each in status["retrainings"]] == [queued["id"]]
        (recovery,) = status["recoveries"]
        assert recovery["restored"]
        ready = service.get("/readyz").json()
        assert ready["status"] == "ready"
        assert "started from its copy" in ready["error"]
        assert recovery["kept"][0] in ready["error"]
        service.stop()

        for name in (FILE, COPY_FILE):
            (state / name).write_bytes(b"x" * 10_000)
        service.start()
        assert service.get("/status").json()["retrainings"] == []
        assert "started from an empty database" in service.get("/readyz").json()["error"]
        service.stop()

        for path in state.glob("*.damaged-*"):
            path.unlink()
        service.start()
        assert "error" not in service.get("/readyz").json()
        assert "Traceback" not in service.log
    finally:
        service.stop()
