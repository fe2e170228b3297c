"""Runs jobs in the runner: a service in a separate container that runs only the configured trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from ...common.errors import ServiceError
from ...common.http import json_body, open_client, server_message, unreachable
from ...common.secrets import read_secret
from .launcher import JobSpec, JobStatus

_TIMEOUT = 30.0
_MODEL = "TIDEMILL_MODEL"


class RunnerLauncher:
    """A `Launcher` that sends its jobs to a runner.

    Args:
        url: URL of the runner.
        token_file: file with the runner's bearer token.
    """

    def __init__(self, url: str, token_file: Path) -> None:
        headers = {"Authorization": f"Bearer {read_secret(token_file)}"}
        self._client = open_client(url, headers=headers, timeout=_TIMEOUT)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def launch(self, spec: JobSpec) -> str:
        """Start the training in the runner, which sets the job's environment itself; see `Launcher.launch`."""
        body = {"model": spec.env.get(_MODEL, ""), "argv": list(spec.argv), "cwd": str(spec.cwd)}
        self._request("PUT", f"/jobs/{spec.id}", json=body)
        return spec.id

    def status(self, job: str) -> JobStatus:
        """Return the state of the job."""
        found = self._request("GET", f"/jobs/{job}")
        return JobStatus(found["state"], found["started"], found["exit_code"])

    def logs(self, job: str, lines: int = 20) -> str:
        """Return the last lines of the job's output."""
        return str(self._request("GET", f"/jobs/{job}/logs", params={"lines": lines})["text"])

    def where(self, job: str) -> str:
        """Return where a person finds the job's output."""
        return f"{job}.log in the runner: `tidemill logs runner`"

    def cancel(self, job: str) -> None:
        """Stop the job and its child processes."""
        self._request("DELETE", f"/jobs/{job}")

    def _request(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise unreachable("runner", str(self._client.base_url), error, server="the runner") from None
        if not answer.is_success:
            message = server_message(json_body(answer), answer.text, "detail")
            raise ServiceError(f"the runner answered {answer.status_code}: {message}", field="runner", value=path)
        return answer.json()
