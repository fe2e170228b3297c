"""The environment of its own in which a model runs whose requirements differ from the server's.

    <cache>/@environments/<key>/         a virtual environment; `tidemill.json` in it says of what
    <cache>/@environments/<key>.lock     held while it is built, by uv too, which outlives a process that is killed
    <cache>/@environments/<key>.used     held, shared, by each process which uses it

The key is made of what the model asks for, so versions which ask for the same share one. An environment comes into
being by one rename: nobody sees half of one. Folders of ready ones which are only read, such as those of an image
which `tidemill image` built, are named in TIDEMILL_ENVIRONMENTS.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from ...common.errors import TidemillError
from .requirements import Needs, UnbuildableError, differing, installed_version, lighter, without_credentials

__all__ = [
    "CHECK",
    "FOLDER",
    "Needs",
    "UnbuildableError",
    "child_environment",
    "differing",
    "ensure",
    "find_uv",
    "interpreter",
    "is_usable",
    "key_of",
    "prune",
    "reason_in",
    "requirements_of",
    "using",
]

FOLDER = "@environments"  # no model can have this name
READY_FOLDERS = "TIDEMILL_ENVIRONMENTS"
CHECK = "import pandas, pyarrow, mlflow.pyfunc"
_SCHEMA = 1
_DRAWN = " \t\u2502\u2570\u2500\u25b6\u251c\u00d7"  # the lines and arrows which uv draws before a reason
_UNUSED_SECONDS = 86_400.0
_MEND = "`tidemill image` builds an image which holds it"

# What a process needs of ours to find its way; names of secrets are not among them.
_PLAIN = ("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_REACHING = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME"),
)
# These of uv's own would point it at another environment or project than the one which is built.
_NOT_OF_UV = ("UV_FROZEN", "UV_LOCKED", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV")


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for a process which runs a model's code: none which holds a secret or reaches a server."""
    given = os.environ if environ is None else environ
    kept = {key: value for key, value in given.items() if key in _PLAIN or key.startswith("LC_")}
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
    return {**kept, **{pool: given.get(pool, "1") for pool in pools}, **quiet}


def requirements_of(needs: Needs) -> list[str]:
    """Return the lines of the environment: what the model asks for, and what its host process needs besides.

    Of that, nothing newer than the server's own is taken: that is what it was tried with.
    """
    own = installed_version("mlflow-skinny")
    lines, names = [lighter(line) for line in needs.lines], needs.names
    if not names & {"mlflow", "mlflow-skinny"}:
        wrote = needs.mlflow
        older = wrote is not None and own is not None and wrote.partition(".")[0] == own.partition(".")[0]
        pin = f">={wrote},<={own}" if older and _not_newer(wrote, own) else f"=={wrote or own}"
        lines.append(f"mlflow-skinny{pin}")
    further = ["pandas", "pyarrow", *(["skops"] if needs.skops else [])]
    lines += [f"{name}<={installed_version(name)}" for name in further if name not in names]
    return lines


def _not_newer(wrote: str | None, own: str | None) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return wrote is not None and own is not None and Version(wrote) <= Version(own)
    except InvalidVersion:
        return False


def key_of(needs: Needs) -> str:
    """Return the name of the environment in which a model with these `needs` runs."""
    digest = hashlib.sha256()
    python = needs.python or _own_python()
    parts = [str(_SCHEMA), python, sys.platform, platform.machine(), *requirements_of(needs), "-c", *needs.constraints]
    for path in needs.files:
        # By content: the folder of a model has another place in each cache.
        parts = [part.replace(path.as_posix(), path.name) for part in parts]
    digest.update(json.dumps(parts).encode())
    for path in needs.files:
        digest.update(path.read_bytes())
    return f"py{python}-{digest.hexdigest()[:24]}"


