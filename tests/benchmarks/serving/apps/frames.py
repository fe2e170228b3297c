"""Rows of JSON as the frame which the model was fitted on; run in the peers' environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


class Frames:
    """Makes frames of the model in `folder`: floats first, then texts."""

    def __init__(self, folder: Path) -> None:
        about = json.loads((folder / "columns.json").read_text())
        self.texts: int = about["texts"]
        self.columns: list[str] = about["columns"]
        self._width = len(self.columns) - self.texts

    def of(self, rows: list[list[Any]] | np.ndarray[Any, Any]) -> pd.DataFrame:
        """Return rows of values in the order of the columns as a frame."""
        return pd.DataFrame(rows, columns=self.columns)

    def joined(self, numbers: np.ndarray[Any, Any], texts: np.ndarray[Any, Any]) -> pd.DataFrame:
        """Return the frame of floats and of texts which came apart."""
        names, words = self.columns[: self._width], self.columns[self._width :]
        return pd.concat([pd.DataFrame(numbers, columns=names), pd.DataFrame(texts, columns=words)], axis=1)
