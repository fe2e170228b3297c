"""Attacks on the ports of the running platform; see `tests.support.attacks.access`."""

from __future__ import annotations

import pytest

from tests.support.attacks import access

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

test_no_credentials_and_odd_ones = access.no_credentials_and_odd_ones
test_secrets_of_other_services = access.secrets_of_other_services
test_pages_of_other_sites = access.pages_of_other_sites
test_foreign_host_headers = access.foreign_host_headers
test_open_paths_of_lakefs = access.open_paths_of_lakefs
test_operations_of_lakefs = access.operations_of_lakefs
