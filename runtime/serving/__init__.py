"""The model server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

if TYPE_CHECKING:
    from .codecs.answers import output_array
    from .contract.columns import FIRST_TIME, LAST_TIME, UnfitValueError
    from .contract.model_contract import Column, Contract
    from .inference.batch import Batch, Outputs
    from .settings import CompileSettings, ServingSettings
    from .versions.loading import loader
    from .versions.model import ServedModel
    from .versions.source import source_of

__all__ = [
    "FIRST_TIME",
    "LAST_TIME",
    "Batch",
    "Column",
    "CompileSettings",
    "Contract",
    "Outputs",
    "ServedModel",
    "ServingSettings",
    "UnfitValueError",
    "loader",
    "output_array",
    "source_of",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "codecs.answers": ["output_array"],
        "contract.columns": ["FIRST_TIME", "LAST_TIME", "UnfitValueError"],
        "contract.model_contract": ["Column", "Contract"],
        "inference.batch": ["Batch", "Outputs"],
        "settings": ["CompileSettings", "ServingSettings"],
        "versions.loading": ["loader"],
        "versions.model": ["ServedModel"],
        "versions.source": ["source_of"],
    },
)
