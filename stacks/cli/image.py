"""`image`: a Docker image which holds one model version and the server, with all that both need."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...runtime.common.errors import ConfigError, NotFoundError, PlatformError, UserError
from .serve import CompileOption, TrackingOption, need_serving

if TYPE_CHECKING:
    from ...runtime.serving.versions.model import VersionInfo
    from ..model_image import Context

__all__ = ["image"]

_TAG = re.compile(r"[a-z0-9][a-z0-9._/:@-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?")
_SHORT = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)@(?P<what>[A-Za-z0-9_.-]+)")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
_BY_OPTION = ("listen", "model", "alias", "version", "path", "registry", "cache", "shadow")


def image(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL@V|PATH", show_default=False,
                       help="NAME@VERSION, NAME@ALIAS, models:/NAME/VERSION, or a folder with an MLmodel file."),
    ],
    tag: Annotated[
        str | None, typer.Option(help="Name of the image. Default: tidemill/NAME:VERSION.", show_default=False)
    ] = None,
    context: Annotated[
        Path | None,
        typer.Option(help="Folder, new or empty, which keeps what the image is built from. Default: a temporary one.",
                     file_okay=False, show_default=False),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Image to start from. Default: a slim Python, pinned.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(help="Port in the container.", min=1024, max=65535)] = 8080,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Listen without TLS, which ends before the container.")
    ] = False,
    compiled: CompileOption = None,
    settings: Annotated[
        Path | None,
        typer.Option(help="JSON file with further settings of the server, such as batch and limits.",
                     exists=True, dir_okay=False, show_default=False),
    ] = None,
    wheel: Annotated[
        Path | None,
        typer.Option(help="Wheel of tidemill to install. Default: this tidemill.", exists=True, dir_okay=False,
                     show_default=False),
    ] = None,
    build_option: Annotated[
        list[str] | None,
        typer.Option(help="Handed to `docker build`, such as --network=host; may be given again.", show_default=False),
    ] = None,
    tracking_uri: TrackingOption = None,
    name: Annotated[
        str | None, typer.Option(help="What a folder's model is called. Default: as the folder.", show_default=False)
    ] = None,
    no_build: Annotated[bool, typer.Option("--no-build", help="Write the context and build nothing.")] = False,
) -> int:  # fmt: skip
    """Build an image which serves one model version, with its requirements in it and nothing to fetch at its start."""
    from ..model_image import Plan, default_tag, write_build_context

    need_serving(tracking_uri)
    if tag is not None and not _TAG.fullmatch(tag):
        raise UserError("not a name for an image", field="--tag", value=tag, hint="write it as name:tag, in lower case")
    if no_build and context is None:
        raise UserError("it says where the context goes", field="--context", hint="name a folder")
    info, folder = _fetched(model, name, tracking_uri)
    plan = Plan(
        info=info,
        model=folder,
        base=base,
        port=port,
        plain_http=plain_http,
        compiled=find_spec("treelite") is not None if compiled is None else compiled,
        settings=_read(settings),
        wheel=wheel,
    )
    where = context.absolute() if context is not None else Path(tempfile.mkdtemp(prefix="tidemill-image-"))
    written = write_build_context(plan, where)
    if written.isolated:
        typer.echo(f"the model gets an environment of its own: {written.isolated}", err=True)
    tag = tag or default_tag(info)
    if no_build:
        typer.echo(str(where))
        return 0
    if reason := _unreachable():
        typer.echo(
            f"tidemill: the image is not built: {reason}. What it is built from is in {where}; build it where Docker "
            f"runs:\n  DOCKER_BUILDKIT=1 docker build --tag {tag} {where}",
            err=True,
        )
        return 3
    _build(written, tag, build_option or [])
    if context is None:
        shutil.rmtree(where)
    typer.echo(tag)
    return 0


def _fetched(text: str, name: str | None, tracking_uri: str | None) -> tuple[VersionInfo, Path]:
    """Return which version is meant, and the folder with its model."""
    from ...runtime.batch_scoring.model_uri import ModelUri, cache_folder, folder_name, registry_settings
    from ...runtime.serving.settings import ServingSettings
    from ...runtime.serving.versions.source import source_of

    if (short := _SHORT.fullmatch(text)) and not Path(text).exists():
        named = short["what"]
        text = f"models:/{short['name']}/{named}" if named.isdecimal() else f"models:/{text}"
    meant = ModelUri.parse(text, name=name)
    registry = registry_settings(tracking_uri) if meant.path is None else None
    given = {
        # Nothing listens: only what is served is asked of these settings.
        "listen": {"port": 1, "token_file": "unused"},
        "model": meant.name,
        "alias": meant.alias,
        "version": meant.version,
        "path": meant.path,
        "registry": registry,
        "cache": cache_folder() / "models" / folder_name(meant, registry),
    }
    settings = ServingSettings.model_validate({key: value for key, value in given.items() if value is not None})
    source = source_of(settings, settings.alias)
    info = source.resolve()
    if info is None:
        raise NotFoundError("the registry has no such version", field="model", value=text)
    return info, source.fetch(info) / "model"


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


def _unreachable() -> str:
    """Return why no image can be built here, or nothing."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    try:
        done = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except subprocess.TimeoutExpired:
        return "the Docker daemon does not answer"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["docker failed"])[-1].rstrip(".")


def _build(context: Context, tag: str, options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        argv = ["docker", "build", "--tag", tag, *_secrets(Path(folder))]
        # Without a value Docker takes that of its own environment; proxies are in no layer and no history.
        argv += [part for name in _PROXIES if name in os.environ for part in ("--build-arg", name)]
        done = subprocess.run(
            [*argv, *options, str(context.folder)], env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False
        )
    if done.returncode:
        raise PlatformError(
            f"docker build ended with exit code {done.returncode}",
            field=tag,
            hint=f"see above; what the image is built from is in {context.folder}",
        )


def _secrets(folder: Path) -> list[str]:
    """Return the options which let the build reach the package indexes this user reaches; in no layer of the image."""
    found: list[str] = []
    for key, names in (("ca", ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")), ("netrc", ("NETRC",))):
        path = next((os.environ[name] for name in names if os.environ.get(name)), None)
        if path and Path(path).is_file():
            found += ["--secret", f"id={key},src={path}"]
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    if index := next((os.environ[name] for name in names if os.environ.get(name)), None):
        file = folder / "index"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(re.sub(r"^[\w-]+=(?=\w+://)", "", index))  # uv's may have a name before it
        found += ["--secret", f"id=index,src={file}"]
    return found
