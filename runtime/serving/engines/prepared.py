"""The result of preparing a version, stored next to its artifacts.

<cache>/<model>/<version>/model/         the MLflow model
<cache>/<model>/<version>/prepared.json  the result of preparation
<cache>/<model>/<version>/compiled/      compiled files, and `sample.arrow`, the rows for warming up
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from ...common.files import write_private
from ...common.target import Target
from ..codecs.answer_columns import arrow_array
from ..contract.model_contract import Contract
from .outputs import Answer, plain

if TYPE_CHECKING:
    from ..inference.batch import Outputs
    from ..settings import CompileSettings, IsolationSettings, Trusted

_log = logging.getLogger(__name__)

Output = Literal["score", "scores", "prediction"]

SCHEMA = 4
FILE = "prepared.json"
COMPILED = "compiled"
_SAMPLE = "sample.arrow"
# A prepared version also depends on these: another version of one of them may select or compute differently.
_LIBRARIES = (
    *("tidemill", "mlflow", "mlflow-skinny", "numpy", "onnxruntime", "pandas", "pyarrow", "scikit-learn", "scipy"),
    *("skl2onnx", "skops", "tl2cgen", "treelite"),
)


class HasPreparationSettings(Protocol):
    """The server settings that preparation uses."""

    @property
    def compile(self) -> CompileSettings:
        """Which engines to try."""
        ...

    @property
    def isolation(self) -> IsolationSettings:
        """What to do if the model's requirements differ from the server's."""
        ...

    @property
    def trust(self) -> Sequence[Trusted]:
        """What the model's files may hold."""
        ...


@dataclass(frozen=True)
class Independence:
    """Whether the answer for a row does not depend on the other rows in the call, as far as preparation knows.

    Attributes:
        unknown: why it is not known from the model's classes; empty if it is known.
        declared: what the model's metadata declares; None if nothing.
        contradiction: how the answers for its sample contradict it; empty if they do not.
    """

    unknown: str = "it was not prepared"
    declared: bool | None = None
    contradiction: str = ""

    def decide(self, setting: bool | None) -> tuple[bool, str]:
        """Return whether the rows are taken as independent, and why not, or what contradicts a declaration.

        Args:
            setting: `batch.rows_independent`, which overrides the metadata of the model.
        """
        declared = self.declared if setting is None else setting
        if declared is False:
            where = "its metadata" if setting is None else "batch.rows_independent"
            return False, f"{where} declares that its rows depend on each other"
        if declared or self.contradiction:
            return bool(declared), self.contradiction
        if not self.unknown:
            return True, ""
        return False, (
            f"it is not known that its rows are independent ({self.unknown}); if they are, declare it with "
            "batch.rows_independent: true"
        )


