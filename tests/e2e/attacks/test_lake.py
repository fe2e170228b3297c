"""Attacks on the lake of the running platform; see `gate` and `s3_gateway` of `tests.support.attacks`."""

from __future__ import annotations

import pytest

from tests.support.attacks import gate, s3_gateway

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

test_s3_gateway = s3_gateway.s3_gateway
test_around_the_gate = gate.around_the_gate
test_forged_gate = gate.forged_gate