def ensure(model_folder: Path, cache: Path, *, seconds: float, lock: Path | None = None) -> Path:
    """Return the environment for the model in `model_folder`, built unless it is there.

    Args:
        model_folder: the model, as MLflow saved it.
        cache: folder of the model server's cache, the same for all models.
        seconds: time it may take, waiting for another process which builds the same one included.
        lock: a requirements file with hashes to install instead of resolving the requirements now.

    Raises:
        UnbuildableError: it cannot be had.
    """
    until = time.monotonic() + seconds
    needs = Needs.of(model_folder)
    try:
        key = key_of(needs)
    except OSError as error:
        raise UnbuildableError(
            f"it names a file which cannot be read ({error.strerror})", field="requirements.txt"
        ) from None
    for ready in filter(None, os.environ.get(READY_FOLDERS, "").split(os.pathsep)):
        if is_usable(Path(ready) / key):
            return Path(ready) / key
    root = cache.absolute() / FOLDER
    final = root / key
    try:
        if not is_usable(final):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _alone(root / f"{key}.lock", until, seconds) as held:
                if not is_usable(final):
                    _build(needs, final, until, lock, held)
        with contextlib.suppress(OSError):  # in a cache which is only read nobody removes it
            os.utime(final)
    except OSError as error:
        raise UnbuildableError(
            f"its environment cannot be built: {error.strerror or error}",
            field="cache",
            value=str(error.filename or root),
            hint=_MEND,
        ) from None
    prune(cache)
    return final


def is_usable(folder: Path) -> bool:
    """Tell whether `folder` is a whole environment."""
    # The link to the interpreter leads nowhere once the server's Python was moved.
    return (folder / "tidemill.json").is_file() and os.access(_python_of(folder), os.X_OK)


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


@contextmanager
def _alone(path: Path, until: float, seconds: float) -> Generator[int]:
    """Hold `path` until the context ends, and as long after as a process lives which inherited its descriptor.

    Raises:
        UnbuildableError: another holds it at `until` still, after `seconds`.
    """
    with path.open("ab") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise UnbuildableError(f"another process did not finish building it in {seconds:.0f} s") from None
                time.sleep(0.05)
        yield held.fileno()


