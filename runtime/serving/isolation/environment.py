"""Builds the environments of models whose requirements differ from the server's.

    <cache>/@environments/<key>/         a virtual environment; its `tidemill.json` lists the requirements
    <cache>/@environments/<key>.lock     locked during a build, also by uv, which survives when its parent is killed
    <cache>/@environments/<key>.used     locked (shared) by each process that uses the environment

Only wheels from the index that uv is configured with are installed, so a build runs no code that the model provides.

The key is a digest of the requirements, so versions with the same requirements share an environment. A rename makes a
complete environment appear at once. TIDEMILL_ENVIRONMENTS names read-only folders of ready environments, such as those
in an image that `tidemill image` built.
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
from .requirements import (
    ModelRequirements,
    UnbuildableError,
    distribution_name,
    installed_version,
    named_requirements,
    unmet_requirements,
    with_light_mlflow,
    without_credentials,
)

FOLDER = "@environments"  # no model can have this name
READY_FOLDERS = "TIDEMILL_ENVIRONMENTS"
CHECK = "import pandas, pyarrow, mlflow.pyfunc"
_SCHEMA = 1
_ORNAMENTS = " \t\u2502\u2570\u2500\u25b6\u251c\u00d7"  # the lines and arrows that uv draws before a reason
_UNUSED_SECONDS = 86_400.0
_HINT = "build an image that contains it with `tidemill image`"

# Variables that a model's process inherits; none of them is a secret.
_INHERITED = ("PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "SYSTEMROOT")
_NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NETRC"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME"),
)
# These would point uv at another environment or project.
_DROPPED_UV = ("UV_FROZEN", "UV_LOCKED", "UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV")


def child_environment(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for a process that runs a model's code: no secrets, no server addresses."""
    given = os.environ if environ is None else environ
    kept = {key: value for key, value in given.items() if key in _INHERITED or key.startswith("LC_")}
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_LOGGING_LEVEL": "WARNING"}
    return {**kept, **{pool: given.get(pool, "1") for pool in pools}, **quiet}


def building_environment() -> dict[str, str]:
    """Return the variables for a process that also builds environments: with those of uv, which can be secrets."""
    given = os.environ
    kept = {key: value for key, value in given.items() if key in (*_NETWORK, "PYTHONPATH", READY_FOLDERS)}
    kept |= {key: value for key, value in given.items() if key.startswith("UV_")}
    return {**child_environment(), **kept}


def environment_requirements(needs: ModelRequirements) -> list[str]:
    """Return the environment's requirements: those of the model, of its host process, and its build tools.

    The host's packages are at most as new as the server's own, because those versions are tested.
    """
    own = installed_version("mlflow-skinny")
    lines, names = [with_light_mlflow(line) for line in needs.lines], needs.names
    if not names & {"mlflow", "mlflow-skinny"}:
        wrote = needs.mlflow
        older = wrote is not None and own is not None and wrote.partition(".")[0] == own.partition(".")[0]
        pin = f">={wrote},<={own}" if older and _not_newer(wrote, own) else f"=={wrote or own}"
        lines.append(f"mlflow-skinny{pin}")
    host = ["pandas", "pyarrow", *(["skops"] if needs.skops else [])]
    lines += [f"{name}<={installed_version(name)}" for name in host if name not in names]
    return lines + [line for line in needs.build if distribution_name(line) not in names]


def _not_newer(wrote: str | None, own: str | None) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return wrote is not None and own is not None and Version(wrote) <= Version(own)
    except InvalidVersion:
        return False


def environment_key(needs: ModelRequirements) -> str:
    """Return the name of the environment for a model with these requirements."""
    digest = hashlib.sha256()
    python = needs.python or _own_python()
    parts = [
        str(_SCHEMA),
        python,
        sys.platform,
        platform.machine(),
        *environment_requirements(needs),
        "-c",
        *needs.constraints,
    ]
    digest.update(json.dumps(parts).encode())
    return f"py{python}-{digest.hexdigest()[:24]}"


