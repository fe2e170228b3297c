"""A version without a usable signature: the refusal names the call that adds one, only where that helps."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
import yaml
from mlflow.models import infer_signature
from tidemill.runtime.serving.engines.errors import UnfitError
from tidemill.runtime.serving.versions.preparation import PreparationSettings, prepare
from tidemill.runtime.training.runs import Run

CODE = {"loader_module": "mlflow.pyfunc.model", "model_code_path": "model_code.py", "python_version": "3.11.0"}


def refusal(folder: Path, signature: dict[str, str] | None) -> UnfitError:
    (folder / "model").mkdir()
    (folder / "model" / "model_code.py").write_text("raise SystemExit('it is not loaded')")
    document = {"flavors": {"python_function": CODE}, **({"signature": signature} if signature else {})}
    (folder / "model" / "MLmodel").write_text(yaml.safe_dump(document))
    with pytest.raises(UnfitError) as caught:
        prepare(folder, PreparationSettings())
    return caught.value


@pytest.mark.parametrize("signature", [None, {"inputs": "[]"}, {"outputs": json.dumps([{"type": "double"}])}])
def test_the_call_that_adds_a_signature_is_named(tmp_path: Path, signature: dict[str, str] | None) -> None:
    error = refusal(tmp_path, signature)
    assert "no signature" in error.message
    assert error.hint is not None
    assert "signature=mlflow.models.infer_signature(X, model.predict(X))" in error.hint
    assert "run.log_model(model, features=X)" in error.hint
    # The calls are those of MLflow and of tidemill.
    assert list(inspect.signature(infer_signature).parameters)[:2] == ["model_input", "model_output"]
    inspect.signature(Run.log_model).bind(None, "model", features="X")


def test_a_signature_with_an_unsupported_type_gets_another_answer(tmp_path: Path) -> None:
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "complex128", "shape": [-1, 2]}}
    error = refusal(tmp_path, {"inputs": json.dumps([tensor])})
    assert "complex128" in error.message
    assert error.hint is None
    assert "signature=" not in str(error)
