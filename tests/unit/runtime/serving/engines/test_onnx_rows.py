"""Which ONNX graphs are known to treat their rows independently."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from tidemill.runtime.serving.engines.onnx_rows import why_graph_unknown

WIDTH = 4


def constant(name: str, values: Any, kind: Any = np.float32) -> Any:
    return onnx.numpy_helper.from_array(np.asarray(values, dtype=kind), name)


def saved(
    folder: Path,
    nodes: list[Any],
    constants: Sequence[Any] = (),
    *,
    shape: Any = ("n", WIDTH),
    opset: int = 17,
) -> Path:
    """Save a graph from `x` to `y`."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [given], [out], initializer=list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    file = folder / "model.onnx"
    onnx.save(model, str(file))
    return file


def node(kind: str, *inputs: str, out: str = "y", **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), [out], **attributes)


_RANDOM = np.random.default_rng(0)
W = constant("w", _RANDOM.normal(size=(WIDTH, 3)))
ROW = constant("row", _RANDOM.normal(size=(1, WIDTH)))
VECTOR = constant("row", _RANDOM.normal(size=WIDTH))
SQUARE = constant("square", _RANDOM.normal(size=(WIDTH, WIDTH)))


def integers(name: str, *values: int) -> Any:
    return constant(name, values, np.int64)


KNOWN: dict[str, tuple[list[Any], list[Any]]] = {
    "Relu": ([node("Relu", "x")], []),
    "Add a row": ([node("Add", "x", "row")], [ROW]),
    "Add a vector": ([node("Add", "x", "row")], [VECTOR]),
    "Gemm": ([node("Gemm", "x", "w")], [W]),
    "Gemm with transB": ([node("Gemm", "x", "square", transB=1)], [SQUARE]),
    "MatMul": ([node("MatMul", "x", "w")], [W]),
    "Softmax": ([node("Softmax", "x")], []),
    "Softmax of axis 1": ([node("Softmax", "x", axis=1)], []),
    "ReduceMean": ([node("ReduceMean", "x", axes=[1])], []),
    "ReduceSum": ([node("ReduceSum", "x", "axes")], [integers("axes", -1)]),
    "ReduceSum without keepdims": ([node("ReduceSum", "x", "axes", keepdims=0)], [integers("axes", 1)]),
    "Concat": ([node("Relu", "x", out="r"), node("Concat", "x", "r", axis=1)], []),
    "Reshape as before": ([node("Reshape", "x", "shape")], [integers("shape", 0, 2, 2)]),
    "Reshape with a known width": ([node("Reshape", "x", "shape")], [integers("shape", -1, 2, 2)]),
    "Transpose inside a row": (
        [node("Reshape", "x", "shape", out="t"), node("Transpose", "t", perm=[0, 2, 1])],
        [integers("shape", 0, 2, 2)],
    ),
    "Slice": (
        [node("Slice", "x", "from", "to", "axes")],
        [integers("from", 1), integers("to", 3), integers("axes", 1)],
    ),
    "Gather columns": ([node("Gather", "x", "at", axis=1)], [integers("at", 0, 2)]),
    "layers": (
        [
            node("Gemm", "x", "square", out="a"),
            node("Relu", "a", out="b"),
            node("Add", "b", "x", out="c"),
            node("MatMul", "c", "w", out="d"),
            node("Softmax", "d"),
        ],
        [SQUARE, W],
    ),
}
UNKNOWN: dict[str, tuple[list[Any], list[Any]]] = {
    "Softmax over the rows": ([node("Softmax", "x", axis=0)], []),
    "Softmax over the rows from the end": ([node("Softmax", "x", axis=-2)], []),
    "ReduceSum over the rows": ([node("ReduceSum", "x", "axes")], [integers("axes", 0)]),
    "ReduceMean of everything": ([node("ReduceMean", "x")], []),
    "share of a column": (
        [node("ReduceSum", "x", "axes", out="s"), node("Div", "x", "s")],
        [integers("axes", 0)],
    ),
    "Add other numbers for each row": ([node("Add", "x", "square")], [SQUARE]),
    "Add across the rows": (
        [node("ReduceSum", "x", "axes", keepdims=0, out="s"), node("Add", "x", "s")],
        [integers("axes", 1)],
    ),
    "Gemm with transA": ([node("Gemm", "x", "w", transA=1)], [W]),
    "Transpose": ([node("Transpose", "x", perm=[1, 0])], []),
    "Transpose by default": ([node("Transpose", "x")], []),
    "MatMul with itself": (
        [node("Transpose", "x", perm=[1, 0], out="t"), node("MatMul", "x", "t")],
        [],
    ),
    "Concat of rows": ([node("Concat", "x", "x", axis=0)], []),
    "CumSum over the rows": ([node("CumSum", "x", "axis")], [integers("axis", 0)]),
    "Reshape across rows": ([node("Reshape", "x", "shape")], [integers("shape", -1, 2)]),
    "Reshape to one row": ([node("Reshape", "x", "shape")], [integers("shape", 1, -1)]),
    "Flatten to one row": ([node("Flatten", "x", axis=0)], []),
    "Slice of rows": (
        [node("Slice", "x", "from", "to", "axes")],
        [integers("from", 0), integers("to", 1), integers("axes", 0)],
    ),
    "Gather rows": ([node("Gather", "x", "at", axis=0)], [integers("at", 0, 0)]),
    "Shape": ([node("Shape", "x", out="s"), node("Cast", "s", to=TensorProto.FLOAT)], []),
    "DynamicQuantizeLinear": (
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"]),
            node("DequantizeLinear", "q", "scale", "zero"),
        ],
        [],
    ),
    "a constant": ([node("Identity", "row")], [ROW]),
    "random": ([node("RandomNormalLike", "x")], []),
}


