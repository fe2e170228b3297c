"""`python -m tidemill.runtime.serving --settings FILE`: serve a model until SIGTERM."""

from __future__ import annotations

import os
import sys

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
    from tidemill.runtime import service
    from tidemill.runtime.serving.app import create_app
    from tidemill.runtime.serving.settings import ServingSettings

    # The capture is written after the last answer.
    return service.main("serving", "Serve a model of the registry.", ServingSettings, create_app, grace=6, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
