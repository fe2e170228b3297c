"""Creates the tables of the installed MLflow.

    with MlflowTables() as tables:
        tables.make("sqlite:////tmp/new.db", TRACKING)

MLflow configures logging, prints warnings and takes seconds to import, so it runs in a child process that starts in
parallel. URLs can contain passwords, so they are sent through a pipe. MLflow's server calls the same private functions.
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

TRACKING = "mlflow"
ACCOUNTS = "mlflow-accounts"
_STOP_SECONDS = 10.0
_REASON_BYTES = 2000


class MlflowTables:
    """The child process that imports MLflow; use it with `with`."""

    def __enter__(self) -> Self:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stderr, self._process:
            if error is not None:
                self._process.kill()
            elif self._process.stdin:
                self._process.stdin.close()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def make(self, url: str, kind: str) -> None:
        """Create the tables of `kind` in the empty database at `url`.

        Raises:
            PlatformError: MLflow failed.
        """
        self._request(kind, {"url": url, "kind": kind})

    def revisions(self) -> dict[str, str]:
        """Return the schema revisions of the installed MLflow: kind -> revision.

        Raises:
            PlatformError: MLflow failed.
        """
        return self._request("mlflow", {})

    def _request(self, field: str, request: dict[str, str]) -> Any:
        requests, responses = self._process.stdin, self._process.stdout
        line = ""
        if requests and responses:
            try:
                requests.write(f"{json.dumps(request)}\n")
                requests.flush()
                line = responses.readline()
            except BrokenPipeError:
                pass
        if not line:
            raise PlatformError(f"MLflow could not create its tables ({self._reason()})", field=field)
        return json.loads(line)

    def _reason(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _REASON_BYTES))
        lines = [line for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
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
    # Output of libraries must not mix with the responses.
    with os.fdopen(os.dup(1), "w") as responses:
        os.dup2(2, 1)
        revisions = _revisions()
        for line in sys.stdin:
            request: dict[str, str] = json.loads(line)
            response = _make(request["url"], request["kind"]) if request else revisions
            responses.write(f"{json.dumps(response)}\n")
            responses.flush()


if __name__ == "__main__":
    _main()
