"""The model server, and the parts of it that batch scoring uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = [
    "Batch",
    "BatchSettings",
    "Column",
    "CompileSettings",
    "Contract",
    "InvalidValueError",
    "Outputs",
    "ServedModel",
    "ServingSettings",
    "is_time_out_of_range",
    "loader",
    "output_array",
    "output_type",
    "source_of",
]

if TYPE_CHECKING:
    from .codecs.arrow import is_time_out_of_range
    from .codecs.responses import output_array
    from .contract.columns import InvalidValueError
    from .contract.model_contract import Column, Contract
    from .engines.prepared import output_type
    from .inference.batch import Batch, Outputs
    from .settings import BatchSettings, CompileSettings, ServingSettings
    from .versions.loading import loader
    from .versions.model import ServedModel
    from .versions.source import source_of
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "codecs.arrow": ["is_time_out_of_range"],
            "codecs.responses": ["output_array"],
            "contract.columns": ["InvalidValueError"],
            "contract.model_contract": ["Column", "Contract"],
            "engines.prepared": ["output_type"],
            "inference.batch": ["Batch", "Outputs"],
            "settings": ["BatchSettings", "CompileSettings", "ServingSettings"],
            "versions.loading": ["loader"],
            "versions.model": ["ServedModel"],
            "versions.source": ["source_of"],
        },
    )
