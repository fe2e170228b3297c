"""Drift between a reference and a current window.

>>> import pandas as pd
>>> reference = pd.DataFrame({"distance": [100.0, 200.0, 300.0, 400.0], "origin": ["JFK", "JFK", "EWR", "LGA"]})
>>> result = score(reference, reference.assign(distance=reference["distance"] + 500))
>>> [(feature.name, feature.test, round(feature.score, 2), feature.drifted) for feature in result.features]
[('distance', 'wasserstein', 4.47, True), ('origin', 'jensenshannon', 0.0, False)]
>>> result.share
0.5
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

if TYPE_CHECKING:
    from .distances import (
        jensen_shannon,
        null_change,
        wasserstein,
    )
    from .profile import (
        Profile,
    )
    from .scoring import (
        DriftResult,
        FeatureDrift,
        Test,
        TestResult,
        score,
    )

__all__ = [
    "DriftResult",
    "FeatureDrift",
    "Profile",
    "Test",
    "TestResult",
    "jensen_shannon",
    "null_change",
    "score",
    "wasserstein",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "distances": ["jensen_shannon", "null_change", "wasserstein"],
        "profile": ["Profile"],
        "scoring": ["DriftResult", "FeatureDrift", "Test", "TestResult", "score"],
    },
)
