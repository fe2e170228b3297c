"""A second process of a service with the same settings, for faults that must not reach the platform."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.platform import RunningPlatform, wait_for
from tests.support.servers import free_port

# Shifts the clock of a program by the seconds in the file CLOCK_SHIFT, while it runs. Programs in Go do not ask libc.
_CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static long shift(void) {
    static volatile long *place;
    if (!place) {
        const char *name = getenv("CLOCK_SHIFT");
        int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
        if (file < 0) return 0;
        place = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        if (place == MAP_FAILED) place = 0;
    }
    return place ? *place : 0;
}
int clock_gettime(clockid_t id, struct timespec *at) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, at);
    if (!code && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) at->tv_sec += shift();
    return code;
}
int gettimeofday(struct timeval *at, void *zone) {
    struct timespec now;
    int code = clock_gettime(CLOCK_REALTIME, &now);
    if (at) { at->tv_sec = now.tv_sec; at->tv_usec = now.tv_nsec / 1000; }
    return code;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""


class Clock:
    """A clock that jumps, for processes that are started with its variables."""

    def __init__(self, folder: Path) -> None:
        source, library = folder / "clock.c", folder / "clock.so"
        source.write_text(_CLOCK)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True, capture_output=True
        )
        self._file = folder / "shift"
        self.jump(0)
        self.variables = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(self._file)}

    def jump(self, seconds: int) -> None:
        """Shift the clock to `seconds` from the true time; running processes see it immediately."""
        with self._file.open("r+b" if self._file.exists() else "wb") as stream:
            stream.write(bytes(ctypes.c_long(seconds)))


@dataclass
class Twin:
    """The second process; `folder` holds its settings, its state and its log."""

    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


@contextmanager
def twin(
    platform: RunningPlatform,
    service: str,
    folder: Path,
    *,
    changes: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> Generator[Twin]:
    """Run a service a second time.

    Args:
        platform: the platform of the service.
        service: one of the project's own.
        folder: folder for its files; `changes` may use paths in it.
        changes: settings to change, merged with those of the running service.
        variables: more environment variables.
        before: command line with which the service is started, such as a wrapper.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = json.loads((platform.root.path / "services" / service / "config" / "settings.json").read_text())
    settings["listen"]["port"] = port
    if "state" in settings:
        shutil.copytree(settings["state"], folder / "state", dirs_exist_ok=True)
        settings["state"] = str(folder / "state")
    for key, value in (changes or {}).items():
        settings[key] = {**settings[key], **value} if isinstance(value, Mapping) else value
    (folder / "settings.json").write_text(json.dumps(settings))
    package = service.partition("-")[0]
    module = f"tidemill.runtime.{package}"
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*before, sys.executable, "-m", module, "--settings", str(folder / "settings.json")],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    made = Twin(f"http://127.0.0.1:{port}", folder, process)
    try:
        wait_for(f"the second {service}", lambda: _ready(made), 90, 0.1)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _ready(made: Twin) -> bool:
    assert made.process.poll() is None, f"it ended:\n{made.log[-3000:]}"
    try:
        return httpx.get(f"{made.url}/readyz", timeout=5, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
