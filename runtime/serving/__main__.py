"""`python -m tidemill.runtime.serving --settings FILE`: serve a model until SIGTERM."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Before anything which brings a thread pool: on a busy machine the pools of many processes cost far more than they
# give (one row of a tree model: 57 ms with the default pool, 1 ms with one thread).
for _pool in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_pool] = "1"
# Nothing phones home; a registry which is down is asked again by the follower, not inside one call.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "1"
os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "15"


def main(argv: list[str] | None = None) -> int:
    """Run the service; return its exit code."""
    from ..errors import TidemillError
    from ..service import run
    from ..settings import load_settings
    from .settings import ServingSettings

    parser = argparse.ArgumentParser(prog="tidemill.runtime.serving", description="Serve a model of the registry.")
    parser.add_argument("--settings", type=Path, required=True, help="JSON file with the settings")
    path: Path = parser.parse_args(argv).settings
    try:
        settings = load_settings(path, ServingSettings)
        from .app import create_app

        app = create_app(settings)
    except TidemillError as error:
        print(error, file=sys.stderr)  # noqa: T201 - not serving yet: this is a command speaking to its user
        return error.exit_code
    # Less than the ten seconds after which a service is killed: the capture is written after the last answer.
    run(app, settings.listen, grace=6)
    return 0


if __name__ == "__main__":
    sys.exit(main())
