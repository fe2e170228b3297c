"""The machinery of the serving benchmarks works: a short closed and a short open run against our own server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.benchmarks.measure import judge
from tests.benchmarks.serving import models, wrk
from tests.benchmarks.serving.batches import with_arrow
from tests.benchmarks.serving.checking import bodies, check, check_batch
from tests.benchmarks.serving.contestants import Served, tidemill
from tests.benchmarks.serving.models import Model
from tests.benchmarks.serving.opened import offer, sustained
from tests.benchmarks.serving.openloop import fixed, run
from tests.benchmarks.serving.overload import REFUSALS, overload, tell
from tests.benchmarks.serving.soak import growth, soak
from tests.support.tree import ROOT

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return models.make("trees", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def served(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with tidemill(model, tmp_path_factory.mktemp("serving"), compiled=False) as one:
        yield one


@pytest.fixture(scope="module")
def _wrk() -> None:
    if not (shutil.which("wrk") or shutil.which("apt-get")):
        pytest.skip("wrk is neither on PATH nor available as a Debian package")


def counted(served: Served) -> int:
    """Return how many requests the server says it answered."""
    headers = {"Authorization": served.headers["Authorization"]}
    text = httpx.get(f"{served.server.url}/metrics", headers=headers, trust_env=False).text
    return int(sum(float(one) for one in re.findall(r"^tidemill_requests_total\{.*\} (\S+)$", text, re.MULTILINE)))


def test_every_row_is_answered_as_the_model_does(served: Served, model: Model) -> None:
    before = counted(served)
    assert check(served, model) <= 1e-6
    assert len({tuple(row) for row in model.rows}) == models.ROWS == 512
    assert counted(served) - before == 512


def test_a_wrong_answer_is_found(served: Served, model: Model) -> None:
    expected = model.expected.copy()
    expected[317] += 1e-5
    with pytest.raises(RuntimeError, match="is wrong"):
        check(served, replace(model, expected=expected))
    with pytest.raises(RuntimeError, match=r"answers \{401: 512\}"):
        check(replace(served, headers={"Content-Type": "application/json"}), model)


@pytest.mark.usefixtures("_wrk")
def test_closed_loop(served: Served, model: Model) -> None:
    before = counted(served)
    seen = wrk.load(served, bodies(served, model), connections=8, seconds=1)
    assert seen.failed == 0
    assert seen.rate > 0
    # wrk ends in the middle of requests which the server counts all the same.
    assert seen.answered <= counted(served) - before <= seen.answered + 8


@pytest.mark.usefixtures("_wrk")
def test_closed_loop_tells_what_failed(served: Served, model: Model) -> None:
    refused = replace(served, headers={**served.headers, "Authorization": "Bearer wrong"})
    seen = wrk.load(refused, bodies(served, model), connections=4, seconds=1)
    assert seen.rate == seen.answered == 0
    assert seen.refused > 0


def test_open_loop(served: Served, model: Model) -> None:
    result = offer(served, model, 60, 1.0)
    assert result.count() == {200: len(result.scheduled)}
    assert (result.latency > 0).all()
    assert np.isfinite(result.percentile(100))
    lost = replace(result, status=np.where(np.arange(len(result.status)) == 3, 503, result.status))
    assert not sustained(lost)


def test_batches_as_json_and_as_arrow(served: Served, model: Model, tmp_path: Path) -> None:
    assert check_batch(served, model, served.body(model.batch.tolist())) <= 1e-6
    with with_arrow(model, tmp_path, compiled=False) as arrow:
        assert check_batch(arrow, model, arrow.body(model.batch.tolist())) <= 1e-6


@pytest.mark.usefixtures("_wrk")
def test_overload_is_answered_or_refused(served: Served, model: Model) -> None:
    seen = overload(served, model, 1.0)
    assert set(seen.result.count()) <= {200} | REFUSALS
    assert seen.result.good.any()
    assert len(seen.memory) > 1
    tell("the test", seen)


def test_what_is_refused_is_told(served: Served, model: Model, tmp_path: Path) -> None:
    with tidemill(model, tmp_path, compiled=False, limits={"concurrency": 1}) as tight:
        requests = [tight.request(body) for body in bodies(tight, model)]
        result = run(tight.server.address, requests, fixed(4_000, 0.1), connections=64)
    assert set(result.count()) == {200, 503}
    assert result.percentile(0, result.good) > 0


def test_soak(served: Served, model: Model) -> None:
    seen = soak(served, model, slices=2, seconds=0.5, rate=60)
    assert [one.failed for one in seen] == [0, 0]
    assert all(one.rss > 1 and one.handles > 3 and one.sent > 0 for one in seen)


def test_growth_compares_the_last_third_with_the_one_before() -> None:
    assert growth([90, 10, 10, 10, 10, 10]) == 1
    assert growth([10, 10, 10, 10, 15, 15]) == 1.5
    assert growth([1, 2, 3]) == 1.5


@pytest.mark.parametrize(("value", "at_least", "met"), [(2.0, True, True), (1.0, True, False), (1.0, False, True)])
def test_goals_have_a_direction(value: float, at_least: bool, met: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("ours / theirs", value, 1.5, at_least=at_least) is met
    assert ("MISSED by 33 %" in capsys.readouterr().out) is not met


def test_the_command_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.serving", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for word in ("closed", "open", "mixed", "memory", "batches", "overload", "soak", "--rounds", "--quick"):
        assert word in done.stdout