def _build(needs: Needs, final: Path, until: float, lock: Path | None, held: int) -> None:
    for left in final.parent.glob(f".{final.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    uv = find_uv()
    # Beside the final place, so that it gets there by a rename.
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        venv, python = work / "venv", needs.python or _own_python()
        wanted = requirements_of(needs)
        (work / "requirements.txt").write_text("\n".join(wanted) + "\n", encoding="utf-8")
        (work / "constraints.txt").write_text("\n".join(needs.constraints) + "\n", encoding="utf-8")
        environ = _environment_of_uv(work.parent)
        _run([*uv, "venv", "--relocatable", "--python", interpreter(python), str(venv)], work, environ, until, held)
        resolved = ["-r", str(lock.absolute()), "--require-hashes"] if lock else []
        what = resolved or ["-r", "requirements.txt", "-c", "constraints.txt"]
        _run([*uv, "pip", "install", "--python", str(_python_of(venv)), *what], work, environ, until, held)
        _run([str(_python_of(venv)), "-I", "-c", CHECK], work, child_environment(), until, held)
        described = {"python": python, "requirements": [without_credentials(line) for line in wanted]}
        (venv / "tidemill.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        venv.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def find_uv() -> list[str]:
    """Return the words which run uv: the one on PATH, the one beside this Python, or its module.

    Raises:
        UnbuildableError: there is none.
    """
    beside = Path(sys.executable).parent / "uv"
    for found in (shutil.which("uv"), str(beside) if os.access(beside, os.X_OK) else None, os.environ.get("UV")):
        if found:
            return [os.path.abspath(found)]  # noqa: PTH100 - it is run elsewhere; a link must stay one
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    raise UnbuildableError(
        "uv, which builds environments, is not here", hint='install it (it comes with "tidemill[serve]")'
    )


def _own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def interpreter(version: str) -> str:
    """Return a Python of `version` (as `3.12`): this one, one on PATH which runs, or the version for uv to get."""
    if version == _own_python():
        return sys.executable
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        candidate = Path(folder) / f"python{version}"
        if not os.access(candidate, os.X_OK):
            continue
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            code = "import sys; print('%d.%d' % sys.version_info[:2])"
            done = subprocess.run(
                [str(candidate), "-I", "-c", code], capture_output=True, text=True, timeout=20, check=False
            )
            if done.stdout.strip() == version:
                return str(candidate)
    return version


def _environment_of_uv(root: Path) -> dict[str, str]:
    given = os.environ
    kept = {key: value for key, value in given.items() if key in _PLAIN or key in _REACHING or key.startswith("LC_")}
    kept |= {key: value for key, value in given.items() if key.startswith("UV_") and key not in _NOT_OF_UV}
    kept |= {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    home = kept.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    if not os.access(home, os.W_OK):
        kept.setdefault("UV_CACHE_DIR", str(root / ".uv"))
        kept.setdefault("UV_PYTHON_INSTALL_DIR", str(root / ".python"))
    return kept


def _run(argv: list[str], cwd: Path, environ: Mapping[str, str], until: float, held: int) -> None:
    """Run `argv` to its end, or to `until`, with the descriptor `held`; what it started ends with it."""
    with tempfile.TemporaryFile(dir=cwd) as said:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=(held,),
        )
        try:
            code = process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise UnbuildableError("its environment was not built in the time it may take", hint=_MEND) from None
        finally:
            _end(process)
        if code:
            said.seek(0)
            reason = reason_in(said.read().decode("utf-8", "replace"))
            raise UnbuildableError(f"its environment cannot be built: {reason}", hint=_MEND)


def _end(process: subprocess.Popen[bytes]) -> None:
    # Not by a group of its own: whoever ends ours must end these, too.
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def reason_in(said: str) -> str:
    r"""Return what uv, or Python, gives as the reason in the last lines of `said`; no credentials.

    >>> reason_in("error: Failed to fetch: `https://u:p@example.org/`\n  cause: no route\n  cause: refused\n")
    'Failed to fetch: `https://example.org/`: refused'
    """
    lines = [line.strip(_DRAWN) for line in said.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("hint:", "warning:", "help:", "Using "))]
    if not lines:
        return "no reason was given"
    first = next((index for index, line in enumerate(lines) if line.startswith("error:")), len(lines) - 1)
    told = lines[first].removeprefix("error:").strip()
    causes = [line for line in lines[first + 1 :] if line.lower().startswith(("cause:", "caused by:"))]
    if causes:
        told = f"{told}: {causes[-1].partition(':')[2].strip()}"
    elif lines[-1] != lines[first]:
        told = f"{told}: {lines[-1]}"
    return without_credentials(told).rstrip(".")[:600]


def _mark(environment: Path) -> Path:
    return environment.with_name(f"{environment.name}.used")


@contextmanager
def using(environment: Path) -> Generator[None]:
    """Keep `environment` from being removed while the context lasts, or the process does."""
    try:
        held = _mark(environment).open("ab")
    except OSError:
        yield  # in a folder which is only read nobody removes it
        return
    with held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield


def prune(cache: Path, *, unused_seconds: float = _UNUSED_SECONDS) -> list[str]:
    """Remove the environments which no cached version asks for, no process uses, and none asked for lately.

    Returns:
        The keys of what was removed.
    """
    root = cache.absolute() / FOLDER
    wanted: set[str] = set()
    for described in cache.absolute().glob("*/*/model/MLmodel"):
        with contextlib.suppress(UnbuildableError, OSError):
            wanted.add(key_of(Needs.of(described.parent)))
    removed: list[str] = []
    for folder in root.glob("py*-*"):
        with contextlib.suppress(OSError):
            if not folder.is_dir() or folder.name in wanted:
                continue
            if time.time() - folder.stat().st_mtime < unused_seconds:
                continue
            with (mark := _mark(folder)).open("ab") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # First out of sight: a builder or user comes before or after, never between.
                gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=root))
                folder.rename(gone / "venv")
                mark.unlink()
            shutil.rmtree(gone, ignore_errors=True)
            removed.append(folder.name)
    return removed


def main(argv: list[str] | None = None) -> int:
    """Be the command which fills an image: build the environment of a model where one is needed, and say which."""
    parser = argparse.ArgumentParser(prog="tidemill.runtime.serving.isolation.environment", description=main.__doc__)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("cache", type=Path, help="folder in which the environments are kept")
    parser.add_argument("--seconds", type=float, default=1800.0, help="time it may take")
    parser.add_argument("--lock", type=Path, help="requirements file with hashes to install from")
    given = parser.parse_args(argv)
    try:
        reasons = differing(given.model)
        built = str(ensure(given.model, given.cache, seconds=given.seconds, lock=given.lock)) if reasons else None
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps({"environment": built, "differing": reasons}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
