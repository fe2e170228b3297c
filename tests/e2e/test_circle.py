"""The circle on this machine; see `tests.support.scenario`."""

from __future__ import annotations

import pytest

from tests.support.scenario import Circle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


class TestCircle(Circle):
    """On `target: local`."""
