"""Drift between a reference and a current window. Each drift test is a module of `measures`.

>>> import pandas as pd
>>> from tidemill.runtime.drift import score
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

__all__ = [
    "DriftResult",
    "FeatureDrift",
    "Measure",
    "Profile",
    "Relation",
    "RelationChange",
    "Sample",
    "Test",
    "TestResult",
    "jensen_shannon",
    "null_change",
    "register",
    "score",
    "wasserstein",
]

if TYPE_CHECKING:
    from .measures.base import Measure
    from .measures.jensen_shannon import jensen_shannon
    from .measures.null_change import null_change
    from .measures.registry import register
    from .measures.wasserstein import wasserstein
    from .profile import Profile
    from .relation import Relation, RelationChange
    from .sample import Sample
    from .scoring import DriftResult, FeatureDrift, Test, TestResult, score
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "measures.base": ["Measure"],
            "measures.jensen_shannon": ["jensen_shannon"],
            "measures.null_change": ["null_change"],
            "measures.registry": ["register"],
            "measures.wasserstein": ["wasserstein"],
            "profile": ["Profile"],
            "relation": ["Relation", "RelationChange"],
            "sample": ["Sample"],
            "scoring": ["DriftResult", "FeatureDrift", "Test", "TestResult", "score"],
        },
    )
