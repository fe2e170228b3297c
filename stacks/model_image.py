"""Writes the Docker build context of an image with one model version. The context contains no secret.

Dockerfile, .dockerignore, build.sh, healthcheck.py
server.lock        the packages of the server with hashes, and those of the model if both fit in one environment
model.lock         otherwise the packages of the model with hashes
tidemill-*.whl     this tidemill, unless it was installed from an index
version/           version.json, and the model as MLflow saved it
settings.json      settings of the server
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.common import tags
from ..runtime.common.errors import PlatformError, UserError
from ..templates.rendering import render
from .uv_command import run_uv
from .wheels import install_origin, own_wheel

if TYPE_CHECKING:
    from ..runtime.serving.isolation.requirements import ModelRequirements
    from ..runtime.serving.versions.model import VersionInfo

# `--base` replaces these, for example by a mirror.
BASES = {
    "3.11": "python:3.11.14-slim-bookworm",
    "3.12": "python:3.12.12-slim-bookworm",
    "3.13": "python:3.13.9-slim-bookworm",
}
MODEL_FOLDER = "/opt/tidemill/version/model"
_SECONDS = 900.0
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,500}")
_SYSTEM_PACKAGES = {"lightgbm": "libgomp1"}  # libraries that a wheel needs and slim images do not have


@dataclass(frozen=True)
class ImageSpec:
    """What the image contains.

    Attributes:
        info: the model version.
        model: its folder, as MLflow saved it.
        base: base image; None selects one with the model's Python.
        port: port of the server in the container.
        plain_http: listen without TLS, behind a proxy that terminates it.
        compiled: install compilers.
        settings: more settings of the server.
        wheel: the wheel of tidemill; None finds or builds that of this installation.
    """

    info: VersionInfo
    model: Path
    base: str | None = None
    port: int = 8080
    plain_http: bool = False
    compiled: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    wheel: Path | None = None


@dataclass(frozen=True)
class BuildContext:
    """A written build context.

    Attributes:
        isolated: why the model needs its own environment; empty if it shares that of the server.
    """

    folder: Path
    base: str
    isolated: str


def default_tag(info: VersionInfo) -> str:
    """Return an image name that every registry accepts.

    >>> from tidemill.runtime.serving.versions.model import VersionInfo
    >>> default_tag(VersionInfo("Flights__EU.", "3", "", "", "", {}))
    'tidemill/flights-eu:3'
    """
    name = re.sub(r"[^a-z0-9]+", "-", info.model.lower()).strip("-") or "model"
    return f"tidemill/{name}:{info.version}"


def write_build_context(spec: ImageSpec, folder: Path) -> BuildContext:
    """Write the build context into `folder`, which is new or empty.

    Raises:
        UserError: the folder is not empty, or the specification is invalid.
        PlatformError: the requirements cannot be locked.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError("the folder is not empty", field="--context", value=str(folder), hint="name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _write_files(spec, folder)
    except BaseException:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _write_files(spec: ImageSpec, folder: Path) -> BuildContext:
    from ..runtime.serving.isolation.requirements import ModelRequirements

    (folder / "version").mkdir()
    shutil.copytree(spec.model, folder / "version" / "model", ignore=shutil.ignore_patterns("__pycache__"))
    version = json.dumps({**spec.info.as_dict(), "alias": ""}, indent=1)
    (folder / "version" / "version.json").write_text(version, encoding="utf-8")
    needs = ModelRequirements.of(folder / "version" / "model")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = needs.python if needs.python in BASES else own
    base = spec.base or BASES[python]
    if not _IMAGE_NAME.fullmatch(base):
        raise UserError("not an image name", field="--base", value=base)
    wheel = _add_wheel(spec.wheel, folder)
    isolated = _write_locks(needs, wheel, python, folder, compiled=spec.compiled)
    settings = _server_settings(spec)
    (folder / "settings.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    locked = (folder / "server.lock").read_text(encoding="utf-8")
    if isolated:
        locked += (folder / "model.lock").read_text(encoding="utf-8")
    values: dict[str, object] = {
        "base": base,
        "apt": sorted(package for name, package in _SYSTEM_PACKAGES.items() if f"\n{name}==" in f"\n{locked}"),
        "wheel": wheel.name if wheel else "",
        "isolated": bool(isolated),
        "labels": _labels(spec.info),
        "port": spec.port,
    }
    templates = {"Dockerfile": "Dockerfile", ".dockerignore": "dockerignore"} | {
        name: name for name in ("build.sh", "healthcheck.py")
    }
    for name, template in templates.items():
        (folder / name).write_text(render(f"images/model/{template}.j2", **values), encoding="utf-8")
    return BuildContext(folder, base, isolated)


def _labels(info: VersionInfo) -> dict[str, str]:
    labels = {
        "org.opencontainers.image.title": f"{info.model} {info.version}",
        "org.opencontainers.image.version": info.version,
        "org.opencontainers.image.revision": info.tags.get(tags.GIT_COMMIT, ""),
        "tidemill.model": info.model,
        "tidemill.version": info.version,
        "tidemill.run": info.run_id,
        "tidemill.release": metadata.version("tidemill"),
    }
    names = (tags.GIT_COMMIT, tags.GIT_DIRTY, tags.LAKE_REPOSITORY, tags.LAKE_COMMIT, tags.LAKE_PATH)
    labels |= {name: info.tags.get(name, "") for name in names}
    return {name: value for name, value in labels.items() if value}


def _server_settings(spec: ImageSpec) -> dict[str, Any]:
    from pydantic import ValidationError

    from ..runtime.serving.settings import ServingSettings

    listen: dict[str, Any] = {"host": "0.0.0.0", "port": spec.port, "token_file": "/run/secrets/tidemill-key"}  # noqa: S104 - in a container, loopback is unreachable from outside
    listen["hosts"] = ["*"]  # the names of its future containers are unknown
    if spec.plain_http:
        listen["plain_http"] = True
    else:
        secrets = "/run/secrets/tidemill-tls"
        listen |= {"tls_cert_file": f"{secrets}-cert", "tls_key_file": f"{secrets}-key"}
    given = {"model": spec.info.model, "path": MODEL_FOLDER, "cache": "/var/lib/tidemill/cache", "listen": listen}
    settings = {**spec.settings, **given}
    try:
        ServingSettings.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(str(first["msg"]), field=where or "settings") from None
    return settings


def _server_requirement(wheel: Path | None, extras: str) -> str:
    if wheel is None:
        return f"tidemill[{extras}]=={metadata.version('tidemill')}"
    return f"tidemill[{extras}] @ {wheel.absolute().as_uri()}"


def _write_locks(needs: ModelRequirements, wheel: Path | None, python: str, folder: Path, *, compiled: bool) -> str:
    """Write the lock files; return why the model needs its own, or an empty text if one file is enough."""
    from ..runtime.serving.isolation.environment import environment_requirements
    from ..runtime.serving.isolation.requirements import covered_by_own_mlflow, named_requirements

    given, constraints = named_requirements(needs.lines), named_requirements(needs.constraints)
    if refused := _pip_compile(["uv"], (), python, folder / "tools.lock"):
        raise PlatformError(f"cannot lock uv: {refused}", field="tools.lock")
    own = needs.python or python
    why = f"it was trained with Python {own}" if own != python else ""
    if not why:
        # The server has its own packages for loading the model.
        lines = [line for line in given if not covered_by_own_mlflow(line)]
        server = _server_requirement(wheel, "serve,compiled" if compiled else "serve")
        why = _pip_compile([server, *lines], constraints, python, folder / "server.lock")
    if why:
        # The server compiles only models that it loads itself.
        refused = _pip_compile([_server_requirement(wheel, "serve")], (), python, folder / "server.lock")
        requirements = named_requirements(environment_requirements(needs))
        refused = refused or _pip_compile(requirements, constraints, own, folder / "model.lock")
        if refused:
            raise PlatformError(f"cannot lock the requirements: {refused}", field="requirements.txt")
    return why


def _pip_compile(lines: Sequence[str], constraints: Sequence[str], python: str, lock: Path) -> str:
    """Lock the requirements `lines` for all platforms with hashes; return the error, or an empty text."""
    from ..runtime.serving.isolation.environment import failure_reason

    with tempfile.TemporaryDirectory() as work:
        requirements, limits = Path(work) / "requirements.in", Path(work) / "constraints.in"
        requirements.write_text("\n".join(lines) + "\n", encoding="utf-8")
        limits.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        done = run_uv(
            [
                *("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"),
                "--no-build",  # building a source archive would run code from it
                *("--python-version", python, "-o", str(lock)),
                # Our own wheel is installed separately; the lock must not contain its path.
                *(("--no-emit-package", "tidemill") if any(" @ file:" in line for line in lines) else ()),
                *("-c", str(limits), str(requirements)),
            ],
            Path(work),
            seconds=_SECONDS,
        )
    if done.returncode:
        lock.unlink(missing_ok=True)
        return failure_reason(done.stderr)
    return ""


def _add_wheel(given: Path | None, folder: Path) -> Path | None:
    """Put the wheel of tidemill into `folder`; return None if tidemill was installed from an index."""
    if given is not None:
        if not re.fullmatch(r"tidemill-[A-Za-z0-9.+_]+-py3-none-any\.whl", given.name) or not given.is_file():
            raise UserError("not a wheel of tidemill", field="--wheel", value=str(given))
        return Path(shutil.copy(given, folder))
    return None if install_origin().kind == "index" else own_wheel(folder)[0]
