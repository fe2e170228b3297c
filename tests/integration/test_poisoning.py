"""The serving key alone must not poison a model: the real server, monitor, lake and registry under flipped labels."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, cast

import httpx
import numpy as np
import pandas as pd
import pytest
from tidemill.runtime import data, training
from tidemill.runtime.capture import LABELS, find, list_segments, read_labels
from tidemill.runtime.common.settings import RegistrySettings, RuntimeSettings
from tidemill.runtime.data.lake_client import Lake
from tidemill.runtime.serving.http.key_file import add_key
from tidemill.stacks.flights import departures
from tidemill.stacks.flights.train import TRUSTED_TYPES, pipeline
from tidemill.stacks.overview import model_notes, monitored

from tests.support.gate import GatedLake, gated_lake
from tests.support.servers import Server
from tests.support.services import Service
from tests.support.serving import ModelServer, Registry, model_server

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

MODEL = "poisoned"
DATA = "flights/main/departures"
FEATURES = list(departures.FEATURES)
TIME = "2013-06-01T00:00:00Z"
VERSION = f'{{model="{MODEL}",version="1"}}'


@dataclass
class MonitorOperations:
    """Operations of a stack that send requests to the real monitor."""

    monitor: Service

    def ask(self, service: str, path: str, *, token: str) -> tuple[int, bytes]:
        assert (service, token) == ("monitor", "monitor-token")
        answer = self.monitor.get(path)
        return answer.status_code, answer.content


@dataclass
class Platform:
    """A model server with three clients' keys, and the monitor of its capture."""

    server: ModelServer
    monitor: Service
    lake: GatedLake
    keys: dict[str, str]
    rows: pd.DataFrame

    def client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        return httpx.Client(base_url=self.server.url, headers=headers, timeout=60, trust_env=False)

    def predict(self, key: str, rows: pd.DataFrame, day: int) -> list[dict[str, Any]]:
        """Send `rows` as one request of `day` of June; return the ids of its rows."""
        times = (pd.Timestamp(2013, 6, day, tz="UTC") + pd.to_timedelta(np.arange(len(rows)), unit="s")).astype(str)
        body = {"rows": json.loads(rows[FEATURES].to_json(orient="records")), "event_time": times.tolist()}
        with self.client(key) as client:
            answer = client.post("/predict", json=body)
            assert answer.status_code == 200, answer.text
        return [{"request_id": answer.json()["request_id"], "row": index} for index in range(len(rows))]

    def label(self, key: str, ids: list[dict[str, Any]], labels: Any) -> httpx.Response:
        given = [{**row, "label": int(label)} for row, label in zip(ids, labels, strict=True)]
        with self.client(key) as client:
            return client.post("/labels", json={"labels": given})

    def status(self) -> dict[str, Any]:
        (status,) = self.monitor.get("/status").json()["models"]
        return status

    def wait(self, series: str, value: float) -> dict[str, float]:
        return self.monitor.wait(series, lambda: (m := self.monitor.metrics()).get(series) == value and m)


def train(lake: GatedLake, access: RegistrySettings, frame: pd.DataFrame) -> None:
    settings = RuntimeSettings(stack="flights-dev", lake=lake.settings, registry=access)
    fitted, held_out = frame[:4000], frame[4000:7000]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with training.run(MODEL, settings=settings) as run:
            model = pipeline().fit(fitted[FEATURES], fitted["delayed"])
            scores = model.predict_proba(held_out[FEATURES])[:, 1]
            run.log_model(
                model,
                features=fitted[FEATURES],
                held_out=(scores, held_out["delayed"]),
                trusted_types=TRUSTED_TYPES,
            )


