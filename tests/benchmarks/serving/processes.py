"""Servers as processes: started in a session of their own, measured with all they started, ended by their group."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil


@dataclass(frozen=True)
class Memory:
    """Memory in MB: of the one process which holds the most, and of the server with all its processes."""

    rss: float
    pss: float
    all_rss: float
    all_pss: float
    processes: int


@dataclass
class Running:
    """A server which answers.

    Attributes:
        name: as it stands in the tables.
        port: on the loopback interface.
        process: the one which was started; it leads a session, so its id names the group.
        log: what it prints.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def family(self) -> list[psutil.Process]:
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def memory(self) -> Memory:
        sizes: list[tuple[float, float]] = []
        for one in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                info = one.memory_full_info()
                sizes.append((info.rss / 1e6, info.pss / 1e6))
        largest = max(sizes)
        return Memory(*largest, sum(rss for rss, _ in sizes), sum(pss for _, pss in sizes), len(sizes))

    def cpu_seconds(self) -> float:
        """Return how long all its processes have computed."""
        total = 0.0
        for one in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                total += times.user + times.system
        return total

    def handles(self) -> int:
        """Return how many files, sockets and pipes are open in all its processes."""
        number = 0
        for one in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                number += one.num_fds()
        return number


def _wait(running: Running, health: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    with httpx.Client(base_url=running.url, timeout=5, trust_env=False) as client:
        while True:
            code = running.process.poll()
            tail = running.log.read_text(errors="replace")[-4000:]
            if code is not None:
                raise RuntimeError(f"{running.name} ended with {code}:\n{tail}")
            with contextlib.suppress(httpx.TransportError):
                if client.get(health).status_code == 200:
                    return
            if time.monotonic() > end:
                raise RuntimeError(f"{running.name} does not become ready:\n{tail}")
            time.sleep(0.1)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process which leads a session, and all of its group."""
    for name, patience in ((signal.SIGTERM, 15), (signal.SIGKILL, 15)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    # Children which outlived their parent.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def running(
    name: str,
    argv: Sequence[str | Path],
    *,
    port: int,
    folder: Path,
    env: Mapping[str, str],
    health: str,
    seconds: float = 180,
) -> Iterator[Running]:
    """Start a server, wait until `health` answers 200, and end it with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "SSL_CERT_FILE") if key in os.environ}
    log = folder / "log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [str(part) for part in argv],
            cwd=folder,
            env={**kept, "HOME": str(folder), **env},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        one = Running(name, port, process, log)
        _wait(one, health, seconds)
        yield one
    finally:
        end(process)
