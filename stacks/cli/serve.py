"""`serve`: the model server alone, without a platform."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ...runtime.common.errors import ConfigError, NotFoundError, PlatformError, UserError

if TYPE_CHECKING:
    from ...runtime.batch_scoring.model_uri import ModelUri
    from ...runtime.serving.settings import ServingSettings

__all__ = ["CompileOption", "ModelArgument", "TrackingOption", "need_compilers", "need_serving", "serve"]

ModelArgument = Annotated[
    str,
    typer.Argument(metavar="URI", help="models:/NAME@ALIAS, models:/NAME/VERSION, or a folder with an MLmodel file.",
                   show_default=False),
]  # fmt: skip
TrackingOption = Annotated[
    str | None,
    typer.Option("--tracking-uri", help="The MLflow registry. Default: MLFLOW_TRACKING_URI, else the platform's.",
                 show_default=False),
]  # fmt: skip
CompileOption = Annotated[
    bool | None,
    typer.Option("--compile/--no-compile", help="Let a compiled engine answer where it agrees with the model. "
                 "Default: where one is installed.", show_default=False),
]  # fmt: skip
_BY_OPTION = ("listen", "model", "alias", "version", "path", "registry", "cache")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def serve(
    model: ModelArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one and says which.", min=0, max=65535)] = 8080,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes which answer on the one port. Default: 1.", min=1, max=64, show_default=False),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key. Default: one is made, once, and its path is said.",
                     show_default=False),
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option(help="File of further, named keys; see `tidemill keys`.", dir_okay=False, show_default=False),
    ] = None,
    capture: Annotated[
        Path | None, typer.Option(help="Folder for captured requests and labels; without it nothing is captured.",
                                  file_okay=False, show_default=False),
    ] = None,
    shadow: Annotated[
        str | None, typer.Option(help="Alias of a version which is asked the same, off the path.", show_default=False)
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate and its chain.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its private key.", show_default=False)] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Listen beyond loopback without TLS, which ends before this server.")
    ] = False,
    compiled: CompileOption = None,
    tracking_uri: TrackingOption = None,
    name: Annotated[
        str | None, typer.Option(help="What a folder's model is called. Default: as the folder.", show_default=False)
    ] = None,
    settings: Annotated[
        Path | None,
        typer.Option(help="JSON file with further settings, such as batch and limits; options win.",
                     exists=True, dir_okay=False, show_default=False),
    ] = None,
) -> None:  # fmt: skip
    """Serve one model over HTTP, in the foreground, until SIGTERM or Ctrl-C."""
    from ...runtime.batch_scoring.model_uri import ModelUri, cache_folder, folder_name, registry_settings, state_folder

    need_serving(tracking_uri)
    if compiled:
        need_compilers()
    meant = ModelUri.parse(model, name=name)
    _check_shadow(meant, shadow)
    listen = _listen(host, port, tls_cert, tls_key, plain_http=plain_http)
    registry = registry_settings(tracking_uri) if meant.path is None else None
    state = state_folder() / "serve" / meant.name
    listen["token_file"] = str(_key(key_file, state / "key"))
    given: dict[str, Any] = {
        "listen": listen,
        "model": meant.name,
        "version": meant.version,
        "path": str(meant.path) if meant.path else None,
        "registry": registry.model_dump(mode="json") if registry else None,
        "cache": str(cache_folder() / "models" / folder_name(meant, registry)),
    }
    optional: dict[str, Any] = {
        "alias": meant.alias,
        "workers": workers,
        "shadow": shadow,
        "keys_file": _absolute(keys_file),
        "capture": {"directory": _absolute(capture)} if capture else None,
        "compile": {"engines": []} if compiled is False else None,
    }
    given |= {key: value for key, value in optional.items() if value is not None}
    checked = _checked(_merged(_read(settings), given), settings)
    if checked.keys_file is not None and not checked.keys_file.parent.is_dir():
        raise NotFoundError("there is no such folder", field="--keys-file", value=str(checked.keys_file.parent))
    _run(meant, checked, state)


def need_serving(tracking_uri: str | None) -> None:
    """See to it that the server's libraries are installed.

    Raises:
        ModuleNotFoundError: one is not; the command line names the extra which brings it.
    """
    wanted = ["fastapi", "uvicorn", "msgspec", "httptools", "prometheus_client", "threadpoolctl", "sklearn", "skops"]
    registry = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    if registry.partition("://")[0].partition("+")[0] in _DATABASES:
        wanted.append("sqlalchemy")
    for module in wanted:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"No module named {module!r}", name=module)


def need_compilers() -> None:
    """See to it that what was asked for explicitly is there.

    Raises:
        ModuleNotFoundError: no compiler is installed.
    """
    if not any(find_spec(module) for module in ("tl2cgen", "treelite", "onnxruntime")):
        raise ModuleNotFoundError("No module named 'treelite'", name="treelite")


def _check_shadow(meant: ModelUri, shadow: str | None) -> None:
    if shadow is not None and meant.alias is None:
        raise UserError(
            "a shadow goes with an alias: a version or folder which is served for good has none",
            field="--shadow",
            value=shadow,
            hint=f"serve models:/{meant.name}@champion",
        )


def _listen(
    host: str, port: int, certificate: Path | None, private: Path | None, *, plain_http: bool
) -> dict[str, Any]:
    """Return the listen settings, with a port which is free now.

    Raises:
        UserError: keys would cross the network in the clear, or half of a certificate is named.
        PlatformError: the address cannot be had.
    """
    from ...runtime.common.secrets import is_loopback

    if (certificate is None) != (private is None):
        raise UserError("--tls-cert and --tls-key go together", field="TLS", hint="name both or none")
    for option, file in (("--tls-cert", certificate), ("--tls-key", private)):
        if file is not None and not file.is_file():
            raise NotFoundError("no such file", field=option, value=str(file))
    if certificate is None and not plain_http and not is_loopback(f"//[{host}]" if ":" in host else f"//{host}"):
        raise UserError(
            "it can be reached from elsewhere, and keys would cross the network in the clear",
            field="--host",
            value=host,
            hint="add --tls-cert and --tls-key, or --plain-http where TLS ends before this server",
        )
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
    except OSError as error:
        raise PlatformError(
            f"the address cannot be had ({error.strerror})",
            field="--port",
            value=f"{host}:{port}",
            hint="end what listens there, or choose another; --port 0 takes a free one",
        ) from None
    listen: dict[str, Any] = {"host": host, "port": port, "plain_http": plain_http}
    if certificate is not None:
        listen |= {"tls_cert_file": _absolute(certificate), "tls_key_file": _absolute(private)}
    return listen


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def _key(given: Path | None, own: Path) -> Path:
    """Return the file with the API key: the user's, or one of ours, which is made once."""
    from ...runtime.common.secrets import read_secret
    from ...runtime.serving.http.key_file import new_key

    if given is not None:
        read_secret(given)
        return given.expanduser().absolute()
    own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not own.exists():
        work = own.with_name(f".key.{secrets.token_hex(4)}")
        with os.fdopen(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key())
        try:
            os.link(work, own)  # fails where another command was first, whose key then is the one
        except FileExistsError:
            pass
        finally:
            work.unlink()
    return own


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot be read ({error})", field="--settings", value=str(file)) from None
    if not isinstance(found, dict):
        raise ConfigError("not a JSON object", field="--settings", value=str(file))
    for key in _BY_OPTION:
        if key in found:
            raise ConfigError("is said by the command line", field=key, value=str(file), hint=f"leave it out of {file}")
    return found


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with what `over` says, section by section.

    >>> _merged({"limits": {"rows": 5}, "capture": {"fraction": 0.1}}, {"capture": {"directory": "here"}})
    {'limits': {'rows': 5}, 'capture': {'fraction': 0.1, 'directory': 'here'}}
    """
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _checked(raw: dict[str, Any], file: Path | None) -> ServingSettings:
    from pydantic import ValidationError

    from ...runtime.serving.settings import ServingSettings

    try:
        return ServingSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        source = f" in {file}" if file else ""
        raise ConfigError(f"{first['msg']}{source}", field=where or "settings") from None


def _run(meant: ModelUri, settings: ServingSettings, state: Path) -> NoReturn:
    """Become the server: its process is this one, so that signals and the exit code are its own."""
    from ...runtime.common.files import write_private
    from .server_startup import announce_beside, url_of

    text = settings.model_dump_json(indent=2, exclude_defaults=True)
    # Named by what is in it: workers which are started anew later find what they were started with.
    file = state / f"settings-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    write_private(file, text)
    typer.echo(f"serving {meant} at {url_of(settings.listen)}", err=True)
    typer.echo(f"the API key is in {settings.listen.token_file}", err=True)
    announce_beside(settings)
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")  # they stand in files
    }
    # What lies in the working directory is not code of ours.
    kept.setdefault("PYTHONSAFEPATH", "1")
    arguments = [sys.executable, "-m", "tidemill.runtime.serving", "--settings", str(file)]
    try:
        os.execve(sys.executable, arguments, kept)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        raise PlatformError(f"the server cannot be started ({error.strerror})", field=sys.executable) from None
