"""The window of the serving version and the days which are due, from segments as the model server writes them."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from tidemill.runtime.capture import forget
from tidemill.runtime.capture.columns import Privacy
from tidemill.runtime.monitor import days as days_module
from tidemill.runtime.monitor import window as window_module
from tidemill.runtime.monitor.days import Days
from tidemill.runtime.monitor.settings import MonitoredModel
from tidemill.runtime.monitor.window import Window

from tests.support.captured import write_labels, write_traffic

START = datetime(2013, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def model(folder: Path, **values: Any) -> MonitoredModel:
    base: dict[str, Any] = {"name": "flights", "capture": folder, "data": "flights/main/departures", "target": "late"}
    return MonitoredModel.model_validate(base | {"window": 86400.0 * 3, "label_delay": 86400.0, "min_rows": 1} | values)


def traffic(folder: Path, day: int, rows: int = 10, **more: Any) -> list[str]:
    """Write `rows` rows, spread over the day `day` of June."""
    times = [START + DAY * (day - 1) + DAY * index / rows for index in range(rows)]
    frame = pd.DataFrame({"x": np.arange(rows, dtype="float64"), "c": ["a"] * rows})
    return write_traffic(folder, frame, times, **more)


def test_the_window_holds_the_serving_version_within_its_time(tmp_path: Path) -> None:
    traffic(tmp_path, 1)
    traffic(tmp_path, 3, version="2")
    traffic(tmp_path, 3, role="challenger")
    window = Window(model(tmp_path), "1")
    assert window.update()
    assert window.rows == 10
    assert list(window.features().columns) == ["x", "c"]
    traffic(tmp_path, 5, rows=4, version="2")
    assert window.update(), "another version's rows move the window on"
    assert window.rows == 0
    traffic(tmp_path, 4, rows=7)
    window.update()
    assert window.rows == 7
    assert not window.update()


def test_a_few_rows_of_now_do_not_move_the_window_away_from_a_replay(tmp_path: Path) -> None:
    traffic(tmp_path, 1)
    probes = [datetime(2026, 1, 1, tzinfo=UTC)] * 4
    write_traffic(tmp_path, pd.DataFrame({"x": [1.0] * 4, "c": ["a"] * 4}), probes)
    window = Window(model(tmp_path, min_rows=5), "1")
    window.update()
    assert window.rows == 14
    traffic(tmp_path, 2)
    window.update()
    assert window.rows == 24
    write_traffic(tmp_path, pd.DataFrame({"x": [1.0], "c": ["a"]}), probes[:1])
    window.update()
    assert window.rows == 5, "five rows are traffic"


def test_a_window_which_is_read_again_is_the_same(tmp_path: Path) -> None:
    window = Window(model(tmp_path), "1")
    for day in (5, 2, 4, 1, 3):
        ids = traffic(tmp_path, day, rows=day)
        write_labels(tmp_path, ids, [1.0] * len(ids))
        window.update()
    again = Window(model(tmp_path), "1")
    again.update()
    assert (again.rows, again.labelled, again.newest, again.oldest) == (
        window.rows, window.labelled, window.newest, window.oldest,
    )  # fmt: skip
    assert sorted(again.features()["x"]) == sorted(window.features()["x"])


def test_each_segment_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = window_module.read
    monkeypatch.setattr(
        window_module, "read", lambda segment, *_, **__: (opened.append(segment.name), read(segment))[1]
    )
    window = Window(model(tmp_path), "1")
    for day in (1, 2, 3):
        traffic(tmp_path, day)
        window.update()
        window.update()
    assert len(opened) == len(set(opened)) == 3


def test_quality_is_scikit_learns_and_the_last_label_wins(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    scores, first, last = random.random(60), random.integers(0, 2, 60), random.integers(0, 2, 60)
    ids = traffic(tmp_path, 1, rows=60, scores=scores.tolist())
    window = Window(model(tmp_path), "1")
    write_labels(tmp_path, ids, first)
    window.update()
    write_labels(tmp_path, ids[:50], last[:50])
    window.update()
    quality = window.quality(50)
    assert quality is not None
    truth = np.concatenate([last[:50], first[50:]])
    assert quality.value == pytest.approx(roc_auc_score(truth, scores))
    assert quality.rows == window.labelled == 60
    assert window.quality(61) is None


def test_one_class_alone_has_no_quality(tmp_path: Path) -> None:
    write_labels(tmp_path, traffic(tmp_path, 1), [1.0] * 10)
    window = Window(model(tmp_path), "1")
    window.update()
    assert window.quality(1) is None


def test_a_label_may_come_before_its_row(tmp_path: Path) -> None:
    early, watched = tmp_path / "early", tmp_path / "watched"
    window, days = Window(model(watched), "1"), Days(model(watched), ())
    ids = traffic(early, 1)
    write_labels(watched, ids, [1.0] * 10)
    window.update()
    days.update()
    (early / "capture").rename(watched / "capture")
    window.update()
    days.update()
    assert window.labelled == 10
    assert days.open[date(2013, 6, 1)].labelled == 10


def test_memory_is_bounded_and_the_sample_is_fair(tmp_path: Path) -> None:
    window = Window(model(tmp_path), "1", limit=500)
    ids: list[str] = []
    for day in (1, 2, 3):
        ids += traffic(tmp_path, day, rows=2000)
        window.update()
        assert window.sampled <= 500
    write_labels(tmp_path, ids, [1.0] * len(ids))
    window.update()
    assert window.rows == pytest.approx(6000, rel=0.25)
    assert window.labelled == window.rows, "the label of a kept row is kept"
    assert window.features()["x"].mean() == pytest.approx(1000, rel=0.15)


def test_a_wrong_clock_does_not_end_the_window(tmp_path: Path) -> None:
    traffic(tmp_path, 1)
    write_traffic(tmp_path, pd.DataFrame({"x": [1.0], "c": ["a"]}), [datetime(2199, 1, 1, tzinfo=UTC)])
    window, days = Window(model(tmp_path), "1"), Days(model(tmp_path), ())
    window.update()
    days.update()
    assert window.rows == 10
    assert days.due() == []
    assert days.newest == window.newest


def test_a_damaged_segment_is_left_out(tmp_path: Path) -> None:
    traffic(tmp_path, 1)
    (found,) = tmp_path.glob("capture/date=*/*.parquet")
    found.with_name("0193d7a8-0000-7000-8000-000000000000.parquet").write_bytes(b"PAR1 no")
    window, days = Window(model(tmp_path), "1"), Days(model(tmp_path), ())
    window.update()
    days.update()
    assert window.rows == days.open[date(2013, 6, 1)].rows == 10


def test_a_shadows_rows_are_no_traffic(tmp_path: Path) -> None:
    served = traffic(tmp_path, 1)
    shadow = traffic(tmp_path, 1, version="1", role="shadow")
    traffic(tmp_path, 9, version="2", role="shadow")
    write_labels(tmp_path, [*served, *shadow], [1.0] * 20)
    traffic(tmp_path, 2, rows=1)
    window, days = Window(model(tmp_path), "1"), Days(model(tmp_path), ())
    window.update()
    days.update()
    assert (window.rows, window.labelled) == (11, 10)
    assert days.open.keys() == {date(2013, 6, 1), date(2013, 6, 2)}
    assert days.open[date(2013, 6, 1)].rows == 10
    assert days.labelled_rows(days.due()).table.num_rows == 10


HIDDEN = Privacy(leave_out=frozenset({"x"}), hash=frozenset({"c"}), key=b"key")


def test_columns_which_are_left_out_or_hashed_are_not_compared_while_they_are_in_the_window(tmp_path: Path) -> None:
    window = Window(model(tmp_path), "1")
    traffic(tmp_path, 1)
    window.update()
    assert window.omitted == frozenset()
    traffic(tmp_path, 2, privacy=HIDDEN, scores=[0.25] * 10)
    window.update()
    assert window.omitted == {"x", "c"}
    assert list(window.features().columns) == []
    assert window.rows == 20
    traffic(tmp_path, 9)
    window.update()
    assert window.omitted == frozenset(), "the rows without values have left the window"
    assert list(window.features().columns) == ["x", "c"]


def test_a_capture_of_outputs_alone_still_has_a_quality(tmp_path: Path) -> None:
    everything = Privacy(leave_out=frozenset({"x", "c"}))
    ids = traffic(tmp_path, 1, privacy=everything, scores=[0.1] * 5 + [0.9] * 5)
    write_labels(tmp_path, ids, [0.0] * 5 + [1.0] * 5)
    window = Window(model(tmp_path), "1")
    window.update()
    quality = window.quality(10)
    assert quality is not None
    assert (quality.value, window.rows) == (1.0, 10)


def test_a_segment_of_which_all_rows_were_forgotten_is_no_trouble(tmp_path: Path) -> None:
    traffic(tmp_path, 1)
    assert forget(tmp_path, "c", "a").rows == 10
    traffic(tmp_path, 2, rows=3)
    window, days = Window(model(tmp_path), "1"), Days(model(tmp_path), ())
    window.update()
    days.update()
    assert window.rows == 3
    assert days.open.keys() == {date(2013, 6, 2)}


def test_days_which_lack_columns_are_known(tmp_path: Path) -> None:
    days = Days(model(tmp_path), ())
    traffic(tmp_path, 1)
    traffic(tmp_path, 1, privacy=HIDDEN)
    traffic(tmp_path, 2)
    days.update()
    assert days.open[date(2013, 6, 1)].omitted == {"x", "c"}
    assert days.open[date(2013, 6, 2)].omitted == set()


def names(days: Days, at: float | None = None) -> list[int]:
    return [day.day.day for day in days.due(at)]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_row_of_tomorrow_does_not_end_today(tmp_path: Path, restarted: bool) -> None:
    """A caller may name the time of an event: one row must not close the day of all others."""
    noon = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - DAY
    frame = pd.DataFrame({"x": [1.0] * 10, "c": ["a"] * 10})
    write_labels(tmp_path, write_traffic(tmp_path, frame, [noon] * 10, received_at=noon), [1.0] * 10)
    ahead = noon + timedelta(hours=23)
    write_traffic(tmp_path, frame[:1], [ahead], received_at=noon + timedelta(hours=1))
    days = Days(model(tmp_path, label_delay=DAY.total_seconds()), [ahead.date()] if restarted else ())
    days.update()
    moment = (noon + timedelta(hours=2)).timestamp()
    if not restarted:
        assert days.due(moment) == [], "its rows still arrive"
        assert days.newest == noon + timedelta(hours=1)
    more = write_traffic(tmp_path, frame, [noon] * 10, received_at=noon + timedelta(hours=3))
    write_labels(tmp_path, more, [1.0] * 10)
    write_traffic(tmp_path, frame[:1], [ahead], received_at=ahead)
    days.update()
    (due,) = days.due(moment)
    assert (due.day, due.rows, due.labelled) == (noon.date(), 20, 20)


def test_a_day_is_due_when_it_is_over_and_labelled(tmp_path: Path) -> None:
    days = Days(model(tmp_path), ())
    first = traffic(tmp_path, 1, rows=100)
    write_labels(tmp_path, first, [1.0] * 100)
    days.update()
    assert names(days) == [], "the day is not over"
    second = traffic(tmp_path, 2, rows=100)
    days.update()
    assert names(days) == [1]
    write_labels(tmp_path, second[:98], [0.0] * 98)
    traffic(tmp_path, 3)
    days.update()
    assert names(days) == [1], "98 % are too few"
    write_labels(tmp_path, second[98:99], [0.0])
    days.update()
    assert names(days) == [1, 2]
    days.finish([date(2013, 6, 1)])
    assert names(days) == [2]


def test_after_the_delay_a_day_goes_with_the_labels_it_has_once_they_stop_coming(tmp_path: Path) -> None:
    days = Days(model(tmp_path), ())
    ids = traffic(tmp_path, 1)
    traffic(tmp_path, 4)
    days.update()
    now = time.time()
    assert names(days, now + 1e3) == [], "nothing of it is labelled"
    write_labels(tmp_path, ids[:5], [1.0] * 5)
    days.update()
    assert names(days, now) == [], "labels are coming in"
    assert names(days, now + days_module.QUIET_SECONDS + 60) == [1]


def test_the_last_day_is_over_when_the_traffic_has_stopped(tmp_path: Path) -> None:
    days = Days(model(tmp_path, label_delay=100.0), ())
    write_labels(tmp_path, traffic(tmp_path, 1), [1.0] * 10)
    days.update()
    assert names(days) == []
    assert names(days, time.time() + 101) == [1]


def test_days_which_never_got_a_label_are_forgotten(tmp_path: Path) -> None:
    days = Days(model(tmp_path, label_delay=100.0), ())
    traffic(tmp_path, 1)
    traffic(tmp_path, 9)
    days.update()
    assert days.drop_unlabelled() == []
    assert date(2013, 6, 1) in days.drop_unlabelled(time.time() + 101)
    assert not days._unlabelled


def test_the_table_has_features_target_and_event_time(tmp_path: Path) -> None:
    days = Days(model(tmp_path), ())
    ids = traffic(tmp_path, 1)
    write_labels(tmp_path, ids, [0.0] * 10)
    write_labels(tmp_path, ids[:9], [1.0] * 9)
    traffic(tmp_path, 2)
    days.update()
    table = days.labelled_rows(days.due()).table
    assert table.column_names == ["x", "c", "late", "event_time"]
    assert str(table.schema.field("late").type) == "int64"
    assert table["late"].to_pylist() == [1] * 9 + [0]
    assert table["event_time"].to_pylist()[0] == START
    assert days.labelled_rows(days.due()).table.equals(table)


def test_a_restart_reads_no_segment_of_done_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic(tmp_path, 1)
    traffic(tmp_path, 2)
    days = Days(model(tmp_path), [date(2013, 6, 1)])
    opened: list[str] = []
    read = days_module.read
    monkeypatch.setattr(days_module, "read", lambda segment, *_, **__: (opened.append(segment.name), read(segment))[1])
    days.update()
    assert len(opened) == 1
    assert set(days.open) == {date(2013, 6, 2)}
