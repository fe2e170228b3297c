"""What reaches the model, and what is refused: tidemill against MLflow, on generated signatures and requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.compat import strategies
from tests.compat.differences import DIFFERENCES, Difference
from tests.compat.oracle import agree
from tests.compat.pair import Pair, check
from tests.compat.profile import MODELS
from tests.compat.strategies import Request

_REQUESTS = 6


@pytest.mark.parametrize("kind", ["scalar", "nested", "tensor"])
def test_generated_requests(pair: Pair, kind: str) -> None:
    signatures = getattr(strategies, f"{kind}_signatures")()

    @MODELS
    @given(st.data())
    def compare(data: st.DataObject) -> None:
        signature = data.draw(signatures)
        for _ in range(_REQUESTS):
            check(pair.ask(signature, data.draw(strategies.requests(signature))))

    compare()


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.id)
def test_listed_differences_still_occur(pair: Pair, difference: Difference) -> None:
    example = difference.example
    case = pair.ask(example.signature, Request(example.body, example.content_type), example.answer)
    assert not agree(case.ours, case.theirs), f"both answer the same now; remove the difference\n  {case}"
    assert difference.recognises(case), f"the example differs in another way\n  {case}"


def test_differences_have_distinct_names_and_reasons() -> None:
    assert len({difference.id for difference in DIFFERENCES}) == len(DIFFERENCES)
    assert all(difference.theirs and difference.ours and difference.why for difference in DIFFERENCES)
