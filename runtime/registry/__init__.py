"""The model registry: model versions, the promotion gate, and the aliases that decide which version serves.

Settings come from TIDEMILL_RUNTIME unless a function gets `registry`:

    verdict = registry.promote("flights", "3", PromoteSettings(metric="roc_auc", at_least=0.65))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = [
    "CHAMPION",
    "PREVIOUS",
    "ModelVersion",
    "Verdict",
    "connect",
    "promote",
    "serving_version",
    "set_alias",
    "translate_errors",
    "version",
    "version_of_job",
]

if TYPE_CHECKING:
    from .gate import Verdict
    from .promotion import PREVIOUS, promote, set_alias
    from .versions import CHAMPION, ModelVersion, connect, serving_version, translate_errors, version, version_of_job
else:
    __getattr__ = lazy_exports(
        __name__, {"versions": __all__, "gate": ["Verdict"], "promotion": ["PREVIOUS", "promote", "set_alias"]}
    )
