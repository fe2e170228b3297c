"""`convert`: write a scikit-learn model that is stored as a pickle with skops or as ONNX."""

from __future__ import annotations

import json
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....runtime.common.errors import UserError
from ..options import JsonOption
from ..serving_options import TrackingOption, TrustOption, require_server_packages, settings_of_version, trusted
from ..terminal import interruptible

if TYPE_CHECKING:
    from ....runtime.serving.conversion import Converted


class Format(StrEnum):
    """The formats of `--to`."""

    SKOPS = "skops"
    ONNX = "onnx"


def convert(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL@V|PATH", show_default=False,
                       help="NAME@VERSION, NAME@ALIAS, models:/NAME/VERSION, or a folder with an MLmodel file."),
    ],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="[OUT]", help="New folder for the result. Default: register a new version.",
                       show_default=False),
    ] = None,
    to: Annotated[Format, typer.Option(help="Format of the new version.")] = Format.SKOPS,
    trust: TrustOption = None,
    trust_type: Annotated[
        list[str] | None,
        typer.Option(help="Full name of a type that loading the new version may create, beyond skops' own list; repeat "
                     "it for more.", show_default=False),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest accepted difference of the answers, absolute or relative.", min=0)
    ] = 1e-6,
    accept_difference: Annotated[
        bool,
        typer.Option("--accept-difference", help="Convert even if the answers differ, or if there are no rows to "
                     "compare."),
    ] = False,
    tracking_uri: TrackingOption = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Convert a scikit-learn model to a format without pickles. Compares the answers of both on the model's sample."""
    require_server_packages(tracking_uri)
    if to is Format.ONNX and (missing := next((m for m in ("skl2onnx", "onnxruntime") if find_spec(m) is None), None)):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
    from ....runtime.serving.conversion import convert as convert_version

    settings = settings_of_version(model, tracking_uri, trust=trusted(trust))
    if settings.path is not None and out is None:
        raise UserError("a folder is converted to another folder", field="OUT", hint="name a new folder")
    with interruptible():
        done = convert_version(
            settings,
            to=to.value,
            trusted_types=trust_type or [],
            tolerance=tolerance,
            accept_difference=accept_difference,
            folder=out,
        )
    typer.echo(json.dumps(done.as_dict()) if as_json else _sentence(done))


def _sentence(done: Converted) -> str:
    target = f"version {done.version} of {done.model}" if done.version else f"the folder {done.folder}"
    text = f"converted {done.model}@{done.converted_from} to {done.to}: {target}"
    if done.difference is None:
        return f"{text}; its answers were not compared"
    if done.difference < 0:
        return f"{text}; its answers have another form"
    return f"{text}; its answers differ by at most {done.difference:.1e} on {done.rows} rows of its {done.sample}"
