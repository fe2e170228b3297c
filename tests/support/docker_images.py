"""Images for a stack in containers where no registry is reached: the wheels of our own, and what stands for the others.

Ours are built by the stack itself, through the engine, from an image with wheels which were downloaded outside. The
others are made of the programs which the tests of the target `local` run, and of Debian's Postgres.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tidemill.components import tools
from tidemill.components.images import requirements
from tidemill.components.images.catalog import image_specs
from tidemill.components.targets.docker.postgres import USER as POSTGRES
from tidemill.components.targets.docker.settings import DockerSettings
from tidemill.components.tools.table import IMAGES

from tests.support.docker import Docker, archive, base_image, built, cache_folder, unpacked

ROOT = Path(__file__).resolve().parents[2]
BIN = str(Path(sys.prefix) / "bin")
PIP_OPTIONS = "--no-index --find-links /wheels"

_ENTRY = """#!/bin/sh
# What the official image's entry point does, as far as a stack asks for it.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username postgres --pwfile "$POSTGRES_PASSWORD_FILE" --encoding UTF8 $POSTGRES_INITDB_ARGS --pgdata "$PGDATA"
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf"
fi
exec "$@"
"""
_DEBIAN = ("base-files", "base-passwd", "busybox-static", "coreutils", "dash", "grep", "postgresql", "sed")


def stack_images(docker: Docker, extras: list[str]) -> dict[str, object]:
    """Return the settings of a stack config, below `docker`, by which it starts from images that are here."""
    base = base_image(docker)
    if base is None:
        return {}  # it fetches what a user's would
    return {
        "base_image": _python_image(docker, base, extras),
        "build": {"args": {"PIP_OPTIONS": PIP_OPTIONS}},
        "images": {**_tools(docker, base), "postgres": _postgres(docker)},
    }


def _python_image(docker: Docker, base: str, extras: list[str]) -> str:
    """Return `base` with the wheels which our own images install."""
    python = base.rpartition(":")[2].partition("-")[0]
    wheels = _wheels(python, extras)

    def prepare(folder: Path) -> str:
        shutil.copytree(wheels, folder / "wheels", copy_function=os.link)
        return f"FROM {base}\nCOPY wheels /wheels/\n"

    return built(docker, f"{base}-{wheels.name}", prepare)


def _wheels(python: str, extras: list[str]) -> Path:
    """Return a folder with all that our own images install: wheels, and where there is none what one is built from."""
    wheels: set[str] = set()
    sources: set[str] = set()
    for spec in image_specs(DockerSettings().base_image, extras, cloud=False).values():
        text = requirements(ROOT, spec.extras, python=python, own_extras=spec.project_extras)
        for block in re.findall(r"^[a-z0-9].*(?:\n    .*)*", text, re.MULTILINE):
            (sources if f"--no-binary {block.partition('==')[0]}\n" in text else wheels).add(block)
    wanted = "\n".join([python, *sorted(wheels), *sorted(sources)])
    folder = cache_folder() / "wheels" / hashlib.sha256(wanted.encode()).hexdigest()[:12]
    if not folder.is_dir():
        short = python.replace(".", "")
        platforms = [*(f"manylinux_2_{minor}_x86_64" for minor in range(5, 37)), "manylinux2014_x86_64", "linux_x86_64"]
        other = ["--implementation", "cp", "--python-version", python]
        other += [part for abi in (f"cp{short}", "abi3", "none") for part in ("--abi", abi)]
        other += [part for platform in platforms for part in ("--platform", platform)]
        with tempfile.TemporaryDirectory(dir=cache_folder()) as text:
            work = Path(text)
            _download(work, wheels, "--require-hashes", "--only-binary", ":all:", *other)
            _download(work, sources, "--require-hashes", "--no-binary", ":all:")
            _download(work, {"setuptools", "wheel"}, "--only-binary", ":all:")
            shutil.rmtree(folder.parent, ignore_errors=True)  # those of older locks
            folder.parent.mkdir()
            (work / "wheels").rename(folder)
    return folder


def _download(work: Path, wanted: set[str], *options: str) -> None:
    path = work / "requirements.txt"
    path.write_text("\n".join(sorted(wanted)))
    # Our own environment has no pip; the one beside it, which got uv, has.
    python = (
        shutil.which("python3", path=os.pathsep.join(part for part in os.get_exec_path() if part != BIN)) or "python3"
    )
    argv = [python, "-m", "pip", "download", "--quiet", "--no-deps", *options]
    argv += ["--dest", str(work / "wheels"), "--requirement", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def _tools(docker: Docker, base: str) -> dict[str, str]:
    """Return an image for each program which is not ours, at the paths where its vendor's image has it."""
    busybox = unpacked("programs", _DEBIAN) / "bin" / "busybox"
    made: dict[str, str] = {}
    for name in ("lakefs", "prometheus", "alertmanager"):
        programs = {program: (tools.find(program), path) for program, path in IMAGES[name].programs.items()}

        def prepare(folder: Path, programs: dict[str, tuple[Path, str]] = programs) -> str:
            shutil.copy(busybox, folder / "wget")
            lines = [f"FROM {base}", "COPY --chmod=755 wget /usr/bin/wget"]
            for program, (found, path) in programs.items():
                shutil.copy(found, folder / program)
                lines.append(f"COPY --chmod=755 {program} {path}")
            return "\n".join([*lines, ""])

        # The cache never changes a program at its path.
        known = hashlib.sha256(f"{base} {programs} {inspect.getsource(_tools)}".encode()).hexdigest()[:8]
        made[name] = built(docker, f"tidemill-tests/{name}:{IMAGES[name].tag.removeprefix('v')}-{known}", prepare)
    return made


def _postgres(docker: Docker) -> str:
    root = unpacked("programs", _DEBIAN)
    (programs,) = root.glob("usr/lib/postgresql/*/bin")

    def prepare(folder: Path) -> str:
        archive(root, folder / "root.tar", {"root": 0, "postgres": POSTGRES})
        (folder / "entry").write_text(_ENTRY)
        return (
            "FROM scratch\nADD root.tar /\nCOPY --chmod=755 entry /usr/local/bin/docker-entrypoint.sh\n"
            # As the official image has it: runc gives what is mounted over a folder the mode of that folder.
            "RUN mkdir -p /var/run/postgresql && chmod 3777 /var/run/postgresql\n"
            f"ENV PATH=/{programs.relative_to(root)}:/usr/bin:/bin\n"
            'STOPSIGNAL SIGINT\nENTRYPOINT ["/usr/local/bin/docker-entrypoint.sh"]\nCMD ["postgres"]\n'
        )

    known = hashlib.sha256(f"{root.name}{inspect.getsource(_postgres)}{_ENTRY}".encode()).hexdigest()[:8]
    return built(docker, f"tidemill-tests/postgres:{programs.parent.name}-{known}", prepare)
