"""A Docker daemon for tests: the one which runs, else one of our own, of Debian's packages; and an image to start from.

Our own needs root and apt. It has its data, socket and processes in a folder of its own, no network but the host's,
and ends with the tests. Where no registry is reached, the image to start from is put together from Debian's packages.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_DAEMON = ("docker.io", "containerd", "runc", "tini")
_BASE = ("base-files", "base-passwd", "coreutils", "dash", "grep", "libstdc++6", "python3", "python3-venv", "sed")


@dataclass(frozen=True)
class Docker:
    """A daemon which answers.

    Attributes:
        environ: with which `docker` finds it.
        own: whether we started it; then there is no network but the host's.
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
        yield Docker(dict(os.environ), own=False)
        return
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("no Docker daemon answers, and only root on Linux can start one")
    if shutil.which("apt-get") is None:
        pytest.skip("no Docker daemon answers, and there are no Debian packages to start one from")
    with tempfile.TemporaryDirectory(prefix="tidemill-docker-") as text:
        folder = Path(text)
        try:
            programs = _unpacked("docker", _DAEMON, ("--no-install-recommends",))
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the Docker daemon's packages cannot be had: {_last(error.stderr)}")
        environ = {
            **os.environ,
            "PATH": f"{programs / 'usr/bin'}:{programs / 'usr/sbin'}:{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{folder / 'socket'}",
            "DOCKER_CONFIG": str(folder / "config"),
        }
        with _running(folder, environ):
            yield Docker(environ, own=True)


@contextmanager
def _running(folder: Path, environ: dict[str, str]) -> Iterator[None]:
    argv = [
        *("dockerd", "--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")),
        *("--host", environ["DOCKER_HOST"], "--pidfile", str(folder / "pid")),
        *("--bridge", "none", "--iptables=false", "--ip6tables=false"),
    ]
    log = folder / "log"
    with log.open("wb") as said:
        daemon = subprocess.Popen(argv, env=environ, stdout=said, stderr=said, start_new_session=True)
    try:
        end = time.monotonic() + 60
        while not _answers(environ):
            if daemon.poll() is not None or time.monotonic() > end:
                pytest.skip(f"a Docker daemon does not run here: {_last(log.read_text(errors='replace'))}")
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
            if (place := line.split()[1]).startswith(f"{folder}/"):
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


def _unpacked(name: str, packages: tuple[str, ...], options: tuple[str, ...]) -> Path:
    """Return a folder with the files of Debian `packages` and of all they depend on; kept from run to run."""
    final = cache_folder() / f"debian-{name}"
    if not final.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as text:
            work = Path(text)
            (work / "debs" / "partial").mkdir(parents=True)
            apt = ["apt-get", "-qq", "-y", "-o", f"Dir::Cache::archives={work / 'debs'}"]
            # As if nothing were installed, so that nothing is taken for there.
            wanted = [*apt, "-o", "Dir::State::status=/dev/null", "install", "--download-only", *options, *packages]
            quiet = {"capture_output": True, "text": True}
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
    root = _unpacked("base", _BASE, ("--no-install-recommends",))
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        # Without these nobody has a name, and no shell is found.
        (root / "tmp").mkdir(exist_ok=True)
        (root / "tmp").chmod(0o1777)
        for name, line in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n")):
            (root / "etc" / name).write_text(line)
        shell = root / "bin" / "sh"
        if not shell.exists():
            shell.symlink_to("dash")
        subprocess.run(
            [
                "tar",
                "--sort=name",
                "--mtime=@0",
                "--numeric-owner",
                "-C",
                str(root),
                "-cf",
                str(folder / "base.tar"),
                ".",
            ],
            check=True,
        )
        (folder / "Dockerfile").write_text('FROM scratch\nADD base.tar /\nCMD ["/bin/sh"]\n')
        docker.run("build", "--quiet", "--tag", "tidemill-tests-base:debian", str(folder))
    return "tidemill-tests-base:debian"
