"""A Docker daemon for tests: the one which runs, else one of our own, of Debian's packages; and an image to start from.

Our own needs root and apt. It ends with the tests, and nothing outside it is touched: no rule of the firewall, no
network but those which tests make. What it has built is kept beside the tools from run to run; everything else in it
goes at each start. Where no registry is reached, the image to start from is put together from Debian's packages.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

_DAEMON = ("docker.io", "containerd", "iptables", "runc", "tini")
# What the slim image has, as far as anybody here needs it.
_BASE = (
    *("base-files", "base-passwd", "coreutils", "dash", "grep", "libstdc++6", "netbase", "python3", "python3-venv"),
    *("sed", "tzdata"),
)


@dataclass(frozen=True)
class Docker:
    """A daemon which answers.

    Attributes:
        environ: with which `docker` finds it.
        own: whether we started it; then builds have no network but the host's.
    """

    environ: Mapping[str, str]
    own: bool

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run `docker` with `arguments`; return what it prints."""
        done = subprocess.run(
            ["docker", *arguments], env=dict(self.environ), capture_output=True, text=True, check=False, timeout=600
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "tidemill" / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def docker_daemon() -> Iterator[Docker]:
    """Give a daemon, or skip the test and say why there is none."""
    if shutil.which("docker") and _answers(os.environ):
        RAN.append("on the daemon which runs here")
        yield Docker(dict(os.environ), own=False)
        return
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        _none("no Docker daemon answers, and only root on Linux can start one")
    if shutil.which("apt-get") is None:
        _none("no Docker daemon answers, and there are no Debian packages to start one from")
    with tempfile.TemporaryDirectory(prefix="tidemill-docker-") as text, ExitStack() as stack:
        folder = Path(text)
        try:
            programs = unpacked("docker", _DAEMON)
        except subprocess.CalledProcessError as error:
            _none(f"the Docker daemon's packages are not available: {_last(error.stderr)}")
        _iptables(folder / "bin", programs)
        environ = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{programs / 'usr/bin'}:{programs / 'usr/sbin'}:{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{folder / 'socket'}",
            "DOCKER_CONFIG": str(folder / "config"),
            "DOCKER_BUILDKIT": "1",
        }
        stack.enter_context(_running(folder, stack.enter_context(_data(folder)), environ))
        found = Docker(environ, own=True)
        _empty(found)
        RAN.append("on a daemon of the tests' own")
        yield found
        _empty(found)


RAN: list[str] = []
"""How the tests which need a daemon got one; empty where none was asked for."""

REFUSED: list[str] = []
"""Why there was none."""


def _none(reason: str) -> NoReturn:
    REFUSED.append(reason)
    pytest.skip(reason)


@contextmanager
def _data(folder: Path) -> Iterator[Path]:
    """Give the folder with what a daemon keeps: that of all runs, or one of its own where another run has that."""
    kept = cache_folder() / "docker"
    kept.mkdir(exist_ok=True)
    with (cache_folder() / "docker.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield folder / "data"
        else:
            yield kept


def _iptables(folder: Path, programs: Path) -> None:
    """Put a command `iptables` into `folder`: by it the daemon gives containers a server of names, each its own."""
    folder.mkdir()
    path = folder / "iptables"
    (libraries,) = {found.parent for found in (programs / "usr/lib").glob("*/libxtables.so.*")}
    path.write_text(
        f"#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' XTABLES_LIBDIR='{libraries / 'xtables'}' "
        f"exec '{programs / 'usr/sbin/xtables-nft-multi'}' iptables \"$@\"\n"
    )
    path.chmod(0o755)


def _empty(docker: Docker) -> None:
    """Remove what a run has left in a daemon of ours, and what was built so long ago that nobody asks for it."""
    containers = docker.run("ps", "--all", "--quiet").split()
    if containers:
        docker.run("rm", "--force", "--volumes", *containers)
    volumes = docker.run("volume", "ls", "--quiet").split()
    if volumes:
        docker.run("volume", "rm", *volumes)
    docker.run("network", "prune", "--force")
    docker.run("image", "prune", "--force", "--all", "--filter", "until=168h")
    docker.run("builder", "prune", "--force", "--keep-storage", "8GB")


def _end_with_us() -> None:
    """In the daemon, before it begins: it gets SIGTERM when the tests are killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


@contextmanager
def _running(folder: Path, data: Path, environ: dict[str, str]) -> Iterator[None]:
    argv = [
        *("dockerd", "--data-root", str(data), "--exec-root", str(folder / "exec")),
        *("--host", environ["DOCKER_HOST"], "--pidfile", str(folder / "pid")),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
    ]
    log = folder / "log"
    with log.open("wb") as said:
        daemon = subprocess.Popen(
            argv,
            env=environ,
            stdout=said,
            stderr=said,
            start_new_session=True,
            preexec_fn=_end_with_us,
        )
    try:
        end = time.monotonic() + 60
        while not _answers(environ):
            if daemon.poll() is not None or time.monotonic() > end:
                _none(f"a Docker daemon does not run here: {_last(log.read_text(errors='replace'))}")
            time.sleep(0.2)
        yield
    finally:
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if (place := line.split()[1]).startswith((f"{folder}/", f"{data}/")):
                subprocess.run(["umount", "--lazy", place], check=False)


def _answers(environ: Mapping[str, str]) -> bool:
    return (
        subprocess.run(
            ["docker", "version"], env=dict(environ), capture_output=True, check=False, timeout=60
        ).returncode
        == 0
    )


def _last(text: str) -> str:
    return (text.strip().splitlines() or ["no reason was given"])[-1][:500]


def unpacked(name: str, packages: tuple[str, ...]) -> Path:
    """Return a folder with the files of Debian `packages` and of all they depend on; kept from run to run."""
    digest = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    final = cache_folder() / f"debian-{name}-{digest}"
    if not final.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as text:
            work = Path(text)
            (work / "debs" / "partial").mkdir(parents=True)
            apt = ["apt-get", "-qq", "-y", "-o", f"Dir::Cache::archives={work / 'debs'}"]
            # As if nothing were installed, so that nothing is taken for there.
            wanted = [
                *apt,
                "-o",
                "Dir::State::status=/dev/null",
                "install",
                "--download-only",
                "--no-install-recommends",
                *packages,
            ]
            quiet: dict[str, Any] = {"capture_output": True, "text": True}
            if subprocess.run(wanted, check=False, **quiet).returncode:
                subprocess.run(["apt-get", "-qq", "update"], check=True, **quiet)
                subprocess.run(wanted, check=True, **quiet)
            for package in sorted((work / "debs").glob("*.deb")):
                subprocess.run(["dpkg-deb", "-x", str(package), str(work / "root")], check=True, **quiet)
            (work / "root").rename(final)
    return final


def base_image(docker: Docker) -> str | None:
    """Return an image with Python to start from: None, the default, with a daemon which is used to fetch images."""
    if not docker.own:
        return None
    root = unpacked("base", _BASE)
    (python,) = root.glob("usr/bin/python3.*[0-9]")
    tag = f"tidemill-tests/python:{python.name.removeprefix('python')}-{root.name}"

    def prepare(folder: Path) -> str:
        archive(root, folder / "base.tar", users={"root": 0})
        return 'FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n'

    return built(docker, tag, prepare)


def built(docker: Docker, tag: str, prepare: Callable[[Path], str]) -> str:
    """Return the image `tag`, which names what is in it; where it is not there, it is built without a network.

    Args:
        docker: the daemon.
        tag: its name.
        prepare: fills the folder it is built from, and returns the Dockerfile.
    """
    if docker.run("image", "ls", "--quiet", tag):
        return tag
    with tempfile.TemporaryDirectory(dir=cache_folder()) as text:
        folder, path = Path(text) / "context", Path(text) / "Dockerfile"
        folder.mkdir()
        path.write_text(prepare(folder))
        docker.run("build", "--quiet", "--network", "none", "--tag", tag, "--file", str(path), str(folder))
    return tag


def archive(root: Path, to: Path, users: Mapping[str, int]) -> None:
    """Write `root`, with what no package brings, as a tar file; the same files give the same bytes."""
    # Without these nobody has a name, and no shell is found.
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for name, line in (("passwd", "{0}:x:{1}:{1}::/:/bin/sh\n"), ("group", "{0}:x:{1}:\n")):
        (root / "etc" / name).write_text("".join(line.format(user, number) for user, number in users.items()))
    shell = root / "bin" / "sh"
    if not shell.exists():
        shell.symlink_to("dash")
    tar = ["tar", "--sort=name", "--mtime=@0", "--numeric-owner", "-C", str(root), "-cf", str(to), "."]
    subprocess.run(tar, check=True)
