"""Kernels compute raw scores from a matrix of numbers, each through a library.

The Python packages of `treelite` and `tl2cgen` import scipy, which costs 28 MB and half a second. So this module calls
their documented C interfaces instead. Only `onnxruntime` is imported.
"""

from __future__ import annotations

import _ctypes
import ctypes
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Up to this many rows, a call ends before another thread could use the interpreter.
_SHORT = 64
# From this many rows on, the cores share a call.
_MANY = 2048
_CORES = min(4, len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_CORES, thread_name_prefix="kernel")


class Kernel(Protocol):
    """A function from a matrix of features to raw scores."""

    def __call__(self, matrix: Matrix) -> Matrix:
        """Return the raw scores of each row; the matrix is in C order and has at least one row."""
        ...

    def close(self) -> None:
        """Release the library and its memory."""
        ...


def open_kernel(name: str, spec: Mapping[str, Any], folder: Path) -> Kernel:
    """Return the kernel `name` from its spec and the files in `folder`."""
    return _KERNELS[name](spec, folder)


class _Compiled:
    """Trees as machine code: a shared library by `tl2cgen`, with our own entry point for a whole matrix."""

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        path = str(folder / spec["file"])
        self._width = int(spec["width"])
        self._margin = int(spec["margin"])
        self._library = ctypes.CDLL(path)
        # The same library, called while holding the interpreter's lock.
        self._held = ctypes.PyDLL(path, handle=self._library._handle)
        for library in (self._library, self._held):
            library.tidemill_predict.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
            library.tidemill_predict.restype = ctypes.c_int

    def __call__(self, matrix: Matrix) -> Matrix:
        count = len(matrix)
        raw = np.empty((count, self._width))
        if count <= _SHORT:
            self._fill(self._held, matrix, raw)
        elif count < _MANY or _CORES == 1:
            self._fill(self._library, matrix, raw)
        else:
            size = -(-count // _CORES)
            starts = range(0, count, size)
            matrices = [matrix[start : start + size] for start in starts]
            list(
                _pool().map(
                    self._fill, repeat(self._library), matrices, [raw[start : start + size] for start in starts]
                )
            )
        return raw

    def _fill(self, library: ctypes.CDLL, matrix: Matrix, raw: Matrix) -> None:
        if library.tidemill_predict(matrix.ctypes.data, len(matrix), self._margin, raw.ctypes.data):
            raise MemoryError

    def close(self) -> None:
        handle = self._library._handle
        del self._library, self._held
        # Python never unloads a library by itself, and each served version has its own.
        if sys.platform != "win32":
            _ctypes.dlclose(handle)


class _Treelite:
    """Trees computed by treelite's own library (GTIL)."""

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        self._width = int(spec["width"])
        self._type = np.dtype(np.float32 if spec["single"] else np.float64)
        self._named = self._type.name.encode()
        self._library = library = ctypes.CDLL(str(_treelite_library()))
        library.TreeliteGetLastError.restype = ctypes.c_char_p
        library.TreeliteGTILPredict.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p)
        ]
        self._model, self._config = ctypes.c_void_p(), ctypes.c_void_p()
        path = str(folder / spec["file"]).encode()
        self._check(library.TreeliteDeserializeModelFromFile(ctypes.c_char_p(path), ctypes.byref(self._model)))
        kind = "raw" if spec["margin"] else "default"
        config = json.dumps({"predict_type": kind, "nthread": 1}).encode()
        self._check(library.TreeliteGTILParseConfig(ctypes.c_char_p(config), ctypes.byref(self._config)))

    def __call__(self, matrix: Matrix) -> Matrix:
        given = matrix.astype(self._type, copy=False)
        raw = np.zeros((len(matrix), self._width), dtype=self._type)
        self._check(
            self._library.TreeliteGTILPredict(
                self._model, given.ctypes.data, self._named, len(matrix), raw.ctypes.data, self._config
            )
        )
        return raw.astype(np.float64, copy=False)

    def close(self) -> None:
        self._check(self._library.TreeliteGTILDeleteConfig(self._config))
        self._check(self._library.TreeliteFreeModel(self._model))
        del self._model, self._config

    def _check(self, code: int) -> None:
        if code:
            raise RuntimeError(cast("bytes", self._library.TreeliteGetLastError()).decode("utf-8", "replace"))


def _treelite_library() -> Path:
    # Located without importing the package.
    found = importlib.util.find_spec("treelite")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("treelite is not installed", name="treelite")
    name = {"darwin": "libtreelite.dylib", "win32": "treelite.dll"}.get(sys.platform, "libtreelite.so")
    return Path(found.origin).parent / "lib" / name


class _Onnx:
    """A graph computed by onnxruntime."""

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / spec["file"]), options, providers=["CPUExecutionProvider"]
        )
        self._input: str = self._session.get_inputs()[0].name
        self._outputs = [str(spec["output"])]
        self._single = bool(spec["single"])

    def __call__(self, matrix: Matrix) -> Matrix:
        given = matrix.astype(np.float32) if self._single else matrix
        given = np.asarray(self._session.run(self._outputs, {self._input: given})[0], dtype=np.float64)
        return given.reshape(len(matrix), -1)

    def close(self) -> None:
        del self._session


class _Linear:
    """A linear model: one product of matrices."""

    def __init__(self, spec: Mapping[str, Any], folder: Path) -> None:
        del folder
        self._coefficients = np.array(spec["coefficients"], dtype=np.float64)
        self._intercept = np.array(spec["intercept"], dtype=np.float64)
        self._link = _LINKS[spec["link"]]

    def __call__(self, matrix: Matrix) -> Matrix:
        # Not by BLAS: there, the last bits of a row's answer depend on the number of rows in the call.
        return self._link(np.einsum("ij,kj->ik", matrix, self._coefficients) + self._intercept)

    def close(self) -> None:
        del self._coefficients


def _sigmoid(raw: Matrix) -> Matrix:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-raw))


def _softmax(raw: Matrix) -> Matrix:
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _one_vs_rest(raw: Matrix) -> Matrix:
    chances = _sigmoid(raw)
    total = chances.sum(axis=1, keepdims=True)
    return np.where(total == 0.0, 1.0 / raw.shape[1], chances / np.where(total == 0.0, 1.0, total))


def _identity(raw: Matrix) -> Matrix:
    return raw


def _exp(raw: Matrix) -> Matrix:
    with np.errstate(over="ignore"):
        return np.exp(raw)


_LINKS = {
    "identity": _identity,
    "exp": _exp,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "one_vs_rest": _one_vs_rest,
}
_KERNELS: dict[str, type[_Compiled] | type[_Treelite] | type[_Onnx] | type[_Linear]] = {
    "tl2cgen": _Compiled,
    "treelite": _Treelite,
    "onnxruntime": _Onnx,
    "linear": _Linear,
}
