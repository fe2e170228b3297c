"""The pages of the model server and what they are filled from, without a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill.runtime.serving.page import Recent, Served, merged, routes
from tidemill.runtime.serving.telemetry import recent
from tidemill.runtime.serving.telemetry.recent import WINDOW
from tidemill.runtime.serving.telemetry.status_schema import Rates

from tests.support.tree import ROOT

START = 1_700_000_000
ASSETS = ROOT / "runtime/serving/page/assets"


class Clock:
    """Tells the time it was set to."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(START + 0.25)
    monkeypatch.setattr(recent, "time", clock)
    return clock


def test_each_second_is_counted_for_itself(clock: Clock) -> None:
    counted = Recent()
    counted.record(0.002, 3, False)
    counted.record(0.002, 1, True)
    counted.called(4)
    clock.now += 2
    counted.called(10)
    counted.called(5)
    counted.record(0.1, 15, False)
    rates = merged([json.loads(json.dumps(counted.to_json()))], now=START + 5.9)
    assert rates["seconds"] == list(range(START + 5 - WINDOW, START + 5))
    at = rates["seconds"].index(START)
    assert rates["requests"][at:] == [2, 0, 1, 0, 0]
    assert rates["errors"][at:] == [1, 0, 0, 0, 0]
    assert rates["rows"][at:] == [4, 0, 15, 0, 0]
    assert rates["batch_rows"][at:] == [4.0, None, 7.5, None, None]
    assert rates["p50_ms"][at:] == [pytest.approx(2, rel=0.046), None, pytest.approx(100, rel=0.046), None, None]
    assert sum(rates["requests"]) == 3


def test_the_second_under_way_is_not_shown_and_old_ones_are_gone(clock: Clock) -> None:
    counted = Recent()
    for _ in range(WINDOW + 50):
        counted.record(0.001, 1, False)
        clock.now += 1
    counted.record(0.001, 1, False)
    told = counted.to_json()
    assert len(told["seconds"].split()) <= (WINDOW + 2) * 8
    rates = merged([told], now=clock.now)
    assert rates["requests"] == [1] * WINDOW
    clock.now += WINDOW + 1
    assert counted.to_json() == {"seconds": ""}


def test_a_clock_which_is_set_back_counts_on(clock: Clock) -> None:
    counted = Recent()
    counted.record(0.001, 1, False)
    clock.now -= 100
    counted.to_json()
    counted.record(0.001, 1, False)
    clock.now += 1
    rates = merged([counted.to_json()], now=clock.now)
    assert (rates["requests"][-1], sum(rates["requests"])) == (1, 1)


@given(
    workers=st.lists(
        st.lists(st.floats(min_value=1e-8, max_value=100), min_size=1, max_size=40), min_size=1, max_size=3
    )
)
@settings(deadline=None)
def test_percentiles_over_all_workers_are_nearly_those_of_the_latencies(workers: Sequence[Sequence[float]]) -> None:
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recent, "time", Clock(START))
        for latencies in workers:
            counted = Recent()
            for seconds in latencies:
                counted.record(seconds, 1, False)
            told.append(counted.to_json())
    rates = merged(told, now=START + (1 if len(told) == 1 else 2))
    together = [1000 * seconds for latencies in workers for seconds in latencies]
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        exact = np.quantile(together, share, method="inverted_cdf")
        assert rates[name][-1] == pytest.approx(exact, rel=0.052)


@pytest.mark.parametrize("seconds", [0.0, -0.001, 1e-9, 1e6])
def test_no_latency_is_too_short_or_too_long(clock: Clock, seconds: float) -> None:
    counted = Recent()
    counted.record(seconds, 1, False)
    clock.now += 1
    rates = merged([counted.to_json()], now=clock.now)
    assert rates["requests"][-1] == 1
    found = rates["p99_ms"][-1]
    assert found is not None
    assert (found < 1e-5) == (seconds < 1)


def test_without_workers_there_are_rates_all_the_same() -> None:
    rates = merged([])
    assert set(rates) == set(Rates.__annotations__)
    assert {len(values) for values in rates.values()} == {WINDOW}


class Parts(HTMLParser):
    """What stands in a page: its elements, and the text of its styles and scripts."""

    def __init__(self, page: Served) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {"style": [], "script": []}
        self._within = ""
        self.feed(page.body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._within = tag
        if tag in self.text:
            self.text[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in self.text:
            self.text[self._within][-1] += data


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_runs_its_own_script_alone(path: str) -> None:
    page = routes()[path]
    policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
    parts = Parts(page)
    for tag in ("script", "style"):
        [text] = parts.text[tag]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy[f"{tag}-src"] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert not [name for _, attributes in parts.elements for name in attributes if name.startswith("on")]
    assert not [name for _, attributes in parts.elements for name in attributes if name == "style"]
    assert page.content_type == "text/html; charset=utf-8"
    assert page.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_names_no_other_host(path: str) -> None:
    text = routes()[path].body.decode()
    assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^'\"\s]*", text)) <= {"http://www.w3.org/2000/svg"}


def test_nothing_is_read_as_html() -> None:
    words = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc")
    assert [path.name for path in ASSETS.glob("*.js") if words.search(path.read_text(encoding="utf-8"))] == []


def test_a_page_which_the_browser_holds_is_not_sent_again() -> None:
    page = routes()["/"]
    assert page.answer() == page.answer('"other"') == (200, page.headers, page.body)
    for held in (page.etag, f"W/{page.etag}", f'"other", {page.etag}', "*"):
        status, headers, body = page.answer(held)
        assert (status, body, headers["ETag"]) == (304, b"", page.etag)
        assert headers["Content-Security-Policy"] == page.headers["Content-Security-Policy"]
    assert routes()["/docs"].etag != page.etag


def test_all_assets_are_used_and_packaged() -> None:
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert package_data["package-data"]["tidemill.runtime.serving.page"] == ["assets/*"]
    sent = b"\n".join(page.body for page in routes().values()).decode()
    for path in ASSETS.iterdir():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first in sent, f"{path.name} is in no page"
