"""Finds out whether an ONNX graph treats its rows independently: axis 0 of every tensor stays the axis of the rows.

The graph is followed from its inputs. Each tensor is constant, or has one entry on axis 0 for each row. An operator,
an attribute or a shape that is not known to keep this is refused, so the answer "unknown" is common, and safe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from onnx import numpy_helper

_SAME: Final = frozenset(
    {
        *(
            "Abs",
            "Acos",
            "Acosh",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "BitwiseNot",
            "Cast",
            "Ceil",
            "Celu",
            "Cos",
            "Cosh",
        ),
        *("Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu"),
        *("Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin"),
        *("Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu"),
    }
)
_BROADCAST: Final = frozenset(
    {
        *("Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip", "Div", "Equal", "Greater", "GreaterOrEqual"),
        *(
            "Less",
            "LessOrEqual",
            "Max",
            "Mean",
            "Min",
            "Mod",
            "Mul",
            "Or",
            "PRelu",
            "Pow",
            "Sub",
            "Sum",
            "Where",
            "Xor",
        ),
    }
)
_REDUCE: Final = frozenset(
    {
        *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
        *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
    }
)
# Axis 0 of their first input is the batch by definition.
_BATCHED: Final = frozenset(
    {"AveragePool", "Conv", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "InstanceNormalization", "LRN"}
    | {"ConvTranspose", "LpPool", "MaxPool"}
)
# Operators of ai.onnx.ml on a matrix with one line per row -> rank of each output.
_ML: Final[dict[str, tuple[int, ...]]] = {
    **dict.fromkeys(("Binarizer", "Imputer", "LinearRegressor", "Normalizer", "Scaler", "SVMRegressor"), (2,)),
    **dict.fromkeys(("LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier"), (1, 2)),
    **dict.fromkeys(("TreeEnsemble", "TreeEnsembleRegressor"), (2,)),
}


class _UnknownError(Exception):
    """A node that is not known to keep the rows apart; the message says why."""


@dataclass(frozen=True)
class _Constant:
    """A tensor that does not depend on the inputs; `shape` and `value` are None if they are unknown."""

    shape: tuple[int, ...] | None = None
    value: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True)
class _Rows:
    """A tensor with one entry on axis 0 for each row."""

    rank: int


def why_graph_unknown(file: Path) -> str | None:
    """Return why the ONNX model in `file` is not known to treat its rows independently, or None if it is."""
    try:
        model = onnx.load(str(file), load_external_data=False)
        _Graph(model).check()
    except _UnknownError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a damaged file may raise anything; then it is unknown
        return f"its graph cannot be read ({type(error).__name__})"
    return None


class _Graph:
    def __init__(self, model: Any) -> None:
        self._model = model
        self._opset = {item.domain or "ai.onnx": item.version for item in model.opset_import}
        self._tensors: dict[str, _Constant | _Rows] = {}
        self._shapes = _known_shapes(model)

    def check(self) -> None:
        """Follow the graph.

        Raises:
            _UnknownError: it is not known to treat rows independently.
        """
        graph = self._model.graph
        if self._model.functions or graph.sparse_initializer:
            raise _UnknownError("it has functions or sparse constants of its own")
        for tensor in graph.initializer:
            self._tensors[tensor.name] = _constant(tensor)
        for item in graph.input:
            if item.name not in self._tensors:
                self._tensors[item.name] = _input_rows(item)
        for node in graph.node:
            self._follow(node)
        for item in graph.output:
            if not isinstance(self._tensors.get(item.name), _Rows):
                raise _UnknownError(f"its output {item.name} does not have one entry for each row")

    def _follow(self, node: Any) -> None:
        domain = node.domain or "ai.onnx"
        if domain not in ("ai.onnx", "ai.onnx.ml"):
            raise _UnknownError(f"the operator {domain}.{node.op_type}")
        # An optional input that is left out has an empty name.
        inputs = [self._tensors[name] if name else None for name in node.input]
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        known = any(isinstance(each, _Rows) for each in inputs)
        if domain == "ai.onnx" and node.op_type == "Constant":
            outputs: Sequence[_Constant | _Rows] = [_constant_of(attributes)]
        elif not known:
            outputs = self._folded(node, inputs)
        elif domain == "ai.onnx.ml":
            outputs = _ml_outputs(node, inputs)
        else:
            outputs = [self._output(node, inputs, attributes)] * len(node.output)
        for name, output in zip(node.output, outputs, strict=False):
            if name:
                self._tensors[name] = output
        for name in node.output[len(outputs) :]:
            if name:
                raise _UnknownError(f"more outputs of {node.op_type} than are known")

    def _folded(self, node: Any, inputs: Sequence[_Constant | _Rows | None]) -> list[_Constant]:
        if not inputs or node.op_type not in _SAME | _BROADCAST | {"DequantizeLinear", "Reshape", "Transpose"}:
            raise _UnknownError(f"the operator {node.op_type} on constants")
        return [_Constant(self._shapes.get(name)) for name in node.output]

    def _output(self, node: Any, inputs: Sequence[_Constant | _Rows | None], attributes: dict[str, Any]) -> _Rows:
        kind = node.op_type
        refusal = _UnknownError(f"the operator {kind} may combine rows")
        if kind in _BROADCAST:
            return _Rows(_broadcast(inputs, refusal))
        first = inputs[0]
        if kind == "Gather" and isinstance(first, _Constant) and isinstance(inputs[1], _Rows):
            # The rows choose from a table.
            if attributes.get("axis", 0) != 0 or first.shape is None:
                raise refusal
            return _Rows(inputs[1].rank + len(first.shape) - 1)
        if not isinstance(first, _Rows):
            raise refusal
        if kind != "MatMul" and any(isinstance(each, _Rows) for each in inputs[1:]) and kind != "Concat":
            raise refusal
        rank = first.rank
        if kind in _SAME:
            return first
        if kind in _BATCHED:
            if rank < 3 or len([name for name in node.output if name]) > 1:
                raise refusal
            return first
        rules: dict[str, Callable[[], int]] = {
            "ArgMax": lambda: _arg(rank, attributes, refusal),
            "ArgMin": lambda: _arg(rank, attributes, refusal),
            "BatchNormalization": lambda: self._normalised(node, rank, attributes, refusal),
            "Concat": lambda: _concatenated(inputs, attributes, refusal),
            "CumSum": lambda: _along(rank, _axes(inputs, 1, None), refusal),
            "Dropout": lambda: _dropped(rank, inputs, node, refusal),
            "Flatten": lambda: _flattened(attributes, refusal),
            "Gather": lambda: _gathered(rank, inputs, attributes, refusal),
            "Gemm": lambda: _gemm(inputs, attributes, refusal),
            "LayerNormalization": lambda: _along(rank, [attributes.get("axis", -1)], refusal),
            "MatMul": lambda: _product(inputs, refusal),
            "Reshape": lambda: self._reshaped(node, inputs, attributes, refusal),
            "Slice": lambda: _sliced(rank, inputs, attributes, refusal),
            "Squeeze": lambda: _squeezed(rank, inputs, attributes, refusal),
            "TopK": lambda: _along(rank, [attributes.get("axis", -1)], refusal),
            "Transpose": lambda: _transposed(rank, attributes, refusal),
            "Unsqueeze": lambda: _unsqueezed(rank, inputs, attributes, refusal),
        }
        if kind in ("Softmax", "LogSoftmax", "Hardmax"):
            default = -1 if self._opset.get("ai.onnx", 0) >= 13 else 1
            return _Rows(_along(rank, [attributes.get("axis", default)], refusal))
        if kind in _REDUCE:
            return _Rows(_reduced(rank, inputs, attributes, refusal))
        if kind not in rules:
            raise refusal
        return _Rows(rules[kind]())

    def _normalised(self, node: Any, rank: int, attributes: dict[str, Any], refusal: _UnknownError) -> int:
        outputs = [name for name in node.output if name]
        if rank < 2 or attributes.get("training_mode", 0) or len(outputs) > 1 or self._opset.get("ai.onnx", 0) < 7:
            raise refusal
        return rank

    def _reshaped(
        self, node: Any, inputs: Sequence[_Constant | _Rows | None], attributes: dict[str, Any], refusal: _UnknownError
    ) -> int:
        shape = _values(inputs, 1)
        if not shape or attributes.get("allowzero", 0) or 0 in shape[1:]:
            raise refusal
        if shape[0] == 0:
            # As many entries on axis 0 as before, so the entries of a row stay together.
            return len(shape)
        before = self._shapes.get(node.input[0], ())[1:]
        if shape[0] != -1 or not before or -1 in before or math.prod(before) != math.prod(shape[1:]):
            raise refusal
        return len(shape)


def _known_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes that ONNX infers; -1 is an unknown size."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    found: dict[str, tuple[int, ...]] = {}
    for item in (*graph.input, *graph.value_info, *graph.output):
        kind = item.type.tensor_type
        if item.type.HasField("tensor_type") and kind.HasField("shape"):
            found[item.name] = tuple(
                size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else -1 for size in kind.shape.dim
            )
    return found


def _constant(tensor: Any) -> _Constant:
    small = math.prod(tensor.dims) <= 64 and tensor.data_location != onnx.TensorProto.EXTERNAL
    return _Constant(tuple(tensor.dims), numpy_helper.to_array(tensor) if small else None)


def _constant_of(attributes: dict[str, Any]) -> _Constant:
    if "value" in attributes:
        return _constant(attributes["value"])
    for name in ("value_float", "value_floats", "value_int", "value_ints"):
        if name in attributes:
            value = np.array(attributes[name])
            return _Constant(value.shape, value)
    return _Constant()


def _input_rows(item: Any) -> _Rows:
    kind = item.type.tensor_type
    if not item.type.HasField("tensor_type") or not kind.HasField("shape") or not kind.shape.dim:
        raise _UnknownError(f"its input {item.name} has no axis of rows")
    if kind.shape.dim[0].HasField("dim_value") and kind.shape.dim[0].dim_value > 0:
        raise _UnknownError(f"its input {item.name} has a fixed number of rows")
    return _Rows(len(kind.shape.dim))


def _broadcast(inputs: Sequence[_Constant | _Rows | None], refusal: _UnknownError) -> int:
    """Return the rank of an element-wise operator; no operand may add, or be spread over, the axis of the rows."""
    ranks = {each.rank for each in inputs if isinstance(each, _Rows)}
    if len(ranks) != 1:
        raise refusal
    rank = ranks.pop()
    for each in inputs:
        if isinstance(each, _Constant) and (
            each.shape is None or len(each.shape) > rank or (len(each.shape) == rank and each.shape[0] != 1)
        ):
            raise refusal
    return rank


def _along(rank: int, axes: Sequence[int] | None, refusal: _UnknownError) -> int:
    """Check that an operator works along other axes than that of the rows; return the rank."""
    if not axes or any((axis + rank if axis < 0 else axis) not in range(1, rank) for axis in axes):
        raise refusal
    return rank


def _values(inputs: Sequence[_Constant | _Rows | None], position: int) -> list[int] | None:
    """Return the integers of a constant input, or None."""
    given = inputs[position] if position < len(inputs) else None
    if not isinstance(given, _Constant) or given.value is None:
        return None
    return [int(value) for value in given.value.ravel()]


def _axes(inputs: Sequence[_Constant | _Rows | None], position: int, attribute: Any) -> list[int] | None:
    """Return the axes, which are an attribute or, in later versions of the operators, an input."""
    return list(attribute) if attribute is not None else _values(inputs, position)


def _arg(rank: int, attributes: dict[str, Any], refusal: _UnknownError) -> int:
    _along(rank, [attributes.get("axis", 0)], refusal)
    return rank if attributes.get("keepdims", 1) else rank - 1


def _reduced(rank: int, inputs: Sequence[Any], attributes: dict[str, Any], refusal: _UnknownError) -> int:
    axes = _axes(inputs, 1, attributes.get("axes"))
    _along(rank, axes, refusal)
    return rank if attributes.get("keepdims", 1) else rank - len(axes or ())


def _concatenated(inputs: Sequence[Any], attributes: dict[str, Any], refusal: _UnknownError) -> int:
    if len({each.rank if isinstance(each, _Rows) else None for each in inputs}) != 1:
        raise refusal
    return _along(inputs[0].rank, [attributes["axis"]], refusal)


def _dropped(rank: int, inputs: Sequence[Any], node: Any, refusal: _UnknownError) -> int:
    training = _values(inputs, 2)
    if (len(inputs) > 2 and inputs[2] is not None and training != [0]) or len([n for n in node.output if n]) > 1:
        raise refusal
    return rank


def _flattened(attributes: dict[str, Any], refusal: _UnknownError) -> int:
    if attributes.get("axis", 1) != 1:
        raise refusal
    return 2


def _gathered(rank: int, inputs: Sequence[Any], attributes: dict[str, Any], refusal: _UnknownError) -> int:
    indices = inputs[1]
    if not isinstance(indices, _Constant) or indices.shape is None:
        raise refusal
    return _along(rank, [attributes.get("axis", 0)], refusal) - 1 + len(indices.shape)


def _gemm(inputs: Sequence[Any], attributes: dict[str, Any], refusal: _UnknownError) -> int:
    if inputs[0].rank != 2 or attributes.get("transA", 0):
        raise refusal
    added = inputs[2] if len(inputs) > 2 else None
    if added is not None and (added.shape is None or (len(added.shape) == 2 and added.shape[0] != 1)):
        raise refusal
    return 2


def _product(inputs: Sequence[Any], refusal: _UnknownError) -> int:
    left, right = inputs
    if isinstance(right, _Rows):
        if left.rank != right.rank or left.rank < 3:
            raise refusal
        return left.rank
    if left.rank < 2 or right.shape is None or len(right.shape) not in (1, 2):
        raise refusal
    return left.rank if len(right.shape) == 2 else left.rank - 1


def _sliced(rank: int, inputs: Sequence[Any], attributes: dict[str, Any], refusal: _UnknownError) -> int:
    return _along(rank, _axes(inputs, 3, attributes.get("axes")), refusal)


def _squeezed(rank: int, inputs: Sequence[Any], attributes: dict[str, Any], refusal: _UnknownError) -> int:
    axes = _axes(inputs, 1, attributes.get("axes"))
    return _along(rank, axes, refusal) - len(axes or ())


def _transposed(rank: int, attributes: dict[str, Any], refusal: _UnknownError) -> int:
    if list(attributes.get("perm", ()))[:1] != [0]:
        raise refusal
    return rank


def _unsqueezed(rank: int, inputs: Sequence[Any], attributes: dict[str, Any], refusal: _UnknownError) -> int:
    axes = _axes(inputs, 1, attributes.get("axes"))
    return _along(rank + len(axes or ()), axes, refusal)


def _ml_outputs(node: Any, inputs: Sequence[_Constant | _Rows | None]) -> list[_Constant | _Rows]:
    """Return the outputs of an operator for classical models."""
    kind = node.op_type
    refusal = _UnknownError(f"the operator ai.onnx.ml.{kind} may combine rows")
    first = inputs[0]
    if not isinstance(first, _Rows):
        raise refusal
    if kind == "LabelEncoder":
        return [first]
    if kind == "ZipMap" and first.rank == 2:
        # A sequence of maps, one for each row; no other operator reads it.
        return [_Rows(1)]
    if kind == "OneHotEncoder":
        return [_Rows(first.rank + 1)]
    if kind == "FeatureVectorizer" and all(isinstance(each, _Rows) and each.rank == 2 for each in inputs):
        return [_Rows(2)]
    if kind == "ArrayFeatureExtractor" and first.rank == 2 and isinstance(inputs[1], _Constant):
        return [_Rows(2)]
    if kind not in _ML or first.rank != 2 or len(inputs) != 1:
        raise refusal
    return [_Rows(rank) for rank in _ML[kind]]
