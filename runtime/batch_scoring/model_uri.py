"""Which model is meant, and how its registry is reached, for what runs without a platform.

models:/NAME@ALIAS      the version which bears the alias
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

__all__ = ["ModelUri", "cache_folder", "folder_name", "registry_settings", "state_folder"]

_SCHEME = "models:/"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_FORMS = "write models:/NAME@ALIAS, models:/NAME/VERSION, or the path of a folder with an MLmodel file"


@dataclass(frozen=True)
class ModelUri:
    """A model, as a user names it; exactly one of `alias`, `version` and `path` is given.

    Attributes:
        name: the registered model's name; for a folder, the folder's.
    """

    name: str
    alias: str | None = None
    version: str | None = None
    path: Path | None = None

    @classmethod
    def parse(cls, text: str, *, name: str | None = None) -> ModelUri:
        """Return what `text` means; `name` is what a folder's model is called, instead of by the folder.

        Raises:
            UserError: it is no model, or `name` none for it.

        >>> ModelUri.parse("models:/flights@champion")
        ModelUri(name='flights', alias='champion', version=None, path=None)
        >>> ModelUri.parse("models:/flights/3").version
        '3'
        """
        if text.startswith(_SCHEME):
            if name is not None:
                raise UserError("a model of a registry has its name there", field="--name", hint="leave it out")
            return cls._registered(text)
        if "://" in text or text.startswith("runs:/"):
            raise UserError("not a model which can be served", field="model", value=text, hint=_FORMS)
        path = Path(text).expanduser()
        if not (path / "MLmodel").is_file():
            what = "holds no MLmodel file" if path.is_dir() else "there is no such folder"
            raise NotFoundError(what, field="model", value=text, hint=_FORMS)
        chosen = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().name).strip("-.") or "model"
        if not _NAME.fullmatch(chosen):
            raise UserError("not a name", field="--name", value=name, hint="write letters, digits, dots and dashes")
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
        hint = f"write models:/{rest}@champion" if _NAME.fullmatch(rest) else _FORMS
        raise UserError("neither a version nor an alias is named", field="model", value=text, hint=hint)

    def __str__(self) -> str:
        if self.path is not None:
            return str(self.path)
        return f"{_SCHEME}{self.name}@{self.alias}" if self.alias else f"{_SCHEME}{self.name}/{self.version}"


def registry_settings(tracking_uri: str | None) -> RegistrySettings:
    """Return how to reach the registry.

    In this order: `tracking_uri`; MLFLOW_TRACKING_URI; the platform of TIDEMILL_RUNTIME. Credentials come from
    MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or, for the platform's own registry, from its settings. A
    password of the environment is put down in a file of mode 0600, from which whatever is started reads it.

    Raises:
        UserError: no registry is known, or half of the credentials.
    """
    chosen = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    username = os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD")
    known = runtime_settings().registry if os.environ.get(ENVIRONMENT_VARIABLE) else None
    if known is not None and (chosen is None or (chosen.rstrip("/") == known.tracking_uri and not username)):
        return known
    if chosen is None:
        raise UserError(
            "no model registry is known",
            field="--tracking-uri",
            hint='name it, or set MLFLOW_TRACKING_URI, or first `eval "$(tidemill env)"`',
        )
    if urlsplit(chosen).scheme in ("http", "https") and "@" in urlsplit(chosen).netloc:
        # Its value is not repeated here: it holds a password.
        raise UserError(
            "credentials do not belong into a URL",
            field="tracking URI",
            hint="put them into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )
    if (username is None) != (password is None):
        unset = "MLFLOW_TRACKING_USERNAME" if username is None else "MLFLOW_TRACKING_PASSWORD"
        raise UserError("is not set, and its other half is", field=unset, hint="set both or none")
    if username is None or password is None:
        return RegistrySettings(tracking_uri=chosen)
    if not password.strip():
        raise ConfigError("the password is empty", field="MLFLOW_TRACKING_PASSWORD")
    registry = hashlib.sha256(f"{username}@{chosen}".encode()).hexdigest()[:12]
    file = state_folder() / "registries" / registry / "password"
    write_private(file, password)
    return RegistrySettings(tracking_uri=chosen, username=username, password_file=file)


def state_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return where a user's keys and settings are kept: XDG_STATE_HOME/tidemill, else ~/.local/state/tidemill."""
    return _user_folder(environment, None, "XDG_STATE_HOME", (".local", "state"))


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Return the user's cache: TIDEMILL_CACHE, else XDG_CACHE_HOME/tidemill, else ~/.cache/tidemill."""
    return _user_folder(environment, "TIDEMILL_CACHE", "XDG_CACHE_HOME", (".cache",))


def _user_folder(
    environment: Mapping[str, str] | None, own: str | None, shared: str, below_home: tuple[str, ...]
) -> Path:
    found = os.environ if environment is None else environment
    if own is not None and found.get(own):
        return Path(found[own]).expanduser().absolute()
    base = Path(found.get(shared, ""))
    # The XDG specification: a relative value is to be ignored.
    return (base if base.is_absolute() else Path.home().joinpath(*below_home)) / "tidemill"


def folder_name(uri: ModelUri, registry: RegistrySettings | None) -> str:
    """Return a folder name for what belongs to `uri` in `registry`: readable, and different for different ones."""
    tracking = registry.tracking_uri if registry is not None else ""
    # A file or database may be named relative to the working directory.
    where = str(Path.cwd()) if tracking and urlsplit(tracking).scheme not in ("http", "https") else ""
    digest = hashlib.sha256("\0".join((str(uri), tracking, where)).encode()).hexdigest()
    return f"{uri.name}-{digest[:12]}"
