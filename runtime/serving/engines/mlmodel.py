"""Reads a model's `MLmodel` file and refuses models that may hold a pickle, unless the user trusts pickles.

A pickle can run any code, and MLflow loads some pickles without a warning. So only storage formats are accepted that
never read a pickle, according to MLflow's source. `limit_pickle` makes MLflow itself refuse pickles too.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import yaml

from .errors import UnfitError
from .model_code import one_at_a_time

METHOD = "tidemill.method"
"""Key of a model's metadata: the method of the scikit-learn model that a converted one stands for."""
PICKLE_SWITCH = "MLFLOW_ALLOW_PICKLE_DESERIALIZATION"
_SCALARS = frozenset({"boolean", "integer", "long", "float", "double", "string", "binary", "datetime"})
# Flavours whose loader reads only files in the library's own format (mlflow 3.17).
_PLAIN = {
    "mlflow.catboost": "catboost",
    "mlflow.lightgbm": "lightgbm",
    "mlflow.onnx": "onnx",
    "mlflow.prophet": "prophet",
    "mlflow.sklearn": "sklearn",
    "mlflow.xgboost": "xgboost",
}
# Loaders of models from code (a Python file); they unpickle any other model.
_FROM_CODE = (
    "mlflow.pyfunc.model",
    "mlflow.pyfunc.loaders.code_model",
    "mlflow.pyfunc.loaders.chat_agent",
    "mlflow.pyfunc.loaders.chat_model",
    "mlflow.pyfunc.loaders.responses_agent",
)
_WAYS_OUT = (
    "if you trust its author, let it run code as the server's user: --trust pickle for serve and score, or "
    "serve.trust: [pickle] in the stack config; or write a version without a pickle: "
)
_FOR_SCIKIT = "tidemill convert MODEL@VERSION (for scikit-learn models)"
_AS_CODE = "log it as a model from code: python_model is the path of a file that calls set_model"
_OTHER_WAYS = {
    **dict.fromkeys(_FROM_CODE, f"{_FOR_SCIKIT}, or {_AS_CODE}"),
    "mlflow.sklearn": "tidemill convert MODEL@VERSION",
}
# To trust a type from one of these modules would be to trust everything.
_NEVER_TRUSTED = frozenset(
    {
        *("builtins", "cloudpickle", "code", "codeop", "commands", "ctypes", "dill", "importlib", "joblib", "marshal"),
        *("multiprocessing", "nt", "os", "pickle", "posix", "pty", "runpy", "shelve", "shutil", "skops", "socket"),
        *("subprocess", "sys", "types", "webbrowser"),
    }
)
# Larger archives must not unpack to more than this many times their size.
_UNPACKED_BYTES, _UNPACKED_RATIO = 2**30, 50
_HARMLESS = frozenset({"builtins.slice", "builtins.complex", "builtins.frozenset", "types.SimpleNamespace"})


