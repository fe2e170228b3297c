"""Projects which `tidemill init` makes from the wheel, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support.tree import ROOT, build_wheel, run_uv, uv

AWS = ("--region", "eu-central-1", "--domain", "ml.example.org", "--zone", "Z123")


class Clean:
    """An environment with the wheel in it.

    Args:
        folder: where it is made.
        wheel: the wheel; built when None.
        extras: extras of tidemill which are installed, at the locked versions. None lends it all that the environment
            of the tests has, tidemill excepted: nothing is installed, and a type checker finds everything.
    """

    def __init__(self, folder: Path, *, wheel: Path | None = None, extras: tuple[str, ...] | None = None) -> None:
        self.path = folder / "venv"
        self.wheel = wheel or build_wheel(folder)
        python = str(self.path / "bin" / "python")
        run_uv("venv", "--quiet", "--python", sys.executable, str(self.path), cwd=folder)
        if extras is not None:
            chosen = [word for extra in extras for word in ("--extra", extra)]
            words = (
                "export",
                "--frozen",
                "--quiet",
                "--no-default-groups",
                "--no-emit-project",
                "--project",
                str(ROOT),
            )
            (folder / "locked.txt").write_text(run_uv(*words, *chosen, cwd=folder))
            run_uv("pip", "install", "--quiet", "--python", python, "--no-deps", "-r", "locked.txt", cwd=folder)
        run_uv("pip", "install", "--quiet", "--python", python, "--no-deps", str(self.wheel), cwd=folder)
        if extras is None:
            (site,) = self.path.glob("lib/*/site-packages")
            # A folder which a .pth names has no .pth of its own: the editable tidemill there is not seen.
            (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def environment(self, **extra: str) -> dict[str, str]:
        """Return this process's environment without what would lead elsewhere, with uv on PATH."""
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("TIDEMILL_", "PULUMI_", "PYTHON")) and key not in {"VIRTUAL_ENV", "UV_FROZEN"}
        }
        kept |= {key: os.environ[key] for key in ("TIDEMILL_CACHE",) if key in os.environ}
        path = [str(Path(uv()).parent), kept.get("PATH", "")]
        return {**kept, "PATH": os.pathsep.join(path), "NO_COLOR": "1", **extra}

    def run(self, *argv: str, cwd: Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a command: one of the environment where that has it, else one of PATH."""
        own = self.path / "bin" / argv[0]
        return subprocess.run(
            [str(own) if own.exists() else argv[0], *argv[1:]],
            cwd=cwd,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    def check(self, *argv: str, cwd: Path, timeout: float = 600) -> str:
        """Run a command, which must succeed, and return its standard output."""
        done = self.run(*argv, cwd=cwd, timeout=timeout)
        assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout
