"""MLflow's tables, at the schema of the MLflow which is installed.

    with Tables() as tables:
        tables.make("sqlite:////tmp/new.db", TRACKING)

MLflow configures logging, warns and takes seconds to import, so it has a process of its own, which starts while other
things are done. A URL may hold a password, so it comes through a pipe. The functions are MLflow's private ones, which
its server calls when it starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from types import TracebackType
from typing import Any, Self

from ...runtime.common.errors import PlatformError

__all__ = ["ACCOUNTS", "TRACKING", "Tables"]

TRACKING = "mlflow"
ACCOUNTS = "mlflow-accounts"
_STOP_SECONDS = 10.0
_REASON_BYTES = 2000


class Tables:
    """The process which knows MLflow's tables; used with `with`."""

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._said, self._process:
            if error is not None:
                self._process.kill()
            elif self._process.stdin:
                self._process.stdin.close()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def make(self, url: str, kind: str) -> None:
        """Make the tables of `kind` in the empty database at `url`.

        Raises:
            PlatformError: MLflow could not.
        """
        self._ask(kind, {"url": url, "kind": kind})

    def revisions(self) -> dict[str, str]:
        """Return the schemas which `make` makes: kind -> revision.

        Raises:
            PlatformError: MLflow does not say.
        """
        return self._ask("mlflow", {})

    def _ask(self, what: str, question: dict[str, str]) -> Any:
        pipe, answers = self._process.stdin, self._process.stdout
        line = ""
        if pipe and answers:
            try:
                pipe.write(f"{json.dumps(question)}\n")
                pipe.flush()
                line = answers.readline()
            except BrokenPipeError:
                pass
        if not line:
            raise PlatformError(f"MLflow failed at its tables ({self._reason()})", field=what)
        return json.loads(line)

    def _reason(self) -> str:
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - _REASON_BYTES))
        lines = [line for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "no reason given"


def _make(url: str, kind: str) -> None:
    import sqlalchemy

    engine = sqlalchemy.create_engine(url)
    if kind == TRACKING:
        from mlflow.store.db import utils

        utils._initialize_tables(engine)  # pyright: ignore[reportPrivateUsage]
    else:
        from mlflow.server.auth.db.utils import migrate

        migrate(engine, "head")
    engine.dispose()


def _revisions() -> dict[str, str]:
    from alembic.script import ScriptDirectory
    from mlflow.server.auth.db import utils as accounts
    from mlflow.store.db import utils as tracking

    configs = {
        TRACKING: tracking._get_alembic_config("sqlite://"),  # pyright: ignore[reportPrivateUsage]
        ACCOUNTS: accounts._get_alembic_config("sqlite://"),  # pyright: ignore[reportPrivateUsage]
    }
    return {kind: str(ScriptDirectory.from_config(config).get_current_head()) for kind, config in configs.items()}


def _main() -> None:
    # What libraries print must not come between the answers.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        found = _revisions()
        for line in sys.stdin:
            asked: dict[str, str] = json.loads(line)
            answer = _make(asked["url"], asked["kind"]) if asked else found
            answers.write(f"{json.dumps(answer)}\n")
            answers.flush()


if __name__ == "__main__":
    _main()
