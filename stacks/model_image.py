"""What goes into the image of one model version: a Docker build context which holds all of it, and no secret.

Dockerfile, .dockerignore, build.sh, healthcheck.py
server.lock        the server's environment, with hashes; the model's requirements are in it where both go together
model.lock         else the environment of the model, with hashes
tidemill-*.whl     this tidemill, unless it came from an index
version/           version.json, and the model as MLflow saved it
settings.json      of the server
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

from ..runtime.common.errors import PlatformError, UserError
from ..runtime.training import lineage
from ..templates.rendering import render
from .uv_command import run_uv
from .wheels import origin, own_wheel

if TYPE_CHECKING:
    from ..runtime.serving.isolation.requirements import Needs
    from ..runtime.serving.versions.model import VersionInfo

__all__ = ["Context", "Plan", "default_tag", "write_build_context"]

# Pinned by tag; `--base` takes another, such as a mirror's.
BASES = {
    "3.11": "python:3.11.14-slim-bookworm",
    "3.12": "python:3.12.12-slim-bookworm",
    "3.13": "python:3.13.9-slim-bookworm",
}
INSIDE = "/opt/tidemill/version/model"
_SECONDS = 900.0
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,500}")
_SYSTEM = {"lightgbm": "libgomp1"}  # what a wheel needs and slim images do not have


@dataclass(frozen=True)
class Plan:
    """What is asked for.

    Attributes:
        info: the version.
        model: its folder, as MLflow saved it.
        base: image to start from; None takes one with the model's Python.
        port: where the server listens in the container.
        plain_http: whether TLS ends before it.
        compiled: whether compilers go into the image.
        settings: further settings of the server.
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
class Context:
    """A written build context.

    Attributes:
        isolated: why the model runs in an environment of its own; empty where it does not.
    """

    folder: Path
    base: str
    isolated: str


def default_tag(info: VersionInfo) -> str:
    """Return a name which any registry takes for the image of `info`.

    >>> from tidemill.runtime.serving.versions.model import VersionInfo
    >>> default_tag(VersionInfo("Flights__EU.", "3", "", "", "", {}))
    'tidemill/flights-eu:3'
    """
    name = re.sub(r"[^a-z0-9]+", "-", info.model.lower()).strip("-") or "model"
    return f"tidemill/{name}:{info.version}"


