"""Closed-loop load by wrk: each connection asks again as soon as it has its answer."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tidemill.components.tools import cache_folder

from tests.benchmarks.serving.contestants import Served

_SCRIPT = """\
local requests = {}
function init(args)
  for line in io.lines(args[1]) do
    local key, value = line:match("^([^:]+): (.*)$")
    wrk.headers[key] = value
  end
  local file = io.open(args[2], "rb")
  while true do
    local size = file:read("*n")
    if not size then break end
    file:read(1)
    requests[#requests + 1] = wrk.format("POST", nil, nil, file:read(size))
  end
  file:close()
end
local turn = 0
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\\n@{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "longest": %d, "broken": %d, "refused": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status))
end
"""


@dataclass(frozen=True)
class Closed:
    """What wrk saw: good answers, those a second, latencies in ms, and how many requests failed."""

    answered: int
    rate: float
    p50: float
    p99: float
    longest: float
    broken: int
    refused: int

    @property
    def failed(self) -> int:
        return self.broken + self.refused


@functools.cache
def program() -> str:
    """Return wrk: from PATH, or from Debian's package, installed where we are root and unpacked into the cache else."""
    if found := shutil.which("wrk"):
        return found
    base = cache_folder() / "benchmarks"
    unpacked = base / "wrk" / "usr" / "bin" / "wrk"
    base.mkdir(parents=True, exist_ok=True)
    with FileLock(base / "wrk.lock"):
        if unpacked.exists():
            return str(unpacked)
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "wrk"], check=True)
            if found := shutil.which("wrk"):
                return found
        with tempfile.TemporaryDirectory(dir=base) as work:
            # Without its scripts wrk needs nothing but LuaJIT and OpenSSL, which hold its own package's names.
            subprocess.run(["apt-get", "download", "-qq", "wrk"], cwd=work, check=True)
            (package,) = Path(work).glob("wrk_*.deb")
            subprocess.run(["dpkg-deb", "-x", package, Path(work, "wrk")], check=True)
            Path(work, "wrk").rename(base / "wrk")
    return str(unpacked)


def load(served: Served, bodies: Sequence[bytes], *, connections: int, seconds: float) -> Closed:
    """Load a server for some seconds, sending `bodies` in turn."""
    with tempfile.TemporaryDirectory() as folder:
        script, heads, data = Path(folder, "load.lua"), Path(folder, "heads"), Path(folder, "bodies")
        script.write_text(_SCRIPT)
        heads.write_text("".join(f"{key}: {value}\n" for key, value in served.headers.items()))
        with data.open("wb") as file:
            for body in bodies:
                file.write(b"%d\n" % len(body) + body)
        argv = [
            program(), "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:g}s",
            "--timeout", "30s", "--latency", "--script", str(script),
            served.server.url + served.path, "--", str(heads), str(data),
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    marked = [line for line in done.stdout.splitlines() if line.startswith("@")]
    if done.returncode or not marked:
        raise RuntimeError(f"wrk failed against {served.name}:\n{done.stdout}{done.stderr}")
    seen = json.loads(marked[-1][1:])
    answered = seen["requests"] - seen["refused"]
    return Closed(
        answered=answered,
        rate=answered / (seen["microseconds"] / 1e6),
        p50=seen["p50"] / 1e3,
        p99=seen["p99"] / 1e3,
        longest=seen["longest"] / 1e3,
        broken=seen["broken"],
        refused=seen["refused"],
    )
