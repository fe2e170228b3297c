"""Compiles a fitted estimator into the files of a kernel. Only used in preparation."""

from __future__ import annotations

import copy
import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UnsupportedError
from .estimators import Recipe

_COMPILE_SECONDS = 240.0
# Compiling takes one or two seconds for 5,000 nodes. With very many nodes, tables are faster than code.
_MOST_NODES = 100_000
_NODES_A_FILE = 3_000
_TINY = 1e-30
_ENTRY = """
#include "header.h"

__attribute__((visibility("default")))
int tidemill_predict(const double* rows, size_t count, int margin, double* out) {
  const size_t width = (size_t)get_num_feature(), scores = N_TARGET * MAX_N_CLASS;
  union Entry* row = malloc(width * sizeof(union Entry));
  if (row == NULL) return 1;
  for (size_t r = 0; r < count; ++r) {
    for (size_t f = 0; f < width; ++f) {
      const double value = rows[r * width + f];
      if (value != value) row[f].missing = -1; else row[f].fvalue = value;
    }
    SCORE result[N_TARGET * MAX_N_CLASS] = {0};
    predict(row, margin, result);
    for (size_t s = 0; s < scores; ++s) out[r * scores + s] = result[s];
  }
  free(row);
  return 0;
}
"""


def compile_kernel(name: str, recipe: Recipe, features: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Write the files of the kernel `name` into `folder`.

    Args:
        name: of the kernel, such as `tl2cgen`.
        recipe: how to compile the estimator.
        features: number of features.
        folder: for the files.

    Returns:
        The spec for `open_kernel`, and the recipe's `finish` for this kernel.

    Raises:
        UnsupportedError: the kernel cannot compute this estimator, or cannot be compiled here.
        Exception: any error of the libraries.
    """
    finish = recipe.finish
    if name == "onnxruntime" and finish["kind"] == "column" and hasattr(recipe.estimator, "classes_"):
        # ONNX returns the probabilities of both classes.
        finish = {**finish, "column": 1}
    return _WRITERS[name](recipe, features, folder), finish


def _linear(recipe: Recipe, features: int, folder: Path) -> dict[str, Any]:
    del folder
    if recipe.family != "linear":
        raise UnsupportedError("not a linear model")
    if any(len(row) != features for row in recipe.linear["coefficients"]):
        raise UnsupportedError("its coefficients do not match the features")
    return recipe.linear


def _treelite(recipe: Recipe, features: int, folder: Path) -> dict[str, Any]:
    del features
    path = folder / "model.treelite"
    model = _trees(recipe)
    if (kind := model.input_type) not in ("float64", "float32") or model.output_type != kind:
        raise UnsupportedError(f"trees of {kind}")
    model.serialize(path)
    return {"file": path.name, "width": recipe.width, "margin": recipe.margin, "single": kind == "float32"}


def _trees(recipe: Recipe) -> Any:
    if recipe.family != "trees":
        raise UnsupportedError("not an ensemble of trees")
    if recipe.trees is not None:
        return recipe.trees
    treelite = _imported("treelite")
    estimator = recipe.estimator
    if hasattr(estimator, "tree_"):
        estimator = _forest_of(estimator)
    return treelite.sklearn.import_model(estimator)


def _forest_of(tree: Any) -> Any:
    """Return a forest that contains only `tree`: treelite does not support single trees."""
    from sklearn.base import is_classifier
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = RandomForestClassifier(n_estimators=1) if is_classifier(tree) else RandomForestRegressor(n_estimators=1)
    forest.estimators_ = [tree]
    for name in ("n_features_in_", "n_outputs_", "n_classes_", "classes_"):
        if hasattr(tree, name):
            setattr(forest, name, getattr(tree, name))
    return forest


def _tl2cgen(recipe: Recipe, features: int, folder: Path) -> dict[str, Any]:
    del features
    model = _trees(recipe)
    nodes = sum(int(_field(model, tree, "num_nodes")[0]) for tree in range(model.num_tree))
    if nodes > _MOST_NODES:
        raise UnsupportedError(f"{nodes} nodes are too many to compile")
    compiler = _compiler()
    tl2cgen = _imported("tl2cgen")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary)
        files = max(1, min(model.num_tree, nodes // _NODES_A_FILE))
        tl2cgen.generate_c_code(model, work, {"parallel_comp": files} if files > 1 else {})
        scores = _widen_missing(work / "header.h")
        (work / "entry.c").write_text(_ENTRY.replace("SCORE", scores), encoding="utf-8")
        sources = sorted(work.glob("*.c"))
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
        objects = [path.with_suffix(".o") for path in sources]
        # No `-ffast-math`: the results must equal scikit-learn's. A higher -O takes far longer and gains nothing.
        flags = ["-O1", "-fPIC", "-fvisibility=hidden", "-std=c99", "-w"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            commands = [
                [*compiler, *flags, "-c", str(source), "-o", str(output)]
                for source, output in zip(sources, objects, strict=True)
            ]
            list(pool.map(_run, commands))
        # Named by its content: the loader reuses an open library of the same path, even if the file has changed.
        target = folder / f"model-{digest}.so"
        _run([*compiler, "-shared", "-o", str(target), *map(str, objects), "-lm"])
    return {"file": target.name, "width": recipe.width, "margin": recipe.margin}


def _widen_missing(header: Path) -> str:
    """Make the mark for a missing value as wide as a number; return the type of the scores.

    tl2cgen writes a 32-bit mark in a union with the double. Every double whose lower half is all ones, such as
    0.9999999999999999, would count as missing.
    """
    text = header.read_text(encoding="utf-8")
    entry = re.search(r"union Entry \{\s*int missing;\s*(double|float) fvalue;", text)
    scores = re.search(r"void predict\(union Entry\* data, int pred_margin, (double|float)\* result\);", text)
    if entry is None or scores is None:
        raise UnsupportedError("the C code of this version of tl2cgen")
    if entry[1] == "double":
        header.write_text(text.replace(entry[0], entry[0].replace("int missing", "int64_t missing")), encoding="utf-8")
    return scores[1]


def _compiler() -> list[str]:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        argv = shlex.split(name) if name else []
        if argv and shutil.which(argv[0]):
            return argv
    raise UnsupportedError("no C compiler is installed")


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_COMPILE_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UnsupportedError(f"the C compiler did not finish within {_COMPILE_SECONDS:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnsupportedError(f"the C compiler failed ({last[:200]})")


def _onnx(recipe: Recipe, features: int, folder: Path) -> dict[str, Any]:
    if recipe.estimator is None or recipe.margin or recipe.finish["kind"] not in ("column", "matrix"):
        raise UnsupportedError("an estimator that returns labels, or is not scikit-learn's")
    skl2onnx, types = _imported("skl2onnx"), _imported("skl2onnx.common.data_types")
    _imported("onnxruntime")
    single = "float32" in recipe.final_operations
    estimator = _single_thresholds(recipe.estimator) if single else recipe.estimator
    classifies = hasattr(recipe.estimator, "classes_")
    with redirect_stdout(StringIO()):
        graph = skl2onnx.to_onnx(
            estimator,
            initial_types=[("X", (types.FloatTensorType if single else types.DoubleTensorType)([None, features]))],
            options={id(estimator): {"zipmap": False}} if classifies else None,
        )
    path = folder / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    return {"file": path.name, "output": graph.graph.output[-1].name, "single": single}


def _single_thresholds(estimator: Any) -> Any:
    """Return a copy with thresholds of single precision that decides the same for values of single precision.

    The converter rounds a threshold to the nearest value. That may move it above a value that was above the threshold.
    """
    changed = copy.deepcopy(estimator)
    for tree in _single_trees(changed):
        rounded = tree.threshold.astype(np.float32)
        above = rounded > tree.threshold
        rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
        tree.threshold[:] = rounded
    return changed


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        if error.name in (package, name):
            raise UnsupportedError(f'{package} is not installed (pip install "tidemill[compiled]")') from None
        raise UnsupportedError(f"{package} cannot be imported ({error})") from None


_WRITERS: dict[str, Callable[[Recipe, int, Path], dict[str, Any]]] = {
    "linear": _linear,
    "tl2cgen": _tl2cgen,
    "treelite": _treelite,
    "onnxruntime": _onnx,
}


def _single_trees(estimator: Any) -> list[Any]:
    if hasattr(estimator, "tree_"):
        return [estimator.tree_]
    if hasattr(estimator, "_predictors"):
        return [tree for stage in estimator._predictors for tree in stage]
    return [tree.tree_ for tree in np.asarray(getattr(estimator, "estimators_", [])).ravel()]


def _field(model: Any, tree: int, name: str) -> Any:
    return model.get_tree_accessor(tree).get_field(name)


def thresholds(recipe: Recipe, most: int = 200) -> dict[int, list[float]]:
    """Return the thresholds of an ensemble of trees by feature, at most `most` for each."""
    found: dict[int, list[float]] = {}
    for features, values in _splits(recipe):
        for feature, value in zip(features.tolist(), values.tolist(), strict=True):
            kept = found.setdefault(feature, [])
            # LightGBM writes 1e-35 for zero.
            if len(kept) < most and np.isfinite(value) and (value == 0.0 or abs(value) > _TINY):
                kept.append(value)
    return found


def _splits(recipe: Recipe) -> Iterator[tuple[Any, Any]]:
    """Yield the features and thresholds of each tree's splits."""
    if (model := recipe.trees) is not None:
        for tree in range(model.num_tree):
            inside = _field(model, tree, "cleft") >= 0
            yield _field(model, tree, "split_index")[inside], _field(model, tree, "threshold")[inside]
        return
    for tree in _single_trees(recipe.estimator):
        if hasattr(tree, "nodes"):
            inner = tree.nodes[(tree.nodes["is_leaf"] == 0) & (tree.nodes["is_categorical"] == 0)]
            yield inner["feature_idx"], inner["num_threshold"]
        else:
            inside = tree.children_left >= 0
            yield tree.feature[inside], tree.threshold[inside]
