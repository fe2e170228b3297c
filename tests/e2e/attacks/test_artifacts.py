"""Harmful model artifacts in the running platform; see `tests.support.attacks.artifacts`."""

from __future__ import annotations

import pytest

from tests.support.attacks import artifacts

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

test_poisoned_versions = artifacts.poisoned_versions
test_places_of_artifacts = artifacts.places_of_artifacts
test_plainly_poisoned_versions = pytest.mark.slow(artifacts.plainly_poisoned_versions)
