"""Loads a scikit-learn model with MLflow and writes it with skops or as ONNX. A script, without tidemill installed.

    python -I rewrite.py REQUEST

REQUEST is a JSON text: `model`, the folder of the model; `to`, `skops` or `onnx`; `file`, the file to write; `inputs`,
the columns of the model, each with its `name` and `kind`. The last line of standard output is the result as JSON.

The script uses MLflow, and otherwise only what every Python from 3.8 on has.
"""

from __future__ import annotations

import json
import sys
import warnings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(argv: list[str]) -> int:
    """Run the script; return its exit code."""
    warnings.simplefilter("ignore")
    request = json.loads(argv[1])
    from mlflow import sklearn

    model = sklearn.load_model(request["model"])
    result = {"skops": write_skops, "onnx": write_onnx}[request["to"]](model, request)
    sys.stdout.write("\n" + json.dumps(result) + "\n")
    return 0


def write_skops(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Write the model with skops; return the types that skops does not trust by itself."""
    import skops.io

    skops.io.dump(model, request["file"])
    return {"types": sorted(set(skops.io.get_untrusted_types(file=request["file"])))}


def write_onnx(model: Any, request: dict[str, Any]) -> dict[str, Any]:
    """Write the model as ONNX, with one input for each column; return the names of its outputs."""
    from skl2onnx import to_onnx
    from skl2onnx.common import data_types

    tensors = {
        "boolean": data_types.BooleanTensorType,
        "integer": data_types.Int64TensorType,
        "long": data_types.Int64TensorType,
        "float": data_types.FloatTensorType,
        # Few converters of classifiers support double precision; the comparison with the model judges the difference.
        "double": data_types.FloatTensorType,
        "string": data_types.StringTensorType,
    }
    inputs: Any = [(str(column["name"]), tensors[column["kind"]]([None, 1])) for column in request["inputs"]]
    options = {"zipmap": False} if hasattr(model, "predict_proba") else None
    made: Any = to_onnx(model, initial_types=inputs, options={id(model): options} if options else None)
    with open(request["file"], "wb") as file:  # noqa: PTH123 - as the rest of this script
        file.write(made.SerializeToString())
    return {"outputs": [output.name for output in made.graph.output]}


if __name__ == "__main__":
    sys.exit(main(sys.argv))