def ensure_environment(model_folder: Path, cache: Path, *, seconds: float, lock: Path | None = None) -> Path:
    """Return the environment for the model in `model_folder`; build it if it is missing.

    Args:
        model_folder: of the model, as MLflow saved it.
        cache: folder of the model server's cache, the same for all models.
        seconds: time limit, including the wait for another process that builds the same environment.
        lock: a requirements file with hashes to install, instead of resolving the requirements now.

    Raises:
        UnbuildableError: the environment cannot be built.
    """
    until = time.monotonic() + seconds
    needs = ModelRequirements.of(model_folder)
    key = environment_key(needs)
    for ready in filter(None, os.environ.get(READY_FOLDERS, "").split(os.pathsep)):
        if is_usable(Path(ready) / key):
            return Path(ready) / key
    root = cache.absolute() / FOLDER
    final = root / key
    try:
        if not is_usable(final):
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            with _build_lock(root / f"{key}.lock", until, seconds) as held:
                if not is_usable(final):
                    _build(needs, final, until, lock, held)
        with contextlib.suppress(OSError):  # nothing removes it from a read-only cache
            os.utime(final)
    except OSError as error:
        raise UnbuildableError(
            f"its environment cannot be built: {error.strerror or error}",
            field="cache",
            value=str(error.filename or root),
            hint=_HINT,
        ) from None
    prune(cache)
    return final


def is_usable(folder: Path) -> bool:
    """Tell whether `folder` is a complete environment."""
    # The link to the interpreter breaks when the server's Python is moved.
    return (folder / "tidemill.json").is_file() and os.access(_python_of(folder), os.X_OK)


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


