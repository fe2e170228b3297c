"""Options and checks that `serve`, `score` and `image` share."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...runtime.common.errors import ConfigError

if TYPE_CHECKING:
    from ...runtime.serving.settings import ServingSettings, Trusted


_NAME_AND_VERSION = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)@(?P<version>[A-Za-z0-9_.-]+)")


class TrustedKind(StrEnum):
    """The values of `--trust`, which are those of the setting `trust`."""

    PICKLE = "pickle"


ModelArgument = Annotated[
    str,
    typer.Argument(metavar="URI", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder with an MLmodel file.",
                   show_default=False),
]  # fmt: skip
ModelNameOption = Annotated[
    str | None,
    typer.Option("--name", help="Name of a model in a folder. Default: the folder's name.", show_default=False),
]
TrackingOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="MLflow registry. Default: MLFLOW_TRACKING_URI, else the platform's.",
                 show_default=False),
]  # fmt: skip
CompileOption = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Use a compiled engine where its results match the model's. "
                 "Default: if one is installed.", show_default=False),
]  # fmt: skip
IndependenceOption = Annotated[
    bool | None,
    typer.Option("--rows-independent/--no-rows-independent", help="Whether the model's answer for a row does not "
                 "depend on the other rows in the call. Default: as declared in the model's metadata, else only if it "
                 "is known from the model's classes.", show_default=False),
]  # fmt: skip
TrustOption = Annotated[
    list[TrustedKind] | None,
    typer.Option("--trust", help="What the model's files may hold. `pickle`: load a model that is stored as a pickle; "
                 "it can run any code of its author, as your user.", show_default=False),
]  # fmt: skip
NonFiniteOption = Annotated[
    Literal["return", "refuse"] | None,
    typer.Option("--non-finite", help="NaN and infinities that the model returns: return them, or refuse the rows. "
                 "Default: return.", show_default=False),
]  # fmt: skip
SettingsOption = Annotated[
    Path | None,
    typer.Option("--settings", help="JSON file with more server settings, such as batch and limits; options override "
                 "it.", exists=True, dir_okay=False, show_default=False),
]  # fmt: skip
_DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")


def require_server_packages(tracking_uri: str | None) -> None:
    """Check that the packages of the model server are installed.

    Raises:
        ModuleNotFoundError: one is not; the command line names the extra that installs it.
    """
    modules = ["fastapi", "uvicorn", "msgspec", "httptools", "prometheus_client", "threadpoolctl", "sklearn", "skops"]
    registry = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if registry.partition("://")[0].partition("+")[0] in _DATABASE_SCHEMES:
        modules.append("sqlalchemy")
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def trusted(given: Sequence[TrustedKind] | None) -> list[Trusted]:
    """Return the values of `--trust` as a setting."""
    return [kind.value for kind in dict.fromkeys(given or ())]


def require_compilers() -> None:
    """Check that a compiler is installed, for an explicit `--compile`.

    Raises:
        ModuleNotFoundError: none is.
    """
    if not any(find_spec(module) for module in ("tl2cgen", "treelite", "onnxruntime")):
        raise ModuleNotFoundError("No module named 'treelite'", name="treelite")


def read_settings(file: Path | None, by_option: Iterable[str]) -> dict[str, Any]:
    """Return the server settings in the JSON `file`, or {} without a file.

    Args:
        file: the value of `--settings`.
        by_option: settings that only the command line sets.

    Raises:
        ConfigError: the file is no JSON object, or has one of `by_option`.
    """
    if file is None:
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read it ({error})", field="--settings", value=str(file)) from None
    if not isinstance(settings, dict):
        raise ConfigError("not a JSON object", field="--settings", value=str(file))
    for key in by_option:
        if key in settings:
            raise ConfigError("the command line sets this", field=key, value=str(file), hint=f"remove it from {file}")
    return settings


def settings_of_version(
    text: str, tracking_uri: str | None, *, name: str | None = None, trust: Sequence[str] = ()
) -> ServingSettings:
    """Return the settings with which a command reads one model; nothing listens.

    Args:
        text: NAME@VERSION, NAME@ALIAS, models:/NAME/VERSION, or a folder with an MLmodel file.
        tracking_uri: the registry, if it is given.
        name: of a model that comes from a folder.
        trust: what the model's files may hold.

    Raises:
        UserError: `text` names no model, or no registry is configured.
    """
    from ...runtime.batch_scoring.model_uri import ModelUri, cache_folder, folder_name, registry_settings
    from ...runtime.serving.settings import ServingSettings

    if (match := _NAME_AND_VERSION.fullmatch(text)) and not Path(text).exists():
        version = match["version"]
        text = f"models:/{match['name']}/{version}" if version.isdecimal() else f"models:/{text}"
    uri = ModelUri.parse(text, name=name)
    registry = registry_settings(tracking_uri) if uri.path is None else None
    values = {
        "listen": {"port": 1, "token_file": "unused"},  # required, but nothing listens
        "model": uri.name,
        "alias": uri.alias,
        "version": uri.version,
        "path": uri.path,
        "registry": registry,
        "cache": cache_folder() / "models" / folder_name(uri, registry),
        "trust": list(trust),
    }
    return ServingSettings.model_validate({key: value for key, value in values.items() if value is not None})
