"""One loaded model version."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from tidemill.runtime.serving.contract import Batch, Contract

__all__ = ["ServedModel", "UnfitError", "VersionInfo", "load", "preload"]

_WARM_ROWS = 100

Output = Literal["score", "scores", "prediction"]


class UnfitError(Exception):
    """A model version cannot be served; the message says why."""


@dataclass(frozen=True)
class VersionInfo:
    """A version in the registry.

    Attributes:
        alias: the alias it was found by.
        source: where its artifacts are; tells it from a deleted version which had the same number.
        run_id: the run which made it.
        tags: the version's tags, the lineage among them.
    """

    model: str
    version: str
    alias: str
    source: str
    run_id: str
    tags: Mapping[str, str]

    @property
    def identity(self) -> tuple[str, str]:
        """What makes it this version and no other."""
        return self.version, self.source

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "tags": dict(self.tags)}


class ServedModel:
    """A version which was loaded and has answered its own example.

    Attributes:
        info: which version.
        contract: what it takes.
        output: the name of what it gives: `score` is the probability of class 1 of a binary classifier, `scores` the
            probabilities of all classes of another classifier, `prediction` anything else.
        output_type: the outputs as a struct with one field, `output`.
        loaded_at: when, UTC.
    """

    def __init__(self, info: VersionInfo, predictor: Any, contract: Contract, output: Output) -> None:
        self.info = info
        self.contract = contract
        self.output: Output = output
        self.output_type = pa.struct([(output, pa.float64() if output == "score" else pa.list_(pa.float64()))])
        self.loaded_at = datetime.now(UTC)
        self._predictor = predictor

    def warm(self, frame: pd.DataFrame) -> None:
        """Answer `frame`, and learn from it what type the outputs have.

        Raises:
            UnfitError: the answer is no answer.
        """
        values = self._answer(frame)
        if self.output == "prediction":
            self.output_type = pa.struct([("prediction", pa.array(values).type)])

    def predict(self, batch: Batch) -> list[Any]:
        """Return one value a row: a number for `score`, a list for `scores`.

        Raises:
            UnfitError: the model did not give one finite value for each row.
        """
        return self._answer(self.contract.to_pandas(batch))

    def _answer(self, frame: pd.DataFrame) -> list[Any]:
        values = np.asarray(self._predictor.predict(frame))
        if values.shape[:1] != (len(frame),):
            raise UnfitError(f"the model gave the shape {values.shape} for {len(frame)} rows")
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            raise UnfitError("the model gave a value which is not finite")
        if self.output != "prediction" and (values.ndim != 2 or (self.output == "score") != (values.shape[1] == 2)):
            raise UnfitError(f"the model gave the shape {values.shape} where it had given {self.output}")
        return (values[:, 1] if self.output == "score" else values).tolist()


def preload() -> None:
    """Import what loading a model needs: seconds, which the first one then does not take."""
    for name in ("mlflow.pyfunc", "mlflow.sklearn", "skops.io"):
        importlib.import_module(name)


def load(info: VersionInfo, folder: Path, *, code_root: Path) -> ServedModel:
    """Load the version whose artifacts are in `folder`, and let it answer its input example.

    Args:
        info: which version it is.
        folder: its artifacts, an MLflow model.
        code_root: folder of all cached versions. Modules which an earlier version brought from there are forgotten
            first: the same name is other code in each version.

    Raises:
        UnfitError: it is not one that can be served. What else a broken model raises when loaded passes through.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    described = Model.load(str(folder))
    flavor: dict[str, Any] = (described.flavors or {}).get("python_function") or {}
    _refuse_pickle(described.flavors or {}, flavor)
    try:
        contract = Contract.of(described.get_input_schema())
    except ValueError as error:
        raise UnfitError(str(error)) from None
    with _fresh_code(code_root):
        predictor = pyfunc.load_model(str(folder))
        example = _example(described, folder, contract)
        output: Output = "prediction"
        if flavor.get("predict_fn") == "predict_proba":
            output = "score" if np.shape(predictor.predict(example))[1:] == (2,) else "scores"
        model = ServedModel(info, predictor, contract, output)
        model.warm(example)
    return model


def _refuse_pickle(flavors: Mapping[str, Any], function: Mapping[str, Any]) -> None:
    """Let nothing be unpickled: a pickle runs what it likes, also where MLflow would load it without a word."""
    module = function.get("loader_module")
    stored = (flavors.get("sklearn") or {}).get("serialization_format", "pickle")
    if module != "mlflow.sklearn" or stored != "skops":
        what = f"{module} with {stored}" if module == "mlflow.sklearn" else str(module)
        raise UnfitError(
            f"the model is stored as {what}, which may hold a pickle; log it with skops (run.log_model does)"
        )


def _example(described: Any, folder: Path, contract: Contract) -> pd.DataFrame:
    """Return the model's input example in the contract's order, or one row of zeros and empty strings."""
    names = [column.name for column in contract.columns]
    example = described.load_input_example(str(folder)) if described.saved_input_example_info else None
    if isinstance(example, pd.DataFrame) and len(example) and set(names) <= set(example.columns):
        return example.loc[:, names].head(_WARM_ROWS)
    empty = {"string": "", "boolean": False, "datetime": datetime(2000, 1, 1, tzinfo=UTC)}
    zeros = {column.name: [empty.get(column.kind, 0)] for column in contract.columns}
    return contract.to_pandas(Batch(zeros, None, 1))


@contextmanager
def _fresh_code(root: Path) -> Generator[None]:
    """Load without the modules and paths which earlier versions brought from below `root`; put back on failure.

    A version in use keeps its modules: its functions refer to them.
    """

    def below(file: object) -> bool:
        return isinstance(file, str) and Path(file).is_relative_to(root)

    path = list(sys.path)
    modules = {name: module for name, module in sys.modules.items() if below(getattr(module, "__file__", None))}
    for name in modules:
        del sys.modules[name]
    sys.path[:] = [entry for entry in path if not below(entry)]
    try:
        yield
    except BaseException:
        for name, module in list(sys.modules.items()):
            if below(getattr(module, "__file__", None)):
                del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:] = path
        raise
