"""`serve`: run the model server alone, without a platform."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from ....runtime.common.errors import ConfigError, NotFoundError, PlatformError, UserError
from ...stack_config.sources import merge_objects
from ..serving_options import (
    CompileOption,
    IndependenceOption,
    ModelArgument,
    ModelNameOption,
    NonFiniteOption,
    SettingsOption,
    TrackingOption,
    TrustOption,
    read_settings,
    require_compilers,
    require_server_packages,
    trusted,
)

if TYPE_CHECKING:
    from ....runtime.batch_scoring.model_uri import ModelUri
    from ....runtime.serving.settings import ServingSettings

_BY_OPTION = ("listen", "model", "alias", "version", "path", "registry", "cache")


def serve(
    model: ModelArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 selects a free one.", min=0, max=65535)] = 8080,
    workers: Annotated[
        int | None,
        typer.Option(help="Worker processes, all on the same port. Default: 1.", min=1, max=64, show_default=False),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(help="File with the API key. Default: a key is created once, and its path printed.",
                     show_default=False),
    ] = None,
    keys_file: Annotated[
        Path | None,
        typer.Option(help="File with more, named keys; see `tidemill keys`.", dir_okay=False, show_default=False),
    ] = None,
    capture: Annotated[
        Path | None, typer.Option(help="Folder for captured requests and labels. Default: capture nothing.",
                                  file_okay=False, show_default=False),
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(help="Alias of a version that also scores each request, without delaying the answer.",
                     show_default=False),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate and its chain.", show_default=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with its private key.", show_default=False)] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Listen without TLS, behind a proxy that terminates it.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Host name under which clients reach the server; repeat it for more. localhost and IP "
                     "addresses are always accepted. Default: none, or every name if --host is not loopback.",
                     show_default=False),
    ] = None,
    max_body: Annotated[
        int | None,
        typer.Option(help="Maximum size of a request's body, decompressed, in bytes. Default: 16000000.", min=1,
                     show_default=False),
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(help="Maximum rows in one request. Default: 10000.", min=1, show_default=False)
    ] = None,
    max_columns: Annotated[
        int | None, typer.Option(help="Maximum columns in one request. Default: 10000.", min=1, show_default=False)
    ] = None,
    max_text: Annotated[
        int | None,
        typer.Option(help="Maximum characters of one string, such as an image in base64. Default: 1000000.", min=1,
                     show_default=False),
    ] = None,
    compiled: CompileOption = None,
    rows_independent: IndependenceOption = None,
    trust: TrustOption = None,
    non_finite: NonFiniteOption = None,
    tracking_uri: TrackingOption = None,
    name: ModelNameOption = None,
    settings: SettingsOption = None,
) -> None:  # fmt: skip
    """Serve one model over HTTP until SIGTERM or Ctrl-C."""
    from ....runtime.batch_scoring.model_uri import ModelUri, cache_folder, folder_name, registry_settings, state_folder

    require_server_packages(tracking_uri)
    if compiled:
        require_compilers()
    uri = ModelUri.parse(model, name=name)
    _check_shadow(uri, shadow)
    listen = _listen_settings(host, port, tls_cert, tls_key, plain_http=plain_http, names=allow_host)
    registry = registry_settings(tracking_uri) if uri.path is None else None
    state = state_folder() / "serve" / uri.name
    listen["token_file"] = str(_key_file(key_file, state / "key"))
    values: dict[str, Any] = {
        "listen": listen,
        "model": uri.name,
        "version": uri.version,
        "path": str(uri.path) if uri.path else None,
        "registry": registry.model_dump(mode="json") if registry else None,
        "cache": str(cache_folder() / "models" / folder_name(uri, registry)),
    }
    optional: dict[str, Any] = {
        "alias": uri.alias,
        "workers": workers,
        "shadow": shadow,
        "keys_file": _absolute(keys_file),
        "capture": {"directory": _absolute(capture)} if capture else None,
        "trust": trusted(trust) or None,
        "compile": {"engines": []} if compiled is False else None,
        "batch": {"rows_independent": rows_independent} if rows_independent is not None else None,
        "outputs": {"non_finite": non_finite} if non_finite else None,
    }
    values |= {key: value for key, value in optional.items() if value is not None}
    limits = {"body_bytes": max_body, "rows": max_rows, "columns": max_columns, "text": max_text}
    values["limits"] = {key: value for key, value in limits.items() if value is not None}
    server = _validate(merge_objects(read_settings(settings, _BY_OPTION), values), settings)
    if server.keys_file is not None and not server.keys_file.parent.is_dir():
        raise NotFoundError("no such folder", field="--keys-file", value=str(server.keys_file.parent))
    _run(uri, server, state)


def _check_shadow(uri: ModelUri, shadow: str | None) -> None:
    if shadow is not None and uri.alias is None:
        raise UserError(
            "a shadow requires an alias; a fixed version or folder has none",
            field="--shadow",
            value=shadow,
            hint=f"serve models:/{uri.name}@champion",
        )


def _listen_settings(
    host: str, port: int, certificate: Path | None, private: Path | None, *, plain_http: bool, names: list[str] | None
) -> dict[str, Any]:
    """Return the listen settings with a free port.

    Raises:
        UserError: keys would cross the network unencrypted, or only half of a certificate is given.
        PlatformError: the address is not available.
    """
    from ....runtime.common.secrets import is_loopback

    if (certificate is None) != (private is None):
        raise UserError("--tls-cert and --tls-key go together", field="TLS", hint="give both or none")
    for option, file in (("--tls-cert", certificate), ("--tls-key", private)):
        if file is not None and not file.is_file():
            raise NotFoundError("no such file", field=option, value=str(file))
    loopback = is_loopback(f"//[{host}]" if ":" in host else f"//{host}")
    if certificate is None and not plain_http and not loopback:
        raise UserError(
            "other machines can reach it, and keys would cross the network unencrypted",
            field="--host",
            value=host,
            hint="add --tls-cert and --tls-key, or --plain-http behind a proxy that terminates TLS",
        )
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            port = probe.getsockname()[1]
    except OSError as error:
        raise PlatformError(
            f"the address is not available ({error.strerror})",
            field="--port",
            value=f"{host}:{port}",
            hint="stop the process that listens there, or choose another port; --port 0 selects a free one",
        ) from None
    accepted = names or ([] if loopback else ["*"])
    listen: dict[str, Any] = {"host": host, "port": port, "plain_http": plain_http, "hosts": accepted}
    if certificate is not None:
        listen |= {"tls_cert_file": _absolute(certificate), "tls_key_file": _absolute(private)}
    return listen


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser().absolute())


def _key_file(given: Path | None, own: Path) -> Path:
    """Return the file with the API key: `given`, or `own`, which is created once."""
    from ....runtime.common.secrets import read_secret
    from ....runtime.serving.http.key_file import new_key

    if given is not None:
        read_secret(given)
        return given.expanduser().absolute()
    own.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not own.exists():
        work = own.with_name(f".key.{secrets.token_hex(4)}")
        with os.fdopen(os.open(work, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(new_key())
        try:
            os.link(work, own)  # fails if another command was first; its key counts
        except FileExistsError:
            pass
        finally:
            work.unlink()
    return own


def _validate(raw: dict[str, Any], file: Path | None) -> ServingSettings:
    from pydantic import ValidationError

    from ....runtime.serving.settings import ServingSettings

    try:
        return ServingSettings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        source = f" in {file}" if file else ""
        raise ConfigError(f"{first['msg']}{source}", field=where or "settings") from None


def _run(uri: ModelUri, settings: ServingSettings, state: Path) -> NoReturn:
    """Replace this process with the server, so that it gets the signals and sets the exit code."""
    from ....runtime.common.files import write_private
    from ..server_startup import announce_in_background, url_of

    text = settings.model_dump_json(indent=2, exclude_defaults=True)
    # Named by its content: a worker that is restarted later finds the settings of its server.
    file = state / f"settings-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"
    write_private(file, text)
    typer.echo(f"serving {uri} at {url_of(settings.listen)}", err=True)
    if settings.trust:
        typer.echo("pickle is trusted: a version that is loaded can run any code of its author, as your user", err=True)
    typer.echo(f"the API key is in {settings.listen.token_file}", err=True)
    announce_in_background(settings)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")  # they are in files
    }
    # The working directory must not provide modules.
    environment.setdefault("PYTHONSAFEPATH", "1")
    arguments = [sys.executable, "-m", "tidemill.runtime.serving", "--settings", str(file)]
    try:
        os.execve(sys.executable, arguments, environment)  # noqa: S606 - there is no shell on purpose
    except OSError as error:
        raise PlatformError(f"cannot start the server ({error.strerror})", field=sys.executable) from None
