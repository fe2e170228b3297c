"""The model registry: model versions, the promotion gate, and the aliases that decide which version serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

if TYPE_CHECKING:
    from .versions import (
        CHAMPION,
        PREVIOUS,
        ModelVersion,
        Verdict,
        connect,
        promote,
        serving_version,
        version,
        version_of_job,
    )

__all__ = [
    "CHAMPION",
    "PREVIOUS",
    "ModelVersion",
    "Verdict",
    "connect",
    "promote",
    "serving_version",
    "version",
    "version_of_job",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "versions": [
            "CHAMPION",
            "ModelVersion",
            "PREVIOUS",
            "Verdict",
            "connect",
            "promote",
            "serving_version",
            "version",
            "version_of_job",
        ],
    },
)
