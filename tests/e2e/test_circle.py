"""The circle on this machine; see `tests.support.scenario`."""

from __future__ import annotations

import pytest

from tests.support.scenario import circle

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


test_circle = circle
