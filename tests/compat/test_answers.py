"""What models answer: tidemill against MLflow, for each form of answer and several numbers of rows."""

from __future__ import annotations

import pytest
from mlflow.types import ColSpec, Schema

from tests.compat.answers import ANSWERS
from tests.compat.models import Signature
from tests.compat.pair import Pair, check
from tests.compat.strategies import Request

_SIGNATURE = Signature(Schema([ColSpec("double", "x")]))


@pytest.mark.parametrize("name", ANSWERS)
def test_answer(pair: Pair, name: str) -> None:
    for rows in (1, 3):
        request = Request({"dataframe_split": {"columns": ["x"], "data": [[float(row)] for row in range(rows)]}})
        check(pair.ask(_SIGNATURE, request, ANSWERS[name]))
