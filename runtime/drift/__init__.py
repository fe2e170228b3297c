"""Drift between a reference and a current window.

>>> import pandas as pd
>>> reference = pd.DataFrame({"distance": [100.0, 200.0, 300.0, 400.0], "origin": ["JFK", "JFK", "EWR", "LGA"]})
>>> result = score(reference, reference.assign(distance=reference["distance"] + 500))
>>> [(feature.name, feature.test, round(feature.score, 2), feature.drifted) for feature in result.features]
[('distance', 'wasserstein', 4.47, True), ('origin', 'jensenshannon', 0.0, False)]
>>> result.share
0.5
"""

from tidemill.runtime.drift.distances import jensen_shannon, null_change, wasserstein
from tidemill.runtime.drift.scoring import DriftResult, FeatureDrift, Test, TestResult, score

__all__ = [
    "DriftResult",
    "FeatureDrift",
    "Test",
    "TestResult",
    "jensen_shannon",
    "null_change",
    "score",
    "wasserstein",
]
