"""Downloads one version: `python -m tidemill.runtime.serving.versions.fetch`, with a JSON request on standard input.

{"registry": {...}, "model": "flights", "version": "3", "run_id": "...", "destination": "/cache/.download-x"}

Writes to `destination`: `model/`, `run.json` with the metrics of the run, and the reference sample if there is one.
On failure, the last line of standard error is the reason. The exit code is 1 if the artifacts do not exist, and 3 if a
later attempt may succeed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Run the command; return its exit code."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    request: dict[str, Any] = json.load(sys.stdin)
    from mlflow.exceptions import MlflowException

    from ...common.errors import TidemillError

    try:
        _fetch(request)
    except Exception as error:  # noqa: BLE001 - the client of an artifact store may raise anything
        expected = isinstance(error, (MlflowException, TidemillError, OSError))
        kind = "" if expected else f"{type(error).__name__}: "
        sys.stderr.write(f"{kind}{(str(error).splitlines() or [type(error).__name__])[0]}\n")
        return 1 if _is_missing(error) else 3
    return 0


def _is_missing(error: Exception) -> bool:
    """Return whether the artifact store answered that the artifacts do not exist."""
    code = getattr(error, "error_code", None)
    status = getattr(getattr(error, "response", None), "status_code", None)
    # MLflow raises a plain OSError for a folder that does not exist.
    return (
        code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")
        or status == 404
        or isinstance(error, FileNotFoundError)
        or (isinstance(error, OSError) and str(error).startswith("No such file or directory"))
    )


def _fetch(request: dict[str, Any]) -> None:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    from ...common.settings import RegistrySettings
    from ...registry import connect
    from ...training import SAMPLE_ARTIFACT

    client = connect(RegistrySettings.model_validate(request["registry"]))
    destination = Path(request["destination"])
    mlflow.artifacts.download_artifacts(
        artifact_uri=f"models:/{request['model']}/{request['version']}", dst_path=str(destination / "model")
    )
    metrics: dict[str, float] = {}
    if run_id := request["run_id"]:
        try:
            metrics = dict(client.get_run(run_id).data.metrics)
            artifacts = client.list_artifacts(run_id, str(Path(SAMPLE_ARTIFACT).parent))
            if any(item.path == SAMPLE_ARTIFACT for item in artifacts):
                sample = client.download_artifacts(run_id, SAMPLE_ARTIFACT, str(destination))
                Path(sample).replace(destination / Path(SAMPLE_ARTIFACT).name)
        except MlflowException as error:
            # The run may be deleted or not readable for the server; the model can still serve.
            sys.stderr.write(f"metrics and sample of the run are unavailable: {str(error).splitlines()[0]}\n")
    (destination / "run.json").write_text(json.dumps({"metrics": metrics}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