@contextmanager
def _build_lock(path: Path, until: float, seconds: float) -> Generator[int]:
    """Lock `path` until the context ends and all processes that inherited the descriptor have ended.

    Raises:
        UnbuildableError: another process still holds the lock at `until`, after `seconds`.
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


def _build(needs: ModelRequirements, final: Path, until: float, lock: Path | None, held: int) -> None:
    for left in final.parent.glob(f".{final.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    uv = find_uv()
    # In the final folder's parent, so that a rename moves it.
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        venv, python = work / "venv", needs.python or _own_python()
        requirements = named_requirements(environment_requirements(needs))
        constraints = named_requirements(needs.constraints)
        (work / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        (work / "constraints.txt").write_text("\n".join(constraints) + "\n", encoding="utf-8")
        environ = _environment_of_uv(work.parent)
        _run([*uv, "venv", "--relocatable", "--python", find_python(python), str(venv)], work, environ, until, held)
        locked = ["-r", str(lock.absolute()), "--require-hashes"] if lock else []
        files = locked or ["-r", "requirements.txt", "-c", "constraints.txt"]
        # Wheels only: to build a source archive, uv would run code from it.
        install = ["pip", "install", "--no-build", "--python", str(_python_of(venv))]
        _run([*uv, *install, *files], work, environ, until, held)
        _run([str(_python_of(venv)), "-I", "-c", CHECK], work, child_environment(), until, held)
        record = {"python": python, "requirements": requirements}
        (venv / "tidemill.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        venv.rename(final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def find_uv() -> list[str]:
    """Return the command for uv: on PATH, next to this Python, or as its module.

    Raises:
        UnbuildableError: uv is not installed.
    """
    sibling = Path(sys.executable).parent / "uv"
    for found in (shutil.which("uv"), str(sibling) if os.access(sibling, os.X_OK) else None, os.environ.get("UV")):
        if found:
            return [os.path.abspath(found)]  # noqa: PTH100 - it runs in another folder; a link must stay a link
    if importlib.util.find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    raise UnbuildableError(
        "uv, which builds environments, is not installed", hint='install "tidemill[serve]", which includes it'
    )


def _own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def find_python(version: str) -> str:
    """Return a Python of `version`, such as `3.12`: this one, a working one on PATH, or the version for uv to get."""
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
    kept = {key: value for key, value in given.items() if key in _INHERITED or key in _NETWORK or key.startswith("LC_")}
    kept |= {key: value for key, value in given.items() if key.startswith("UV_") and key not in _DROPPED_UV}
    kept |= {"NO_COLOR": "1", "UV_NO_PROGRESS": "1"}
    home = kept.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    if not os.access(home, os.W_OK):
        kept.setdefault("UV_CACHE_DIR", str(root / ".uv"))
        kept.setdefault("UV_PYTHON_INSTALL_DIR", str(root / ".python"))
    return kept


def _run(argv: list[str], cwd: Path, environ: Mapping[str, str], until: float, held: int) -> None:
    """Run `argv` until it ends or `until`, with the descriptor `held`; then kill all that it started."""
    with tempfile.TemporaryFile(dir=cwd) as errors:
        process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(held,),
        )
        try:
            code = process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise UnbuildableError("its environment was not built within the time limit", hint=_HINT) from None
        finally:
            _end(process)
        if code:
            errors.seek(0)
            reason = failure_reason(errors.read().decode("utf-8", "replace"))
            raise UnbuildableError(f"its environment cannot be built: {reason}", hint=_HINT)


def _end(process: subprocess.Popen[bytes]) -> None:
    # No process group of its own: a signal to our group must reach these processes too.
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
    process.kill()
    process.wait()


def failure_reason(output: str) -> str:
    r"""Return the reason of a failure from the output of uv or Python, without credentials.

    >>> failure_reason("error: Failed to fetch: `https://u:p@example.org/`\n  cause: no route\n  cause: refused\n")
    'Failed to fetch: `https://example.org/`: refused'
    """
    lines = [line.strip(_ORNAMENTS) for line in output.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("hint:", "warning:", "help:", "Using "))]
    if not lines:
        return "no reason was given"
    first = next((index for index, line in enumerate(lines) if line.startswith("error:")), len(lines) - 1)
    reason = lines[first].removeprefix("error:").strip()
    causes = [line for line in lines[first + 1 :] if line.lower().startswith(("cause:", "caused by:"))]
    if causes:
        reason = f"{reason}: {causes[-1].partition(':')[2].strip()}"
    elif lines[-1] != lines[first]:
        reason = f"{reason}: {lines[-1]}"
    return without_credentials(reason).rstrip(".")[:600]


def _use_mark(environment: Path) -> Path:
    return environment.with_name(f"{environment.name}.used")


@contextmanager
def environment_in_use(environment: Path) -> Generator[None]:
    """Protect `environment` from removal until the context or the process ends."""
    try:
        held = _use_mark(environment).open("ab")
    except OSError:
        yield  # nothing removes it from a read-only folder
        return
    with held:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield


def prune(cache: Path, *, unused_seconds: float = _UNUSED_SECONDS) -> list[str]:
    """Remove environments that no cached version needs, no process uses, and nothing has needed for `unused_seconds`.

    Returns:
        The keys of the removed environments.
    """
    root = cache.absolute() / FOLDER
    needed: set[str] = set()
    for mlmodel in cache.absolute().glob("*/*/model/MLmodel"):
        with contextlib.suppress(UnbuildableError, OSError):
            needed.add(environment_key(ModelRequirements.of(mlmodel.parent)))
    removed: list[str] = []
    for folder in root.glob("py*-*"):
        with contextlib.suppress(OSError):
            if not folder.is_dir() or folder.name in needed:
                continue
            if time.time() - folder.stat().st_mtime < unused_seconds:
                continue
            with (mark := _use_mark(folder)).open("ab") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Rename it first: another process sees the whole environment or none.
                gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=root))
                folder.rename(gone / "venv")
                mark.unlink()
            shutil.rmtree(gone, ignore_errors=True)
            removed.append(folder.name)
    return removed


def main(argv: list[str] | None = None) -> int:
    """Build a model's own environment, if it needs one, and print its path and the reasons as JSON."""
    parser = argparse.ArgumentParser(prog="tidemill.runtime.serving.isolation.environment", description=main.__doc__)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("cache", type=Path, help="folder for the environments")
    parser.add_argument("--seconds", type=float, default=1800.0, help="time limit")
    parser.add_argument("--lock", type=Path, help="requirements file with hashes to install")
    given = parser.parse_args(argv)
    try:
        reasons = unmet_requirements(given.model)
        built = (
            str(ensure_environment(given.model, given.cache, seconds=given.seconds, lock=given.lock))
            if reasons
            else None
        )
    except TidemillError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(json.dumps({"environment": built, "differing": reasons}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
