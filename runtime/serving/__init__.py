"""The model server, and the parts of it that batch scoring uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = [
    "Answer",
    "AnswerError",
    "Batch",
    "BatchSettings",
    "Column",
    "CompileSettings",
    "Contract",
    "InvalidValueError",
    "Outputs",
    "ServedModel",
    "ServingSettings",
    "Trusted",
    "arrow_array",
    "is_time_out_of_range",
    "loader",
    "non_finite_rows",
    "output_columns",
    "source_of",
]

if TYPE_CHECKING:
    from .codecs.answer_columns import arrow_array, output_columns
    from .codecs.arrow import is_time_out_of_range
    from .contract.columns import InvalidValueError
    from .contract.model_contract import Column, Contract
    from .engines.outputs import Answer, AnswerError
    from .inference.batch import Batch, Outputs
    from .inference.finite import non_finite_rows
    from .settings import BatchSettings, CompileSettings, ServingSettings, Trusted
    from .versions.loading import loader
    from .versions.model import ServedModel
    from .versions.source import source_of
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "codecs.answer_columns": ["arrow_array", "output_columns"],
            "codecs.arrow": ["is_time_out_of_range"],
            "contract.columns": ["InvalidValueError"],
            "contract.model_contract": ["Column", "Contract"],
            "engines.outputs": ["Answer", "AnswerError"],
            "inference.batch": ["Batch", "Outputs"],
            "inference.finite": ["non_finite_rows"],
            "settings": ["BatchSettings", "CompileSettings", "ServingSettings", "Trusted"],
            "versions.loading": ["loader"],
            "versions.model": ["ServedModel"],
            "versions.source": ["source_of"],
        },
    )
