"""`python -m tidemill.runtime.serving.versions.fetch`: download one version, as the JSON on standard input says.

{"registry": {...}, "model": "flights", "version": "3", "run_id": "...", "destination": "/cache/.download-x"}

Written below `destination`: `model/`, `run.json` with the metrics of its run, and the reference sample, where there is
one. The last line of standard error says what went wrong.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main() -> int:
    """Do it; return the exit code."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    order: dict[str, Any] = json.load(sys.stdin)
    from mlflow.exceptions import MlflowException

    from ...common.errors import TidemillError

    try:
        _fetch(order)
    except (MlflowException, TidemillError, OSError) as error:
        sys.stderr.write(f"{(str(error).splitlines() or [type(error).__name__])[0]}\n")
        return 1
    return 0


def _fetch(order: dict[str, Any]) -> None:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    from ...common.settings import RegistrySettings
    from ...registry import connect
    from ...training import SAMPLE_ARTIFACT

    client = connect(RegistrySettings.model_validate(order["registry"]))
    destination = Path(order["destination"])
    mlflow.artifacts.download_artifacts(
        artifact_uri=f"models:/{order['model']}/{order['version']}", dst_path=str(destination / "model")
    )
    metrics: dict[str, float] = {}
    if run_id := order["run_id"]:
        try:
            metrics = dict(client.get_run(run_id).data.metrics)
            found = client.list_artifacts(run_id, str(Path(SAMPLE_ARTIFACT).parent))
            if any(item.path == SAMPLE_ARTIFACT for item in found):
                sample = client.download_artifacts(run_id, SAMPLE_ARTIFACT, str(destination))
                Path(sample).replace(destination / Path(SAMPLE_ARTIFACT).name)
        except MlflowException as error:
            # A run may be gone, or closed to who serves; its model can be served all the same.
            sys.stderr.write(f"what its run kept is left out: {str(error).splitlines()[0]}\n")
    (destination / "run.json").write_text(json.dumps({"metrics": metrics}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
