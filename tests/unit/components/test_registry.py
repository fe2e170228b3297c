"""The accounts that `up` creates in MLflow, and the hosts by which it may be called."""

from __future__ import annotations

import functools
import json
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from tidemill.runtime.registry.accounts import GRANTS as PEOPLE_GRANTS
from tidemill.runtime.registry.accounts import PEOPLE, SERVICES
from tidemill.runtime.registry.mlflow_routes import PUBLIC, TABLE, permits
from tidemill.stacks.loading import load_stack
from tidemill.stacks.program import compose

from tests.support.accounts import GRANTS
from tests.support.graphs import record

ROOT = Path(__file__).parents[3]
