"""The monitor with a real gated lake and a real registry: drift, quality, windows published once and only once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tidemill.runtime import data, registry, training
from tidemill.runtime.capture.columns import Privacy
from tidemill.runtime.common.settings import RegistrySettings, RuntimeSettings
from tidemill.runtime.common.verdicts import VERDICT_BRANCH
from tidemill.runtime.data.lake_client import Lake
from tidemill.runtime.monitor.days import Days
from tidemill.runtime.monitor.publishing import Publisher
from tidemill.runtime.monitor.settings import MonitoredModel
from tidemill.stacks.flights import departures

from tests.support.captured import write_labels, write_traffic
from tests.support.gate import GatedLake, gated_lake
from tests.support.servers import Server, mlflow_server
from tests.support.services import Service

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

FEATURES = list(departures.FEATURES)
DATA = "flights/main/departures"


def traffic_of(frame: pd.DataFrame, capture: Path, **more: Any) -> list[str]:
    """Write `frame` as traffic which was answered; return the request ids."""
    return write_traffic(capture, frame[FEATURES], frame["event_time"].dt.to_pydatetime().tolist(), **more)


def days_of(month: int, first: int, last: int, rows: int) -> pd.DataFrame:
    """Return `rows` departures a day, the days `first` to `last` of `month` in UTC."""
    frame = departures.month_frame(month)
    day = frame["event_time"].dt.day
    kept = frame[(day >= first) & (day <= last) & (frame["event_time"].dt.month == month)]
    return kept.groupby(kept["event_time"].dt.day).sample(rows, random_state=1).sort_values("event_time")


# --- publishing, without a registry ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedLake]:
    with gated_lake(tmp_path_factory.mktemp("monitor")) as made:
        with Lake(made.settings) as lake:
            data.add(departures.month_frame(1).head(500), f"{DATA}/2013-01.parquet", message="January", lake=lake)
        yield made


@dataclass
class Scene:
    """A capture, and where what it brings is published."""

    model: MonitoredModel
    folder: Path

    def publish(self, lake: Lake) -> Publisher:
        """Do what a service which has just started does in its first look."""
        publisher = Publisher(self.model, self.folder / "state")
        days = Days(self.model, publisher.state.days)
        days.update()
        publisher.tick(days, lake)
        return publisher

    def in_lake(self, lake: Lake) -> list[str]:
        path = self.model.data.split("/", 2)[2]
        return [item.path for item in lake.objects("flights", "main", f"{path}/labelled-")]


def scene(folder: Path, path: str, **values: Any) -> Scene:
    base: dict[str, Any] = {
        "name": "flights", "capture": folder / "capture", "data": f"flights/main/{path}", "target": "delayed",
        "publish_min_rows": 250,
    }  # fmt: skip
    return Scene(MonitoredModel.model_validate(base | values), folder)


def test_a_window_is_published_as_the_gate_wants_it(gated: GatedLake, tmp_path: Path) -> None:
    made = scene(tmp_path, "departures/once")
    frame = days_of(6, 3, 5, 100)
    ids = traffic_of(frame, made.model.capture)
    with Lake(gated.settings) as lake:
        assert made.publish(lake).state.published == []
        write_labels(made.model.capture, ids, frame["delayed"].tolist())
        assert made.publish(lake).state.published == [], "two days are over, and 200 rows are too few"
        traffic_of(days_of(6, 6, 6, 10), made.model.capture)
        (window,) = made.publish(lake).state.published
        assert window.days == [date(2013, 6, 3), date(2013, 6, 4), date(2013, 6, 5)]
        assert made.publish(lake).state.published == [window]
        assert data.is_validated("flights", window.commit or "", lake=lake)
        back = data.read(f"{made.model.data}/{window.name}", validated=True, lake=lake).to_pandas()
    columns = ["event_time", *FEATURES, "delayed"]
    order = ["event_time", *FEATURES]
    expected = frame[columns].sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(back[columns].sort_values(order, ignore_index=True), expected)


class Crash(BaseException):
    """Stands for `kill -9`: no handler of ours runs."""


class CrashingLake(Lake):
    """A lake whose client dies right after the request number `last`."""

    def __init__(self, *arguments: Any, last: int) -> None:
        super().__init__(*arguments)
        self.left = last

    def _send(self, method: str, route: str, **options: Any) -> httpx.Response:
        answer = super()._send(method, route, **options)
        self.left -= 1
        if self.left == 0:
            raise Crash
        return answer


@pytest.mark.slow
def test_killed_after_any_request_a_window_is_published_exactly_once(gated: GatedLake, tmp_path: Path) -> None:
    frame = days_of(6, 3, 4, 150)
    last, crashed = 0, True
    while crashed:
        last += 1
        made = scene(tmp_path / str(last), f"departures/kill-{last}")
        write_labels(made.model.capture, traffic_of(frame, made.model.capture), frame["delayed"].tolist())
        late = traffic_of(days_of(6, 5, 5, 20), made.model.capture)
        with CrashingLake(gated.settings, last=last) as lake:
            try:
                made.publish(lake)
                crashed = False
            except Crash:
                pass
        # Meanwhile another day comes to its end: it must not change what is on its way.
        write_labels(made.model.capture, late, [0.0] * len(late))
        traffic_of(days_of(6, 6, 6, 1), made.model.capture)
        with Lake(gated.settings) as lake:
            for _ in range(2):
                state = made.publish(lake).state
            assert made.in_lake(lake) == [f"departures/kill-{last}/{state.published[0].name}"]
            assert [window.rows for window in state.published] == [300]
            branches = gated_branches(gated)
        assert branches == ["main", VERDICT_BRANCH], f"a branch was left over after request {last}"
        assert not list((tmp_path / str(last) / "state/outbox").iterdir())
    assert last > 6, "a publication takes several requests"


def gated_branches(gated: GatedLake) -> list[str]:
    url = f"{gated.lakefs.url}/api/v1/repositories/flights/branches"
    answer = httpx.get(url, auth=gated.lakefs.auth, params={"amount": 1000}, trust_env=False).raise_for_status()
    return [item["id"] for item in answer.json()["results"]]


def test_a_refused_window_is_kept_and_tried_again_only_when_the_branch_moved(gated: GatedLake, tmp_path: Path) -> None:
    made = scene(tmp_path, "departures/refused")
    bad = days_of(6, 3, 4, 150)
    write_labels(made.model.capture, traffic_of(bad, made.model.capture), [1.0] * len(bad))  # nobody is ever late
    good = days_of(6, 5, 7, 100)
    ids = traffic_of(good, made.model.capture)
    with Lake(gated.settings) as lake:
        for _ in range(3):
            state = made.publish(lake).state
        assert state.refusals == 1, "nothing changed, so the gate is not asked again"
        assert "delayed" in state.refused[0].reasons[0]
        assert made.in_lake(lake) == []
        write_labels(made.model.capture, ids, good["delayed"].tolist())
        traffic_of(days_of(6, 8, 8, 1), made.model.capture)
        state = made.publish(lake).state
        assert [window.days[0] for window in state.published] == [date(2013, 6, 5)], "the days after it go on"
        state = made.publish(lake).state
        assert (state.refusals, len(state.refused)) == (2, 1), "the branch moved, so it was tried again"
        assert made.publish(lake).state.refusals == 2
        lake.delete_branch("flights", next(name for name in gated_branches(gated) if name.startswith("publish-")))


def test_days_which_lack_columns_are_withheld_and_the_others_go_on(
    gated: GatedLake, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = scene(tmp_path, "departures/withheld")
    for day, privacy in ((3, None), (4, Privacy(leave_out=frozenset({"temp"}))), (5, None), (6, None)):
        frame = days_of(6, day, day, 150)
        ids = traffic_of(frame, made.model.capture, privacy=privacy)
        write_labels(made.model.capture, ids, frame["delayed"].tolist())
    with Lake(gated.settings) as lake:
        publisher = made.publish(lake)
        (window,) = publisher.state.published
        assert window.days == [date(2013, 6, 3), date(2013, 6, 5)]
        assert publisher.withheld == 150
        assert made.in_lake(lake) == [f"departures/withheld/{window.name}"]
        assert made.publish(lake).state.published == [window]
    said = next(record for record in caplog.records if "not published" in record.message)
    assert (vars(said)["days"], vars(said)["columns"]) == (["2013-06-04"], ["temp"])


# --- the service ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with mlflow_server(tmp_path_factory.mktemp("registry")) as server:
        yield server


def train(gated: GatedLake, access: RegistrySettings, frame: pd.DataFrame) -> str:
    """Register a version which was trained on the numbers of `frame`, as a training script does."""
    from sklearn.dummy import DummyClassifier

    settings = RuntimeSettings(stack="flights-dev", lake=gated.settings, registry=access)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with training.run("flights", settings=settings) as run:
            model = DummyClassifier(strategy="prior").fit(frame[FEATURES], frame["delayed"])
            return run.log_model(model, features=frame[FEATURES]).version


def test_the_service_tells_drift_and_quality_and_survives_its_servers(
    gated: GatedLake, mlflow: Server, tmp_path: Path
) -> None:
    access = RegistrySettings(tracking_uri=mlflow.url, username="admin", password_file=mlflow.files["password"])
    winter, summer = departures.month_frame(1).head(3000), days_of(7, 1, 6, 100)
    assert train(gated, access, winter) == "1"
    client = registry.connect(access)
    capture = tmp_path / "capture"
    watched = {
        "name": "flights", "capture": str(capture), "data": f"{DATA}/service", "target": "delayed",
        "window": 30 * 86400.0, "publish_min_rows": 500,
    }  # fmt: skip
    settings = {
        "lake": gated.settings.model_dump(mode="json"), "registry": access.model_dump(mode="json"),
        "state": str(tmp_path / "state"), "interval_seconds": 0.3, "models": [watched],
    }  # fmt: skip
    service = Service("monitor", tmp_path / "service", settings)
    service.start()
    try:
        for token in ("", "wrong"):
            with service.client(token) as stranger:
                assert stranger.get("/status").status_code == stranger.get("/metrics").status_code == 401
        assert not any(name.startswith("tidemill_window_rows") for name in service.metrics()), "nothing serves yet"

        client.set_registered_model_alias("flights", "champion", "1")
        scores = (summer["hour"] / 24).tolist()
        ids = traffic_of(summer, capture, scores=scores)
        one = '{model="flights",version="1"}'
        metrics = service.wait("a score", lambda: (m := service.metrics()).get(f"tidemill_drift_share{one}") and m)
        assert metrics[f"tidemill_window_rows{one}"] == 600
        assert 0.3 < metrics[f"tidemill_drift_share{one}"] < 1.0
        temperature = 'feature="temp",model="flights",test="wasserstein",version="1"'
        assert metrics[f"tidemill_feature_drift{{{temperature}}}"] > 1.0, "July is no January"
        assert metrics['tidemill_feature_drifted{feature="temp",model="flights",version="1"}'] == 1.0
        assert metrics['tidemill_feature_drifted{feature="origin",model="flights",version="1"}'] == 0.0
        unvalidated = 'tidemill_unvalidated_commits{branch="main",repository="flights"}'
        service.wait("the count of commits", lambda: service.metrics().get(unvalidated) == 0.0)

        write_labels(capture, ids, summer["delayed"].tolist())
        traffic_of(days_of(7, 7, 7, 1), capture)
        quality = 'tidemill_model_quality{kind="realised",metric="roc_auc",model="flights",version="1"}'
        metrics = service.wait("quality", lambda: quality in (m := service.metrics()) and m)
        assert metrics[quality] == pytest.approx(roc_auc_score(summer["delayed"], scores), abs=0.01)
        published = 'tidemill_published_rows_total{model="flights"}'
        service.wait("the window in the lake", lambda: service.metrics()[published] == 600.0)
        (status,) = service.get("/status").json()["models"]
        assert status["window"]["label_coverage"] > 0.99
        assert (len(status["published"]), status["failing"]) == (1, {})

        service.kill()
        service.start()
        service.wait("the same window", lambda: service.metrics().get(f"tidemill_window_rows{one}") == 601.0)
        assert service.metrics()[published] == 600.0

        mlflow.stop()
        gated.lakefs.stop()
        errors = [f'tidemill_monitor_errors_total{{model="flights",part="{part}"}}' for part in ("registry", "lake")]
        service.wait("errors", lambda: all(service.metrics()[name] > 0 for name in errors), 120)
        assert f"tidemill_drift_share{one}" in service.metrics(), "an alert must not end since a server is down"
        assert "does not answer" in service.get("/status").json()["models"][0]["failing"]["lake"]
        gated.lakefs.start()
        mlflow.start()
        service.wait("peace", lambda: not service.get("/status").json()["models"][0]["failing"])

        # A swap: what the old version drifted is over, and the new one starts with an empty window.
        assert train(gated, access, summer) == "2"
        client.set_registered_model_alias("flights", "champion", "2")
        two = 'tidemill_window_rows{model="flights",version="2"}'
        metrics = service.wait("the swap", lambda: two in (m := service.metrics()) and m)
        assert metrics[two] == 0.0
        assert not [name for name in metrics if 'version="1"' in name]
        assert not [name for name in metrics if name.startswith("tidemill_drift_share")]
        traffic_of(days_of(7, 8, 10, 100), capture, version="2")
        share = 'tidemill_drift_share{model="flights",version="2"}'
        metrics = service.wait("a score of the new version", lambda: share in (m := service.metrics()) and m)
        assert metrics[two] == 300.0
        assert metrics['tidemill_feature_drift{feature="temp",model="flights",test="wasserstein",version="2"}'] < 1.0

        # What the capture no longer holds is not taken for drift.
        traffic_of(days_of(7, 11, 11, 100), capture, version="2", privacy=Privacy(leave_out=frozenset({"temp"})))
        metrics = service.wait("the thinner rows", lambda: (m := service.metrics())[two] == 400.0 and m)
        assert not [name for name in metrics if 'feature="temp"' in name]
        assert [name for name in metrics if 'feature="hour"' in name]
        assert service.get("/status").json()["models"][0]["not_compared"] == ["temp"]
        assert metrics['tidemill_publish_withheld_rows_total{model="flights"}'] == 0.0
    finally:
        service.stop()
