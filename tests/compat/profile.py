"""How many examples the comparison tries."""

from __future__ import annotations

import os

import hypothesis

# TIDEMILL_COMPAT_EXAMPLES=2000 tries that many models of each kind; the suite tries few, always the same.
_GIVEN = os.environ.get("TIDEMILL_COMPAT_EXAMPLES")
MODELS = hypothesis.settings(
    max_examples=int(_GIVEN or 40),
    derandomize=_GIVEN is None,
    deadline=None,
    # To shrink takes minutes: each step loads a model. The models are small already.
    phases=list(hypothesis.Phase) if _GIVEN else [hypothesis.Phase.generate],
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
    print_blob=True,
)
