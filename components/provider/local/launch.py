"""Starts one process from its spec; runs as a script, isolated, with only the standard library.

    python -I -S launch.py SPEC.json

For a service, the script becomes the process (`execve`). It first ends what is left of the service's previous run:
after `kill -9` of a parent, its workers survive and must not serve next to the new ones. For a job, the script stays,
stops the job at its time limit and records the result, so that the result survives the process that started the job.

The start time tells a process from a later one with the same number. The environment variable
`TIDEMILL_SERVICE=<root>/<name>` tells it from processes that are not the stack's.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MARKER = "TIDEMILL_SERVICE"
TIMED_OUT = -1
"""Exit code of a job which reached its time limit."""

# Variables that a service inherits from the environment in which the platform was started.
_INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "JAVA_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    }
)
_LOOPBACK = "127.0.0.1,localhost"


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of `environment` that services inherit, with the loopback interface exempt from proxies."""
    kept = {key: value for key, value in environment.items() if key in _INHERITED or key.startswith("LC_")}
    if any(key.lower().endswith("_proxy") for key in kept):
        for key in ("NO_PROXY", "no_proxy"):
            hosts = kept.get(key, "")
            if "127.0.0.1" not in hosts:
                kept[key] = f"{hosts},{_LOOPBACK}".lstrip(",")
    return {"PATH": os.defpath, "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1", **kept}


def _stat(pid: int) -> tuple[str, int, str] | None:
    """Return (state, process group, start time) of `pid`, or None if there is no such process."""
    if sys.platform == "linux":
        try:
            # The name, in brackets, may contain spaces and brackets: split after the last bracket.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return fields[0], int(fields[2]), fields[19]
    text = _ps("-o", "state=,pgid=,lstart=", "-p", str(pid)).strip()
    if not text:
        return None
    state, group, start = text.split(None, 2)
    return state[0], int(group), start


def _ps(*options: str) -> str:
    return subprocess.run(["ps", *options], capture_output=True, text=True, check=False).stdout


def _boot() -> str:
    # Start times count from the boot: after a reboot, another process may have the same number and start time.
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def start_mark(pid: int) -> str | None:
    """Return a mark that no other process with the number `pid` has; None if the process is gone."""
    stat = _stat(pid)
    return None if stat is None or stat[0] == "Z" else f"{_boot()}:{stat[2]}"


def marker_of(pid: int) -> str | None:
    """Return the value of `MARKER` in the initial environment of `pid`, or None."""
    try:
        if sys.platform == "linux":
            parts = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        else:
            parts = [os.fsencode(part) for part in _ps("eww", "-o", "command=", "-p", str(pid)).split()]
    except OSError:
        return None
    prefix = f"{MARKER}=".encode()
    return next((os.fsdecode(part[len(prefix) :]) for part in parts if part.startswith(prefix)), None)


def processes() -> list[int]:
    """Return the numbers of all processes."""
    if sys.platform == "linux":
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [int(pid) for pid in _ps("-A", "-o", "pid=").split()]


def members(group: int, marker: str) -> list[int]:
    """Return the living processes of the process group `group` with the marker `marker`, except this one."""
    found: list[int] = []
    for pid in processes():
        stat = _stat(pid)
        if stat and stat[0] != "Z" and stat[1] == group and pid != os.getpid() and marker_of(pid) == marker:
            found.append(pid)
    return found


def end(find: Callable[[], list[int]], patience: float) -> None:
    """Send SIGTERM to the processes that `find` returns, and SIGKILL to those alive after `patience` seconds."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)):
        for pid in find():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        until = time.monotonic() + wait
        while find():
            if time.monotonic() > until:
                break
            time.sleep(0.05)
        else:
            return


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the record of a process, or None if there is no readable one."""
    try:
        record: Any = json.loads(path.read_text(encoding="utf-8"))
        return record if {"pid", "start", "group", "marker"} <= set(record) else None
    except (OSError, ValueError, TypeError):
        return None


def recorded(path: Path) -> list[int]:
    """Return the living processes of the run that `path` records."""
    record = read_record(path)
    return members(int(record["group"]), str(record["marker"])) if record else []


def alive(record: Mapping[str, Any] | None) -> bool:
    """Return whether the recorded process itself lives."""
    return record is not None and start_mark(int(record["pid"])) == record["start"]


def write(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON to `path` atomically, mode 0600."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)
    partial.replace(path)


def private(path: str, flags: int) -> int:
    """Open `path` with mode 0600; an `opener` for `open`."""
    return os.open(path, flags, 0o600)


def command(spec: Path) -> list[str]:
    """Return the command that runs this script on `spec`."""
    return [sys.executable, "-I", "-S", __file__, str(spec)]


def _environment(spec: Mapping[str, Any]) -> dict[str, str]:
    environment = inherited(os.environ) | spec["env"] | {MARKER: spec["marker"]}
    for variable, file in spec["secretEnv"].items():
        environment[variable] = Path(file).read_text(encoding="utf-8").strip()
    return environment


def _become(spec: Mapping[str, Any]) -> None:
    """Replace this process with the command of `spec`."""
    if spec.get("openFiles"):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = int(spec["openFiles"])
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.umask(0o077)
    os.chdir(spec["cwd"])
    os.execvpe(spec["argv"][0], spec["argv"], _environment(spec))  # noqa: S606 - the purpose of this script


def _start(spec: Mapping[str, Any]) -> None:
    """Become the command, or print one sentence with the reason and exit."""
    try:
        _become(spec)
    except OSError as error:
        print(f"cannot start {spec['argv'][0]}: {error.strerror}: {error.filename}", file=sys.stderr)  # noqa: T201 - goes to the service's log
        sys.exit(127)


class _Ended(Exception):  # noqa: N818 - control flow of this script
    pass


def _run_job(spec: Mapping[str, Any]) -> int:
    """Run the command to its end and return its exit code."""

    def stop(number: int, frame: object) -> None:
        del frame
        raise _Ended(number)

    child = os.fork()
    if child == 0:
        _start(spec)
    code = 0
    try:
        for number in (signal.SIGALRM, signal.SIGTERM):
            signal.signal(number, stop)
        signal.setitimer(signal.ITIMER_REAL, float(spec["timeout"]))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except _Ended as reason:
        code = TIMED_OUT if reason.args[0] == signal.SIGALRM else 128 + signal.SIGTERM
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end(lambda: members(os.getpgrp(), spec["marker"]), spec["stopSeconds"])
    return code


def main(path: Path) -> int:
    """Start the process of the spec at `path`; return only after a job, or when the process cannot be started."""
    spec: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    record = Path(spec["record"])
    end(lambda: recorded(record), min(float(spec["stopSeconds"]), 10.0))
    me = os.getpid()
    write(record, {"pid": me, "start": start_mark(me), "group": os.getpgrp(), "marker": spec["marker"]})
    if not spec.get("done"):
        _start(spec)
    code = _run_job(spec)
    write(Path(spec["done"]), {"digest": spec["digest"], "exit_code": code})
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
