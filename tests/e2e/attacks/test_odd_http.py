"""Odd HTTP against the running platform; see `tests.support.attacks.odd_http`."""

from __future__ import annotations

import pytest

from tests.support.attacks import odd_http

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

test_broken_requests = odd_http.broken_requests
test_smuggled_requests = odd_http.smuggled_requests
test_floods = odd_http.floods
test_slow_connections = odd_http.slow_connections
test_bodies_for_the_model = odd_http.bodies_for_the_model
