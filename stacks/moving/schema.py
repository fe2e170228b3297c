"""Makes MLflow's tables, at the schema of the MLflow which is installed.

    make_tables("postgresql://...", TRACKING)

MLflow configures logging, warns and takes seconds to import, so it has a process of its own; a URL may hold a password,
so it comes through a pipe. The functions are MLflow's private ones, which its server calls when it starts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tidemill.runtime.errors import PlatformError

__all__ = ["ACCOUNTS", "TRACKING", "make_tables", "revisions"]

TRACKING = "mlflow"
ACCOUNTS = "mlflow-accounts"
_SECONDS = 600.0


def make_tables(url: str, kind: str) -> None:
    """Make the tables of `kind` in the database at `url`.

    Raises:
        PlatformError: MLflow could not.
    """
    _ask({"do": "make", "url": url, "kind": kind})


def revisions() -> dict[str, str]:
    """Return the schemas which `make_tables` makes: kind -> revision.

    Raises:
        PlatformError: MLflow does not say.
    """
    return _ask({"do": "tell"})


def _ask(question: dict[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", __name__],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else "no reason given"
        raise PlatformError(f"MLflow failed at its tables ({reason})", field=question.get("kind", "mlflow"))
    return json.loads(done.stdout.splitlines()[-1])


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


def _tell() -> dict[str, str]:
    from alembic.script import ScriptDirectory
    from mlflow.server.auth.db import utils as accounts
    from mlflow.store.db import utils as tracking

    configs = {
        TRACKING: tracking._get_alembic_config("sqlite://"),  # pyright: ignore[reportPrivateUsage]
        ACCOUNTS: accounts._get_alembic_config("sqlite://"),  # pyright: ignore[reportPrivateUsage]
    }
    return {kind: str(ScriptDirectory.from_config(config).get_current_head()) for kind, config in configs.items()}


def _main() -> None:
    asked: dict[str, str] = json.load(sys.stdin)
    answer = _tell() if asked["do"] == "tell" else _make(asked["url"], asked["kind"])
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    _main()