@pytest.mark.parametrize("name", KNOWN)
def test_graphs_that_keep_the_rows_apart_are_known(name: str, tmp_path: Path) -> None:
    file = saved(tmp_path, *KNOWN[name])
    assert why_graph_unknown(file) is None
    session = onnxruntime.InferenceSession(str(file))
    rows = _RANDOM.normal(size=(5, WIDTH)).astype(np.float32)
    whole = session.run(None, {"x": rows})[0]
    parts = [session.run(None, {"x": rows[index : index + 1]})[0] for index in range(5)]
    assert np.allclose(whole, np.concatenate(parts), atol=1e-5)


@pytest.mark.parametrize("name", UNKNOWN)
def test_graphs_that_may_combine_rows_are_not_known(name: str, tmp_path: Path) -> None:
    assert why_graph_unknown(saved(tmp_path, *UNKNOWN[name]))


def test_a_softmax_of_an_older_version_has_another_axis(tmp_path: Path) -> None:
    assert why_graph_unknown(saved(tmp_path, [node("Softmax", "x")], opset=11)) is None
    assert why_graph_unknown(saved(tmp_path, [node("Softmax", "x", axis=0)], opset=11))


def test_a_fixed_number_of_rows_and_files_of_another_kind_are_not_known(tmp_path: Path) -> None:
    assert "fixed number of rows" in str(why_graph_unknown(saved(tmp_path, [node("Relu", "x")], shape=(3, WIDTH))))
    assert "no axis" in str(why_graph_unknown(saved(tmp_path, [node("Relu", "x")], shape=())))
    (tmp_path / "text").write_text("no graph")
    assert "cannot be read" in str(why_graph_unknown(tmp_path / "text"))
    assert "cannot be read" in str(why_graph_unknown(tmp_path / "absent"))


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (LinearRegression(), {}),
        (make_pipeline(StandardScaler(), LogisticRegression()), {"zipmap": False}),
        (make_pipeline(StandardScaler(), LogisticRegression()), {}),
        (make_pipeline(MinMaxScaler(), RandomForestClassifier(3, max_depth=3)), {"zipmap": False}),
    ],
    ids=["linear", "logistic", "zipmap", "forest"],
)
def test_converted_models_of_scikit_learn_are_known(model: Any, options: Any, tmp_path: Path) -> None:
    from skl2onnx import to_onnx

    rows = _RANDOM.normal(size=(30, WIDTH)).astype(np.float32)
    fitted = model.fit(rows, np.arange(30) % 3)
    converted = to_onnx(fitted, rows[:1], options={id(fitted): options} if options else None)
    file = tmp_path / "model.onnx"
    file.write_bytes(converted.SerializeToString())
    assert why_graph_unknown(file) is None
