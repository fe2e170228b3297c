"""Parses model URIs, and finds the registry settings for commands that run without a platform.

models:/NAME@ALIAS      the version with the alias
models:/NAME/VERSION    that version
PATH                    a folder with an MLmodel file
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..common.errors import ConfigError, NotFoundError, UserError
from ..common.files import write_private
from ..common.settings import ENVIRONMENT_VARIABLE, RegistrySettings, runtime_settings

_SCHEME = "models:/"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_URI_HINT = "write models:/NAME@ALIAS, models:/NAME/VERSION, or the path of a folder with an MLmodel file"


@dataclass(frozen=True)
class ModelUri:
    """A parsed model URI; exactly one of `alias`, `version` and `path` is set.

    Attributes:
        name: of the registered model, or of the folder.
    """

    name: str
    alias: str | None = None
    version: str | None = None
    path: Path | None = None

    @classmethod
    def parse(cls, text: str, *, name: str | None = None) -> ModelUri:
        """Parse `text`; `name` replaces the name of a folder.

        Raises:
            UserError: `text` or `name` is invalid.

        >>> ModelUri.parse("models:/flights@champion")
        ModelUri(name='flights', alias='champion', version=None, path=None)
        >>> ModelUri.parse("models:/flights/3").version
        '3'
        """
        if text.startswith(_SCHEME):
            if name is not None:
                raise UserError("a registered model already has a name", field="--name", hint="leave it out")
            return cls._registered(text)
        if "://" in text or text.startswith("runs:/"):
            raise UserError("not a model URI", field="model", value=text, hint=_URI_HINT)
        path = Path(text).expanduser()
        if not (path / "MLmodel").is_file():
            raise _not_a_model(path, text)
        chosen = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().name).strip("-.") or "model"
        if not _NAME.fullmatch(chosen):
            raise UserError(
                "invalid name", field="--name", value=name, hint="use letters, digits, dots, dashes and underscores"
            )
        return cls(chosen, path=path.resolve())

    @classmethod
    def _registered(cls, text: str) -> ModelUri:
        rest = text.removeprefix(_SCHEME).lstrip("/")
        name, at, alias = rest.partition("@")
        if not at:
            name, _, version = rest.partition("/")
            if _NAME.fullmatch(name) and re.fullmatch(r"[1-9][0-9]*", version):
                return cls(name, version=version)
        elif _NAME.fullmatch(name) and _NAME.fullmatch(alias):
            return cls(name, alias=alias)
        hint = f"write models:/{rest}@champion" if _NAME.fullmatch(rest) else _URI_HINT
        raise UserError("the URI has neither a version nor an alias", field="model", value=text, hint=hint)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return f"{_SCHEME}{self.name}@{self.alias}" if self.alias else f"{_SCHEME}{self.name}/{self.version}"


def _not_a_model(path: Path, text: str) -> NotFoundError:
    """Return the error for a path that is not the folder of a model, with the folder that may be meant."""
    if path.is_file():
        folder = path.parent
        if path.name == "MLmodel" or (folder / "MLmodel").is_file():
            return NotFoundError("it is a file", field="model", value=text, hint=f"give its folder, {folder}")
        return NotFoundError("it is a file, not the folder of a model", field="model", value=text, hint=_URI_HINT)
    if not path.is_dir():
        return NotFoundError("the folder does not exist", field="model", value=text, hint=_URI_HINT)
    found = sorted(file.parent for pattern in ("*/MLmodel", "*/*/MLmodel") for file in path.glob(pattern))
    hint = f"give {found[0]}" if found else "give the folder that contains MLmodel, as mlflow's save_model writes it"
    return NotFoundError("the folder has no MLmodel file", field="model", value=text, hint=hint)


def registry_settings(tracking_uri: str | None) -> RegistrySettings:
    """Return the settings of the registry.

    The registry is the first of `tracking_uri`, MLFLOW_TRACKING_URI and the platform of TIDEMILL_RUNTIME. Credentials
    come from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or from the settings of the platform for its own
    registry. A password from the environment is written to a file of mode 0600, which child processes read.

    Raises:
        UserError: no registry is configured, or only one of user name and password is set.
    """
    chosen = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    username = os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    known = runtime_settings().registry if os.environ.get(ENVIRONMENT_VARIABLE) else None
    if known is not None and (chosen is None or (chosen.rstrip("/") == known.tracking_uri and not username)):
        return known
    if chosen is None:
        raise UserError(
            "no model registry is configured",
            field="--tracking-uri",
            hint='add the option, set MLFLOW_TRACKING_URI, or run `eval "$(tidemill env)"` first',
        )
    if urlsplit(chosen).scheme in ("http", "https") and "@" in urlsplit(chosen).netloc:
        # The message does not repeat the value, which has a password.
        raise UserError(
            "the URL must not contain credentials",
            field="tracking URI",
            hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead",
        )
    if (username is None) != (password is None):
        unset, other = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
        if username is not None:
            unset, other = other, unset
        raise UserError(f"is not set, but {other} is", field=unset, hint="set both or none")
    if username is None or password is None:
        return RegistrySettings(tracking_uri=chosen)
    if not password.strip():
        raise ConfigError("the password is empty", field="MLFLOW_TRACKING_PASSWORD")
    registry = hashlib.sha256(f"{username}@{chosen}".encode()).hexdigest()[:12]
    file = state_folder() / "registries" / registry / "password"
    write_private(file, password)
    return RegistrySettings(tracking_uri=chosen, username=username, password_file=file)


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the folder of the user's keys and settings: XDG_STATE_HOME/tidemill, else ~/.local/state/tidemill."""
    return _user_folder(environment, None, "XDG_STATE_HOME", (".local", "state"))


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the user's cache: TIDEMILL_CACHE, else XDG_CACHE_HOME/tidemill, else ~/.cache/tidemill."""
    return _user_folder(environment, "TIDEMILL_CACHE", "XDG_CACHE_HOME", (".cache",))


def _user_folder(
    environment: Mapping[str, str] | None, own: str | None, shared: str, below_home: tuple[str, ...]
) -> Path:
    variables = os.environ if environment is None else environment
    if own is not None and variables.get(own):
        return Path(variables[own]).expanduser().absolute()
    base = Path(variables.get(shared, ""))
    # The XDG specification requires that relative values are ignored.
    return (base if base.is_absolute() else Path.home().joinpath(*below_home)) / "tidemill"


def folder_name(uri: ModelUri, registry: RegistrySettings | None) -> str:
    """Return a readable and unique folder name for `uri` in `registry`."""
    tracking = registry.tracking_uri if registry is not None else ""
    # The path of a file or database may be relative to the working directory.
    where = str(Path.cwd()) if tracking and urlsplit(tracking).scheme not in ("http", "https") else ""
    digest = hashlib.sha256("\0".join((str(uri), tracking, where)).encode()).hexdigest()
    return f"{uri.name}-{digest[:12]}"
