"""The engine's command, run in its own process group, so that Ctrl-C interrupts it gracefully."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from pulumi.automation import CommandResult, PulumiCommand
from pulumi.automation.errors import create_command_error


class EngineCommand(PulumiCommand):
    """Runs `executable`, whose version the Automation API checks.

    Ctrl-C reaches only this process. The first asks the engine to finish running operations, the second makes it stop
    immediately. In the same process group, the engine would also get the terminal's signal: two signals for one key.

    Args:
        executable: the engine.
        note: receives a message about an interrupt.
    """

    interrupted: bool = False

    def __init__(self, executable: Path, note: Callable[[str], None]) -> None:
        os.environ["PATH"] = os.pathsep.join([str(executable.parent), os.environ.get("PATH", os.defpath)])
        super().__init__()
        self.command = str(executable)
        self._note = note

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> CommandResult:
        """Run the engine with `args` in `cwd`; see `PulumiCommand.run`."""
        argv = [self.command, *args]
        if "--non-interactive" not in args:
            argv.insert(1, "--non-interactive")
        environment = {**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"}
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        output: list[str] = []
        errors: list[str] = []
        readers = [
            threading.Thread(target=_drain, args=(process.stdout, output, on_output), daemon=True),
            threading.Thread(target=_drain, args=(process.stderr, errors, on_error), daemon=True),
        ]
        for reader in readers:
            reader.start()
        code = self._wait(process)
        for reader in readers:
            reader.join(5)  # a child of the engine may keep the pipe open
        result = CommandResult("\n".join(output), "\n".join(errors), code)
        if code != 0:
            raise create_command_error(result)
        return result

    def _wait(self, process: subprocess.Popen[str]) -> int:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                self.interrupted = True
                self._note("interrupted: finishing running operations; press Ctrl-C again to stop immediately")
                process.send_signal(signal.SIGINT)


def _drain(stream: IO[str], lines: list[str], callback: Callable[[str], Any] | None) -> None:
    with stream:
        for line in stream:
            lines.append(line.rstrip())
            if callback:
                callback(line.rstrip())
