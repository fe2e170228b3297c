"""`image`: build a Docker image with one model version, the server, and everything they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ....runtime.common.errors import NotFoundError, PlatformError, UserError
from ..serving_options import (
    CompileOption,
    ModelNameOption,
    SettingsOption,
    TrackingOption,
    read_settings,
    require_server_packages,
    settings_of_version,
)

if TYPE_CHECKING:
    from ....runtime.serving.versions.model import VersionInfo
    from ...model_image import BuildContext

_TAG = re.compile(r"[a-z0-9][a-z0-9._/:@-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?")
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
        typer.Option(help="Folder for the build context, new or empty. Default: a temporary folder.",
                     file_okay=False, show_default=False),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Base image. Default: a pinned slim Python.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(help="Port in the container.", min=1024, max=65535)] = 8080,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Listen without TLS, behind a proxy that terminates it.")
    ] = False,
    compiled: CompileOption = None,
    settings: SettingsOption = None,
    wheel: Annotated[
        Path | None,
        typer.Option(help="Wheel of tidemill to install. Default: the running version.", exists=True, dir_okay=False,
                     show_default=False),
    ] = None,
    build_option: Annotated[
        list[str] | None,
        typer.Option(help="Option for `docker build`, such as --network=host; can be repeated.", show_default=False),
    ] = None,
    tracking_uri: TrackingOption = None,
    name: ModelNameOption = None,
    no_build: Annotated[bool, typer.Option("--no-build", help="Only write the build context.")] = False,
) -> int:  # fmt: skip
    """Build an image that serves one model version. It has all requirements, and downloads nothing at start."""
    from ...model_image import ImageSpec, default_tag, write_build_context

    require_server_packages(tracking_uri)
    if tag is not None and not _TAG.fullmatch(tag):
        raise UserError("not an image name", field="--tag", value=tag, hint="write name:tag in lower case")
    if no_build and context is None:
        raise UserError("--no-build requires it", field="--context", hint="name a folder for the build context")
    info, folder = _download_model(model, name, tracking_uri)
    spec = ImageSpec(
        info=info,
        model=folder,
        base=base,
        port=port,
        plain_http=plain_http,
        compiled=find_spec("treelite") is not None if compiled is None else compiled,
        settings=read_settings(settings, _BY_OPTION),
        wheel=wheel,
    )
    target = context.absolute() if context is not None else Path(tempfile.mkdtemp(prefix="tidemill-image-"))
    written = write_build_context(spec, target)
    if written.isolated:
        typer.echo(f"the model gets its own environment: {written.isolated}", err=True)
    tag = tag or default_tag(info)
    if no_build:
        typer.echo(str(target))
        return 0
    if reason := _docker_problem():
        typer.echo(
            f"tidemill: cannot build the image: {reason}. The build context is in {target}; build it where Docker runs:"
            f"\n  DOCKER_BUILDKIT=1 docker build --tag {tag} {target}",
            err=True,
        )
        return 3
    _build(written, tag, build_option or [])
    if context is None:
        shutil.rmtree(target)
    typer.echo(tag)
    return 0


def _download_model(text: str, name: str | None, tracking_uri: str | None) -> tuple[VersionInfo, Path]:
    """Return the version and the folder with its model."""
    from ....runtime.serving.versions.source import source_of

    settings = settings_of_version(text, tracking_uri, name=name)
    with closing(source_of(settings, settings.alias)) as source:
        info = source.resolve()
        if info is None:
            raise NotFoundError("the registry has no such version", field="model", value=text)
        return info, source.fetch(info) / "model"


def _docker_problem() -> str:
    """Return why Docker is unavailable, or an empty text."""
    if shutil.which("docker") is None:
        return "the docker command is not installed"
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


def _build(context: BuildContext, tag: str, options: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        argv = ["docker", "build", "--tag", tag, *_secret_options(Path(folder))]
        # Docker takes the values from its environment; predefined proxy arguments are in no layer and no history.
        argv += [part for name in _PROXIES if name in os.environ for part in ("--build-arg", name)]
        done = subprocess.run(
            [*argv, *options, str(context.folder)], env={**os.environ, "DOCKER_BUILDKIT": "1"}, check=False
        )
    if done.returncode:
        raise PlatformError(
            f"docker build failed with exit code {done.returncode}",
            field=tag,
            hint=f"see above; the build context is in {context.folder}",
        )


def _secret_options(folder: Path) -> list[str]:
    """Return options that give the build this user's package index and credentials, in no layer of the image."""
    found: list[str] = []
    for key, names in (("ca", ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "PIP_CERT")), ("netrc", ("NETRC",))):
        path = next((os.environ[name] for name in names if os.environ.get(name)), None)
        if path and Path(path).is_file():
            found += ["--secret", f"id={key},src={path}"]
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    if index := next((os.environ[name] for name in names if os.environ.get(name)), None):
        file = folder / "index"
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
            opened.write(re.sub(r"^[\w-]+=(?=\w+://)", "", index))  # uv allows a name before the URL
        found += ["--secret", f"id=index,src={file}"]
    return found