@dataclass(frozen=True)
class Prepared:
    """How to serve a version.

    Attributes:
        made_for: the fingerprint that it was made for; it is valid for no other.
        contract: the version's inputs.
        output: the kind of its outputs.
        output_type: the type of its outputs, a struct with one field.
        engine: the engine's spec: its `name`, whether it is `mergeable`, and what else `load` needs.
        note: how much a compiled engine differs from the model itself, or why none serves.
        example: at most five rows, by column, as JSON values.
        has_example: whether rows came with the model; rows that tidemill invents never decide whether it serves.
        answered: whether it answered a sample; if not, the form and the columns of its answers are not known.
        target: the contract of its labels.
        by_request: whether an answer belongs to its request as a whole: the model does not return one value per row,
            or it is not known to do so.
        form: the form of its answers, one of `outputs.FORMS`, or empty for an array or a list.
        tensors: name, datatype and shape of its output tensors.
        independence: whether its rows are independent.
    """

    made_for: Mapping[str, Any]
    contract: Contract
    output: Output
    output_type: pa.StructType
    engine: Mapping[str, Any]
    note: str
    example: list[dict[str, Any]]
    target: Target = field(default_factory=Target)
    by_request: bool = False
    form: str = ""
    tensors: Sequence[Mapping[str, Any]] = ()
    independence: Independence = field(default_factory=Independence)
    has_example: bool = True
    answered: bool = True

    @classmethod
    def read(cls, folder: Path) -> Prepared | None:
        """Return the result in a version's folder, or None if there is no readable one."""
        try:
            raw = json.loads((folder / FILE).read_text(encoding="utf-8"))
            return cls(
                made_for=raw["made_for"],
                contract=Contract.from_json(raw["contract"]),
                output=raw["output"],
                output_type=_decode_type(raw["output_type"]),
                engine=raw["engine"],
                note=raw["note"],
                example=raw["example"],
                target=Target.from_json(raw.get("target")),
                by_request=raw["by_request"],
                form=raw["form"],
                tensors=raw["tensors"],
                independence=Independence(**raw["independence"]),
                has_example=raw["has_example"],
                answered=raw["answered"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowInvalid) as error:
            _log.warning("unreadable, taken as absent", extra={"file": str(folder / FILE), "error": str(error)})
            return None

    def write(self, folder: Path) -> None:
        """Write the result to a version's folder, atomically."""
        document = {
            "made_for": dict(self.made_for),
            "contract": self.contract.to_json(),
            "output": self.output,
            "output_type": _encode_type(self.output_type),
            "engine": dict(self.engine),
            "note": self.note,
            "example": self.example,
            "target": self.target.to_json(),
            "by_request": self.by_request,
            "form": self.form,
            "tensors": [dict(each) for each in self.tensors],
            "independence": asdict(self.independence),
            "has_example": self.has_example,
            "answered": self.answered,
        }
        write_private(folder / FILE, json.dumps(document), durable=True)

    def warm_rows(self, folder: Path) -> pa.RecordBatch:
        """Return the rows for warming up the version; none if it accepts none that are known."""
        with pa.OSFile(str(folder / COMPILED / _SAMPLE)) as source, pa.ipc.open_file(source) as reader:
            return reader.get_batch(0) if reader.num_record_batches else pa.RecordBatch.from_pylist([], reader.schema)


def write_sample(compiled: Path, sample: pa.RecordBatch) -> None:
    """Write the rows for warming up the version."""
    with pa.OSFile(str(compiled / _SAMPLE), "wb") as sink, pa.ipc.new_file(sink, sample.schema) as writer:
        writer.write_batch(sample)


def fingerprint(folder: Path, settings: HasPreparationSettings) -> dict[str, Any]:
    """Return what a prepared version depends on: the model, the settings, this machine and its libraries."""
    mlmodel = folder / "model" / "MLmodel"
    return {
        "schema": SCHEMA,
        "model": hashlib.sha256(mlmodel.read_bytes()).hexdigest() if mlmodel.exists() else "",
        "compile": settings.compile.model_dump(mode="json"),
        "isolation": settings.isolation.model_dump(mode="json"),
        "trust": sorted(settings.trust),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def output_type(output: Output, values: Outputs | None) -> pa.StructType:
    """Return the type of outputs such as `values`: a struct with one field, named `output`.

    Values that are nested, differ in type from row to row, or are unknown are stored as JSON text, and times as ISO
    8601 text.
    """
    if output == "score":
        return pa.struct([(output, pa.float64())])
    if output == "scores":
        return pa.struct([(output, pa.list_(pa.float64()))])
    if values is None:
        return pa.struct([(output, pa.string())])
    if isinstance(values, np.ndarray):
        return pa.struct([(output, pa.float64() if values.ndim == 1 else pa.list_(pa.float64()))])
    kind = _kind(values)
    return pa.struct([(output, kind if _is_flat(kind) else pa.string())])


def _kind(values: Outputs) -> pa.DataType:
    rows = values.to_rows() if isinstance(values, Answer) else values
    if rows is None:
        return pa.string()
    if isinstance(values, Answer) and values.form in ("frame", "mapping"):
        return pa.struct(
            [(name, arrow_array(plain(part)).type) for name, part in zip(values.names, values.parts, strict=True)]
        )
    return arrow_array(rows).type


def _is_flat(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _is_flat(kind.value_type) and not pa.types.is_struct(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_plain(field.type) for field in kind)
    return _is_plain(kind)


def _is_plain(kind: pa.DataType) -> bool:
    return (
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind)
    )


def _encode_type(kind: pa.StructType) -> str:
    return base64.b64encode(pa.schema(list(kind)).serialize().to_pybytes()).decode()


def _decode_type(text: str) -> pa.StructType:
    return pa.struct(list(pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))))
