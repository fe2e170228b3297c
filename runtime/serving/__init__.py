"""The model server, and the parts of it that batch scoring uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = [
    "BOOLEAN_CELLS",
    "NULL_CELLS",
    "Batch",
    "Column",
    "CompileSettings",
    "Contract",
    "InvalidValueError",
    "Outputs",
    "Problem",
    "ServedModel",
    "ServingSettings",
    "absent_columns",
    "is_finer_than_microsecond",
    "is_time_out_of_range",
    "loader",
    "object_texts",
    "output_array",
    "read_params",
    "source_of",
]

if TYPE_CHECKING:
    from .codecs.arrow import is_finer_than_microsecond, is_time_out_of_range
    from .codecs.checks import BOOLEAN_CELLS, NULL_CELLS, absent_columns
    from .codecs.responses import output_array
    from .contract.columns import InvalidValueError
    from .contract.frames import object_texts
    from .contract.model_contract import Column, Contract
    from .contract.params import read_params
    from .http.errors import Problem
    from .inference.batch import Batch, Outputs
    from .settings import CompileSettings, ServingSettings
    from .versions.loading import loader
    from .versions.model import ServedModel
    from .versions.source import source_of
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "codecs.arrow": ["is_finer_than_microsecond", "is_time_out_of_range"],
            "codecs.checks": ["BOOLEAN_CELLS", "NULL_CELLS", "absent_columns"],
            "codecs.responses": ["output_array"],
            "contract.columns": ["InvalidValueError"],
            "contract.frames": ["object_texts"],
            "contract.model_contract": ["Column", "Contract"],
            "contract.params": ["read_params"],
            "http.errors": ["Problem"],
            "inference.batch": ["Batch", "Outputs"],
            "settings": ["CompileSettings", "ServingSettings"],
            "versions.loading": ["loader"],
            "versions.model": ["ServedModel"],
            "versions.source": ["source_of"],
        },
    )
