"""The model server, and the parts of it that batch scoring uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..common.lazy import lazy_exports

__all__ = [
    "BOOLEAN_CELLS",
    "NULL_CELLS",
    "NUMBER_CELL",
    "Answer",
    "AnswerError",
    "Batch",
    "BatchSettings",
    "Column",
    "CompileSettings",
    "Contract",
    "InvalidValueError",
    "Outputs",
    "Problem",
    "ServedModel",
    "ServingSettings",
    "Trusted",
    "absent_columns",
    "arrow_array",
    "integer_of_cell",
    "is_finer_than_microsecond",
    "is_time_out_of_range",
    "loader",
    "non_finite_rows",
    "object_texts",
    "output_columns",
    "read_params",
    "source_of",
]

if TYPE_CHECKING:
    from .codecs.answer_columns import arrow_array, output_columns
    from .codecs.arrow import is_finer_than_microsecond, is_time_out_of_range
    from .codecs.checks import BOOLEAN_CELLS, NULL_CELLS, NUMBER_CELL, absent_columns, integer_of_cell
    from .codecs.params import read_params
    from .contract.columns import InvalidValueError
    from .contract.frames import object_texts
    from .contract.model_contract import Column, Contract
    from .engines.outputs import Answer, AnswerError
    from .http.errors import Problem
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
            "codecs.arrow": ["is_finer_than_microsecond", "is_time_out_of_range"],
            "codecs.checks": ["BOOLEAN_CELLS", "NULL_CELLS", "NUMBER_CELL", "absent_columns", "integer_of_cell"],
            "contract.columns": ["InvalidValueError"],
            "contract.frames": ["object_texts"],
            "contract.model_contract": ["Column", "Contract"],
            "codecs.params": ["read_params"],
            "engines.outputs": ["Answer", "AnswerError"],
            "http.errors": ["Problem"],
            "inference.batch": ["Batch", "Outputs"],
            "inference.finite": ["non_finite_rows"],
            "settings": ["BatchSettings", "CompileSettings", "ServingSettings", "Trusted"],
            "versions.loading": ["loader"],
            "versions.model": ["ServedModel"],
            "versions.source": ["source_of"],
        },
    )
