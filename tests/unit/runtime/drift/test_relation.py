"""The relation between predictions and labels: no alarm without a change, an alarm when labels are flipped."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tidemill.runtime.common.errors import ConfigError
from tidemill.runtime.drift import Relation

BINARY = (0.0, 1.0)
Rows = tuple[NDArray[np.float64], NDArray[np.float64]]


def binary(
    random: np.random.Generator, rows: int, *, flipped: float = 0.0, scores: tuple[float, float] = (2, 5)
) -> Rows:
    """Draw calibrated scores and their labels; a share of the labels is flipped."""
    score = random.beta(*scores, rows)
    label = (random.random(rows) < score).astype("float64")
    return score, np.where(random.random(rows) < flipped, 1 - label, label)


def numbers(random: np.random.Generator, rows: int, *, flipped: float = 0.0) -> Rows:
    prediction = random.normal(10, 3, rows)
    label = prediction + random.standard_t(3, rows)
    return prediction, np.where(random.random(rows) < flipped, -label, label)


def several(random: np.random.Generator, rows: int, *, flipped: float = 0.0) -> Rows:
    shares = random.dirichlet([1, 1, 1], rows)
    label = (random.random((rows, 1)) > shares.cumsum(axis=1)).sum(axis=1)
    return shares, np.where(random.random(rows) < flipped, (label + 1) % 3, label).astype("float64")


def relation(rows: Rows, classes: tuple[float, ...] | None) -> Relation:
    found = Relation.of(*rows, classes=classes)
    assert found is not None
    return Relation.from_json(json.loads(json.dumps(found.to_json())))


@pytest.mark.parametrize(
    ("draw", "classes", "held_out", "rows"),
    [
        (binary, BINARY, 300, 200),
        (binary, BINARY, 15_000, 1_000),
        (binary, BINARY, 1_000, 20_000),
        (numbers, None, 1_000, 500),
        (several, (0.0, 1.0, 2.0), 1_000, 500),
    ],
)
def test_no_change_raises_at_most_one_alarm_in_a_hundred_windows(
    draw: Any, classes: tuple[float, ...] | None, held_out: int, rows: int
) -> None:
    random = np.random.default_rng(11)
    alarms, extreme = 0, 0
    for index in range(1000):
        if index % 20 == 0:
            reference = relation(draw(random, held_out), classes)
        change = reference.compare(*draw(random, rows))
        assert change is not None
        alarms += change.changed
        extreme += change.p_value < 0.01
    assert alarms <= 10
    assert extreme <= 40, "the p-value is one"


def test_a_window_that_grows_is_tested_again_and_again_without_an_alarm() -> None:
    random = np.random.default_rng(12)
    reference = relation(binary(random, 3000), BINARY)
    alarms = 0
    for _ in range(200):
        scores, labels = binary(random, 4000)
        alarms += any(
            (change := reference.compare(scores[:rows], labels[:rows])) is not None and change.changed
            for rows in range(200, 4001, 200)
        )
    assert alarms <= 2


@pytest.mark.parametrize(("draw", "classes"), [(binary, BINARY), (numbers, None), (several, (0.0, 1.0, 2.0))])
def test_flipped_labels_are_found(draw: Any, classes: tuple[float, ...] | None) -> None:
    random = np.random.default_rng(13)
    reference = relation(draw(random, 5000), classes)
    found = [reference.compare(*draw(random, 1000, flipped=0.4)) for _ in range(50)]
    assert all(change is not None and change.changed for change in found)
    everything = reference.compare(*draw(random, 1000, flipped=1.0))
    assert everything is not None
    assert everything.distance > 0.3


def test_a_certain_model_whose_labels_are_all_flipped_is_found() -> None:
    scores = np.tile([0.0, 1.0], 500)
    change = relation((scores, scores), BINARY).compare(scores, 1 - scores)
    assert change is not None
    assert (change.changed, change.distance) == (True, 1.0)


def test_other_scores_with_the_same_relation_are_no_change() -> None:
    random = np.random.default_rng(14)
    reference = relation(binary(random, 15_000), BINARY)
    for _ in range(50):
        change = reference.compare(*binary(random, 5000, scores=(5, 2)))
        assert change is not None
        assert not change.changed


def test_unusable_rows_are_left_out_and_too_few_are_no_verdict() -> None:
    random = np.random.default_rng(15)
    reference = relation(binary(random, 1000), BINARY)
    scores, labels = binary(random, 1000)
    odd = np.array([7.0, 1e308, np.nan, np.inf])
    change = reference.compare(np.append(scores, [0.5] * 4), np.append(labels, odd))
    assert change == reference.compare(scores, labels)
    assert reference.compare(scores[:99], labels[:99]) is None
    assert Relation.of(scores[:99], labels[:99], classes=BINARY) is None
    residuals = relation(numbers(random, 1000), None)
    prediction, value = numbers(random, 1000)
    wild = residuals.compare(np.append(prediction, 0.0), np.append(value, 1e308))
    assert wild is not None
    assert not wild.changed, "one label beyond all reason is one label"


@pytest.mark.parametrize(
    ("predictions", "labels", "classes"),
    [
        ([0.5] * 3, [1.0] * 2, BINARY),
        ([[0.5, 0.5]] * 3, [1.0] * 3, None),
        ([[0.5, 0.5]] * 3, [1.0] * 3, (0.0, 1.0, 2.0)),
        ([0.5] * 3, [1.0] * 3, (0.0, 1.0, 2.0)),
    ],
)
def test_held_out_rows_of_another_form_are_refused(predictions: Any, labels: Any, classes: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Relation.of(predictions, labels, classes=classes)
    assert caught.value.field == "held_out"


@pytest.mark.parametrize("change", [{"kind": "other"}, {"bands": []}, {"classes": []}, {"edges": ["x"]}])
def test_a_damaged_relation_is_refused(change: dict[str, Any]) -> None:
    document = relation(binary(np.random.default_rng(16), 500), BINARY).to_json()
    with pytest.raises((ValueError, KeyError, TypeError)):
        Relation.from_json(document | change)