def write_build_context(plan: Plan, folder: Path) -> Context:
    """Write the build context into `folder`, which is new or empty.

    Raises:
        UserError: something asked for does not fit.
        PlatformError: the requirements cannot be locked.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError("the folder is not empty", field="--context", value=str(folder), hint="name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return _written(plan, folder)
    except BaseException:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _written(plan: Plan, folder: Path) -> Context:
    from ..runtime.serving.isolation.requirements import Needs

    (folder / "version").mkdir()
    shutil.copytree(plan.model, folder / "version" / "model", ignore=shutil.ignore_patterns("__pycache__"))
    version = json.dumps({**plan.info.as_dict(), "alias": ""}, indent=1)
    (folder / "version" / "version.json").write_text(version, encoding="utf-8")
    needs = Needs.of(folder / "version" / "model")
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = needs.python if needs.python in BASES else own
    base = plan.base or BASES[python]
    if not _IMAGE.fullmatch(base):
        raise UserError("not the name of an image", field="--base", value=base)
    wheel = _wheel(plan.wheel, folder)
    isolated = _lock(needs, wheel, python, folder, compiled=plan.compiled)
    settings = _settings(plan)
    (folder / "settings.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")
    locked = (folder / "server.lock").read_text(encoding="utf-8")
    if isolated:
        locked += (folder / "model.lock").read_text(encoding="utf-8")
    values: dict[str, object] = {
        "base": base,
        "apt": sorted(package for name, package in _SYSTEM.items() if f"\n{name}==" in f"\n{locked}"),
        "wheel": wheel.name if wheel else "",
        "isolated": bool(isolated),
        "files": bool(needs.files),
        "labels": _labels(plan.info),
        "port": plan.port,
    }
    written = {"Dockerfile": "Dockerfile", ".dockerignore": "dockerignore"} | {
        name: name for name in ("build.sh", "healthcheck.py")
    }
    for name, template in written.items():
        (folder / name).write_text(render(f"serving/{template}.j2", **values), encoding="utf-8")
    return Context(folder, base, isolated)


def _labels(info: VersionInfo) -> dict[str, str]:
    labels = {
        "org.opencontainers.image.title": f"{info.model} {info.version}",
        "org.opencontainers.image.version": info.version,
        "org.opencontainers.image.revision": info.tags.get(lineage.GIT_COMMIT, ""),
        "tidemill.model": info.model,
        "tidemill.version": info.version,
        "tidemill.run": info.run_id,
        "tidemill.release": metadata.version("tidemill"),
    }
    names = (lineage.GIT_COMMIT, lineage.GIT_DIRTY, lineage.LAKE_REPOSITORY, lineage.LAKE_COMMIT, lineage.LAKE_PATH)
    labels |= {name: info.tags.get(name, "") for name in names}
    return {name: value for name, value in labels.items() if value}


def _settings(plan: Plan) -> dict[str, Any]:
    from pydantic import ValidationError

    from ..runtime.serving.settings import ServingSettings

    listen: dict[str, Any] = {"host": "0.0.0.0", "port": plan.port, "token_file": "/run/secrets/tidemill-key"}  # noqa: S104 - paths in a container, where loopback reaches nobody
    if plan.plain_http:
        listen["plain_http"] = True
    else:
        secrets = "/run/secrets/tidemill-tls"
        listen |= {"tls_cert_file": f"{secrets}-cert", "tls_key_file": f"{secrets}-key"}
    given = {"model": plan.info.model, "path": INSIDE, "cache": "/var/lib/tidemill/cache", "listen": listen}
    settings = {**plan.settings, **given}
    try:
        ServingSettings.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(str(first["msg"]), field=where or "settings") from None
    return settings


def _server(wheel: Path | None, extras: str) -> str:
    if wheel is None:
        return f"tidemill[{extras}]=={metadata.version('tidemill')}"
    return f"tidemill[{extras}] @ {wheel.absolute().as_uri()}"


def _lock(needs: Needs, wheel: Path | None, python: str, folder: Path, *, compiled: bool) -> str:
    """Write the locks; return why the model needs one of its own, or nothing where it goes with the server."""
    from ..runtime.serving.isolation.environment import requirements_of
    from ..runtime.serving.isolation.requirements import loaded_by, without_credentials

    if refused := _compile(["uv"], (), python, folder / "tools.lock", ()):
        raise PlatformError(f"uv cannot be locked: {refused}", field="tools.lock")
    options = [without_credentials(line) for line in needs.lines if line.startswith("-")]
    own = needs.python or python
    why = f"it was trained with Python {own}" if own != python else ""
    if not why:
        # What merely loads the model is the server's own.
        lines = [line for line in needs.lines if not loaded_by(line)]
        server = _server(wheel, "serve,compiled" if compiled else "serve")
        why = _compile([server, *lines], needs.constraints, python, folder / "server.lock", options)
    if why:
        # Only what the server loads itself is compiled.
        refused = _compile([_server(wheel, "serve")], (), python, folder / "server.lock", ())
        refused = refused or _compile(requirements_of(needs), needs.constraints, own, folder / "model.lock", options)
        if refused:
            raise PlatformError(f"the requirements cannot be locked: {refused}", field="requirements.txt")
    return why


def _compile(lines: Sequence[str], constraints: Sequence[str], python: str, lock: Path, options: Sequence[str]) -> str:
    """Lock `lines` for any platform, with hashes; return why that is not possible, or nothing."""
    from ..runtime.serving.isolation.environment import reason_in

    with tempfile.TemporaryDirectory() as work:
        wanted, limits = Path(work) / "requirements.in", Path(work) / "constraints.in"
        wanted.write_text("\n".join(lines) + "\n", encoding="utf-8")
        limits.write_text("\n".join(constraints) + "\n", encoding="utf-8")
        done = run_uv(
            [
                *("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate"),
                *("--python-version", python, "-o", str(lock)),
                # A wheel of ours is installed by itself: what it was built from is no matter of the lock.
                *(("--no-emit-package", "tidemill") if any(" @ file:" in line for line in lines) else ()),
                *("-c", str(limits), str(wanted)),
            ],
            Path(work),
            seconds=_SECONDS,
        )
    if done.returncode:
        lock.unlink(missing_ok=True)
        return reason_in(done.stderr)
    locked = lock.read_text(encoding="utf-8")
    # Wheels which lie beside the model are where the image has it.
    model = (lock.parent / "version" / "model").resolve()
    for place in (model.as_uri(), model.as_posix()):
        locked = locked.replace(place, f"file://{INSIDE}" if place.startswith("file:") else INSIDE)
    lock.write_text("".join(f"{line}\n" for line in options) + locked, encoding="utf-8")
    return ""


def _wheel(given: Path | None, folder: Path) -> Path | None:
    """Put the wheel of tidemill into `folder`; None where it is to come from an index, as this one did."""
    if given is not None:
        if not re.fullmatch(r"tidemill-[A-Za-z0-9.+_]+-py3-none-any\.whl", given.name) or not given.is_file():
            raise UserError("not a wheel of tidemill", field="--wheel", value=str(given))
        return Path(shutil.copy(given, folder))
    return None if origin().kind == "index" else own_wheel(folder)[0]
