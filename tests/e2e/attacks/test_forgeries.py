"""Forged calls of the running platform; see `tests.support.attacks.forgeries`."""

from __future__ import annotations

import pytest

from tests.support.attacks import forgeries

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

test_hooks = forgeries.hooks
test_alerts = forgeries.alerts
test_labels = forgeries.labels
test_keys_of_the_model_server = forgeries.keys_of_the_model_server