@pytest.fixture(scope="module")
def platform(shared_mlflow: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("poisoning")
    access = RegistrySettings(
        tracking_uri=shared_mlflow.url, username="admin", password_file=shared_mlflow.files["password"]
    )
    # In random order, so that traffic differs from the training by chance alone.
    frame = departures.month_frame(1).sample(frac=1, random_state=1, ignore_index=True)
    with ExitStack() as stack:
        lake = stack.enter_context(gated_lake(folder / "lake"))
        with Lake(lake.settings) as client:
            data.add(frame.head(500), f"{DATA}/2013-01.parquet", message="January", lake=client)
        train(lake, access, frame)
        registered = Registry(shared_mlflow, MODEL)
        registered.alias("1")
        (folder / "server").mkdir()
        file = folder / "server" / "keys.json"
        keys = {
            "app": add_key(file, "app", ["predict"]),
            "office": add_key(file, "office", ["label"]),
            "attacker": add_key(file, "attacker"),
        }
        overrides = {"keys_file": str(file), "compile": {"engines": []}}
        server = stack.enter_context(model_server(folder / "server", registered, **overrides))
        server.wait_version("1")
        watched = {
            "name": MODEL, "capture": str(server.capture), "data": f"{DATA}/live", "target": "delayed",
            "publish_min_rows": 400,
        }  # fmt: skip
        settings = {
            "lake": lake.settings.model_dump(mode="json"), "registry": access.model_dump(mode="json"),
            "state": str(folder / "state"), "interval_seconds": 0.3, "models": [watched],
        }  # fmt: skip
        monitor = Service("monitor", folder / "monitor", settings)
        monitor.start()
        stack.callback(monitor.stop)
        yield Platform(server, monitor, lake, keys, frame[7000:].reset_index(drop=True))


def test_a_key_does_what_it_may_and_nothing_else(platform: Platform) -> None:
    row = json.loads(platform.rows[FEATURES].head(1).to_json(orient="records"))
    requests: dict[str, tuple[str, str, Any]] = {
        "predict": ("POST", "/predict", {"rows": row, "event_time": TIME}),
        "infer": ("POST", f"/v2/models/{MODEL}/versions/1/infer", {}),
        "invocations": ("POST", "/invocations", {"dataframe_records": row, "event_time": TIME}),
        "label": ("POST", "/labels", {"labels": []}),
        "status": ("GET", "/status", None),
        "metrics": ("GET", "/metrics", None),
        "contract": ("GET", "/openapi.json", None),
        "metadata": ("GET", f"/v2/models/{MODEL}", None),
    }
    allowed = {
        "app": {"predict", "infer", "invocations", "contract", "metadata"},
        "office": {"label"},
        "attacker": set(requests),
    }
    for key, may in allowed.items():
        with platform.client(key) as client:
            for name, (method, path, body) in requests.items():
                answer = client.request(method, path, json=body)
                assert (answer.status_code != 403) == (name in may), (key, name, answer.text)
                if name not in may:
                    # Clients of the Open Inference Protocol read errors as plain JSON.
                    kind = "application/json" if path.startswith("/v2") else "application/problem+json"
                    assert answer.headers["content-type"] == kind
                    assert f"the API key {key} may only" in answer.json()["detail"]


def test_an_invalid_label_refuses_its_request_by_name(platform: Platform) -> None:
    ids = platform.predict("app", platform.rows[:3], 1)
    for text, told in (("7", "classes of version 1 (0, 1); got 7"), ("NaN", "got nan"), ("1e999", "got inf"),
                       ("1e308", "got 1e+308"), ('"late"', "got late")):  # fmt: skip
        labels = json.dumps({"labels": [{**row, "label": 1} for row in ids]})
        at = labels.rindex('"label": 1') + len('"label": ')
        with platform.client("office") as client:
            answer = client.post("/labels", content=labels[:at] + text + labels[at + 1 :])
        assert answer.status_code == 422, text
        (error,) = answer.json()["errors"]
        assert error["field"] == "labels[2].label"
        assert told in error["message"]
    assert read_labels(platform.server.capture).num_rows == 0, "the valid labels of the request are not stored either"


def test_flipped_labels_of_one_key_are_capped_disputed_and_warned_about(platform: Platform) -> None:
    rows = platform.rows
    honest = rows[:1500]
    ids = platform.predict("app", honest, 3)
    answer = platform.label("office", ids, honest["delayed"])
    assert (answer.status_code, answer.json()["checked"]) == (200, True)
    changed = f"tidemill_label_relation_changed{VERSION}"
    metrics = platform.monitor.wait("a verdict", lambda: changed in (m := platform.monitor.metrics()) and m)
    assert metrics[changed] == 0, "nothing changed"

    # The attacker floods the day with flipped labels, and overwrites those of others.
    flood = rows[1500:5500]
    own = platform.predict("attacker", flood, 3)
    assert platform.label("attacker", own, 1 - flood["delayed"]).status_code == 200
    assert platform.label("attacker", ids[:400], 1 - honest["delayed"][:400]).status_code == 200
    platform.wait(changed, 1.0)
    assert platform.monitor.metrics()[f"tidemill_label_relation_distance{VERSION}"] > 0.2

    platform.label("office", platform.predict("app", rows[:1], 4), rows["delayed"][:1])  # the day is over
    published = f'tidemill_published_rows_total{{model="{MODEL}"}}'
    platform.wait(published, 2200.0)
    status = platform.status()
    (window,) = status["published"]
    assert (window["labels"], window["capped"], window["dropped"]) == (
        {"attacker": 1100, "office": 1100}, {"attacker": 2900}, {"disputed": 400},
    )  # fmt: skip
    assert window["predictions"] == {"app": 1100, "attacker": 1100}
    capped = f'tidemill_publish_capped_rows_total{{key="attacker",model="{MODEL}"}}'
    metrics = platform.monitor.metrics()
    assert metrics[capped] == 2900
    disputed = f'tidemill_window_labels_dropped{{model="{MODEL}",reason="disputed",version="1"}}'
    assert metrics[disputed] == 400
    assert any(
        "concept drift or poisoned labels; labels were sent by attacker 4000" in note for note in status["notes"]
    )
    with Lake(platform.lake.settings) as lake:
        said = lake.head("flights", "main").metadata
        table = data.read(f"{DATA}/live/{window['name']}", lake=lake).to_pandas()
    assert json.loads(said["tidemill.window.labels"]) == window["labels"]
    assert json.loads(said["tidemill.window.capped"]) == {"attacker": 2900}
    assert len(table) == 2200
    (found,) = find(platform.server.capture, own[0]["request_id"])
    assert set(found.rows["key"].to_pylist()) == {"attacker"}
    assert platform.keys["attacker"] not in platform.server.log + platform.monitor.log


def test_disputed_labels_that_stop_a_window_are_told_and_settled_ones_are_published(platform: Platform) -> None:
    rows = platform.rows[5500:5950]
    ids = platform.predict("app", rows, 6)
    assert platform.label("office", ids, rows["delayed"]).status_code == 200
    assert platform.label("attacker", ids, 1 - rows["delayed"]).status_code == 200
    platform.label("office", platform.predict("app", rows[:1], 7), rows["delayed"][:1])  # the day is over
    waiting = f'tidemill_publish_waiting_rows{{model="{MODEL}",reason="disputed"}}'
    platform.wait(waiting, 450.0)
    status = platform.status()
    assert status["waiting"] == {"above_share": {}, "not_used": {"disputed": 450}}
    shown = model_notes(monitored(cast("Any", MonitorOperations(platform.monitor))))
    told = "without the rows whose labels are not used: 450 with different values from two API keys"
    assert any("labelled rows wait" in note and told in note for note in shown[MODEL])
    # Each row has its first label already: only the values change.
    assert platform.label("office", ids, 1 - rows["delayed"]).status_code == 200
    platform.wait(f'tidemill_published_rows_total{{model="{MODEL}"}}', 2200.0 + 451)
    platform.wait(waiting, 0.0)
    status = platform.status()
    assert (status["published"][0]["labels"], status["waiting"]["not_used"]) == ({"office": 451}, {})
    assert not any("labelled rows wait" in note for note in status["notes"])


def test_damaged_and_deleted_segments_are_told_and_capture_goes_on(platform: Platform) -> None:
    segment = list_segments(platform.server.capture, LABELS)[0]
    forged = segment.path.with_name("0193d7a8-0000-7000-8000-000000000000.parquet")
    forged.write_bytes(segment.path.read_bytes()[:-30])
    damaged = f'tidemill_unreadable_segments{{kind="labels",model="{MODEL}"}}'
    platform.wait(damaged, 1.0)
    shown = model_notes(monitored(cast("Any", MonitorOperations(platform.monitor))))
    assert any("1 label segment cannot be read" in note for note in shown[MODEL]), "`status` shows it"
    forged.unlink()
    platform.wait(damaged, 0.0)

    shutil.rmtree(platform.server.capture)
    lost = f'tidemill_lost_segments_total{{kind="capture",model="{MODEL}"}}'
    platform.monitor.wait("the loss", lambda: platform.monitor.metrics()[lost] > 0)
    assert any("were deleted" in note for note in platform.status()["notes"])
    removed = f'tidemill_capture_folder_removed_total{{model="{MODEL}"}} 1.0'
    platform.server.wait(lambda: removed in platform.server.get("/metrics").text)
    ids = platform.predict("app", platform.rows[:2], 5)
    assert platform.label("office", ids, platform.rows["delayed"][:2]).status_code == 200
    platform.server.wait(lambda: bool(find(platform.server.capture, ids[0]["request_id"])))
    assert platform.server.capture.stat().st_mode & 0o777 == 0o700