@dataclass(frozen=True)
class MLmodel:
    """The content of an `MLmodel` file.

    Attributes:
        folder: of the model.
        flavors: name of the flavour -> how to load the model.
        signature: its inputs and outputs, as JSON texts.
        example: how its input example is stored.
        metadata: what its author stored with it.
        hinted: its signature comes from the type hint of its `predict`.
    """

    folder: Path
    flavors: Mapping[str, Mapping[str, Any]]
    signature: Mapping[str, Any]
    example: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hinted: bool = False

    @classmethod
    def read(cls, folder: Path) -> MLmodel:
        """Read the file in `folder`.

        Raises:
            UnfitError: the file is missing, or does not name a way to load the model.
        """
        try:
            raw = yaml.safe_load((folder / "MLmodel").read_text(encoding="utf-8"))
            flavors = cast("dict[str, dict[str, Any]]", raw["flavors"])
            found = (raw.get(name) or {} for name in ("signature", "saved_input_example_info", "metadata"))
            return cls(folder, flavors, *found, hinted=raw.get("is_signature_from_type_hint") is True)
        except FileNotFoundError:
            raise UnfitError("its artifacts contain no MLmodel file", hint="log it with a flavour of MLflow") from None
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise UnfitError(f"its MLmodel file cannot be read ({type(error).__name__}: {error})") from None

    @property
    def function(self) -> Mapping[str, Any]:
        """The flavour `python_function`, which every model has."""
        return self.flavors.get("python_function") or {}

    @property
    def loader(self) -> str:
        """The module that loads the model."""
        return str(self.function.get("loader_module"))

    @property
    def method(self) -> str:
        """The method of the model that answers."""
        return str(self.function.get("predict_fn") or self.metadata.get(METHOD) or "predict")

    @property
    def is_sklearn(self) -> bool:
        """Whether it is a scikit-learn model, which loads without MLflow."""
        return self.loader == "mlflow.sklearn"

    @property
    def flavor(self) -> Mapping[str, Any]:
        """The flavour that its loader reads."""
        return self.flavors.get(_PLAIN.get(self.loader, "")) or {}

    @property
    def code(self) -> Path | None:
        """The folder of the code that is packaged with it."""
        name = self.function.get("code")
        return self.path_of(str(name)) if name else None

    @property
    def trusted_types(self) -> list[str]:
        """The types that skops may also create, as named when the model was logged."""
        return [str(name) for name in self.flavor.get("skops_trusted_types") or ()]

    def path_of(self, name: str) -> Path:
        """Return the path of a file or folder of the model.

        Raises:
            UnfitError: the path leads out of the model's folder.
        """
        root = self.folder.resolve()
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise UnfitError(f"its MLmodel names {name!r}, which is outside the model's folder")
        return path

    def inputs(self) -> Any:
        """Return the signature's inputs as an MLflow schema or an object like it; None if there are none."""
        text = self.signature.get("inputs")
        if not text:
            return None
        specs = cast("list[dict[str, Any]]", json.loads(text))
        if all(spec.get("type") in _SCALARS or "tensor-spec" in spec for spec in specs):
            # To import MLflow for these would take longer than all the rest.
            return SimpleNamespace(inputs=[_spec(spec) for spec in specs])
        from mlflow.types import Schema

        return Schema.from_json(text)

    def outputs(self) -> list[Mapping[str, Any]]:
        """Return the signature's outputs, in MLflow's notation; empty if there are none."""
        try:
            specs = json.loads(self.signature.get("outputs") or "[]")
        except ValueError:
            return []
        return specs if isinstance(specs, list) and all(isinstance(spec, dict) for spec in specs) else []

    def params(self) -> list[dict[str, Any]] | None:
        """Return the signature's inference parameters in MLflow's notation; None if it defines none."""
        text = self.signature.get("params")
        return json.loads(text) if text else None

    def pickle_reason(self) -> str | None:
        """Return why loading the model may read a pickle, or None if it reads none."""
        flavor, loader, function = self.flavor, self.loader, self.function
        if loader in _FROM_CODE:
            pickled = [str(function[key]) for key in ("python_model",) if key in function]
            pickled += [path.name for path in self.folder.glob("*.pkl")]
            if "model_code_path" in function and not pickled:
                return None
            return f"the model is stored as a pickle ({', '.join(pickled) or 'python_model'})"
        if loader not in _PLAIN:
            return f"the model is loaded by {loader}, which may read a pickle"
        stored = flavor.get("serialization_format", "pickle")
        kind = str(flavor.get("model_class") or "")
        if loader == "mlflow.sklearn" and stored != "skops":
            return f"the model is stored as {loader} with {stored}, which may hold a pickle"
        if loader == "mlflow.lightgbm" and kind not in ("", "lightgbm.basic.Booster") and stored != "skops":
            return f"the model is stored as {kind} with {stored}, which may hold a pickle"
        if loader == "mlflow.xgboost" and kind and not kind.startswith("xgboost."):
            return f"the model is a {kind}, which is not a class of xgboost"
        return None

    def pickle_switch(self, trust: Sequence[str] = ()) -> str:
        """Return the value of MLflow's switch. MLflow treats skops like a pickle; `check` has checked its types."""
        allowed = "pickle" in trust or self.flavor.get("serialization_format") == "skops"
        return "true" if allowed else "false"

    def check(self, trust: Sequence[str] = ()) -> None:
        """Refuse a model that may hold a pickle, or that unpacks to far more than its size.

        Args:
            trust: what its files may hold; `pickle` accepts pickles.

        Raises:
            UnfitError: the model may hold a pickle, its storage format is unknown, or one of its files is a zip bomb or
                a damaged archive.
        """
        if "pickle" not in trust and (reason := self.pickle_reason()) is not None:
            raise UnfitError(reason, hint=_WAYS_OUT + _OTHER_WAYS.get(self.loader, _FOR_SCIKIT))
        # MLflow takes only the file name of `model_code_path`.
        for name in ("data", "model_path", "code"):
            if isinstance(value := self.function.get(name), str):
                self.path_of(value)
        for name in self.trusted_types:
            if name.partition(".")[0] in _NEVER_TRUSTED and name not in _HARMLESS:
                raise UnfitError(
                    f"the model requires trust in {name}, which can run any code",
                    hint="build the model without it",
                )
        self._check_archives()

    def _check_archives(self) -> None:
        """Check the sizes that the archives declare; `zipfile` reads no more of an entry than its declared size."""
        for path in self.folder.rglob("*"):
            if not path.is_file() or not zipfile.is_zipfile(path):
                continue
            try:
                with zipfile.ZipFile(path) as archive:
                    unpacked = sum(entry.file_size for entry in archive.infolist())
            except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
                # The constructor also raises these for fields that it cannot use.
                raise UnfitError(
                    f"{path.name} is a damaged zip archive ({error})", hint="log the model again"
                ) from None
            if unpacked > _UNPACKED_BYTES and unpacked > _UNPACKED_RATIO * path.stat().st_size:
                raise UnfitError(
                    f"{path.name} unpacks to {unpacked} bytes, more than {_UNPACKED_RATIO} times its size",
                    hint="log the model without compression",
                )


def _spec(spec: Mapping[str, Any]) -> SimpleNamespace:
    if (tensor := spec.get("tensor-spec")) is not None:
        return SimpleNamespace(name=spec.get("name"), type=np.dtype(tensor["dtype"]), shape=tuple(tensor["shape"]))
    kind = SimpleNamespace(name=spec["type"])
    return SimpleNamespace(name=spec.get("name"), type=kind, required=bool(spec.get("required", True)))


@contextmanager
def limit_pickle(mlmodel: MLmodel, trust: Sequence[str] = ()) -> Generator[None]:
    """Make MLflow refuse pickles, unless they are trusted. The switch is for one version at a time; others wait."""
    with one_at_a_time:
        before = os.environ.get(PICKLE_SWITCH)
        os.environ[PICKLE_SWITCH] = mlmodel.pickle_switch(trust)
        try:
            yield
        finally:
            if before is None:
                del os.environ[PICKLE_SWITCH]
            else:
                os.environ[PICKLE_SWITCH] = before
