"""Jobs in the runner: a service in a container of its own, which runs the trainings it was told of and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from ...common.errors import ServiceError, UnreachableError
from ...common.secrets import is_loopback, read_secret
from .launcher import JobSpec, JobStatus

__all__ = ["RunnerLauncher"]

_TIMEOUT = 30.0
_MODEL = "TIDEMILL_MODEL"


class RunnerLauncher:
    """A `Launcher` which asks a runner.

    Args:
        url: where the runner answers.
        token_file: file with the token it asks for.
    """

    def __init__(self, url: str, token_file: Path) -> None:
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {read_secret(token_file)}"},
            timeout=_TIMEOUT,
            trust_env=not is_loopback(url),
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def launch(self, spec: JobSpec) -> str:
        """Have the runner start the training; see `Launcher.launch`. It makes the job's environment itself."""
        body = {"model": spec.env.get(_MODEL, ""), "argv": list(spec.argv), "cwd": str(spec.cwd)}
        self._ask("PUT", f"/jobs/{spec.id}", json=body)
        return spec.id

    def status(self, job: str) -> JobStatus:
        """Return what became of the job."""
        found = self._ask("GET", f"/jobs/{job}")
        return JobStatus(found["state"], found["started"], found["exit_code"])

    def logs(self, job: str, lines: int = 20) -> str:
        """Return the last lines of what the job printed."""
        return str(self._ask("GET", f"/jobs/{job}/logs", params={"lines": lines})["text"])

    def where(self, job: str) -> str:
        """Return where what the job prints is kept, for people."""
        return f"{job}.log in the runner: `tidemill logs runner`"

    def cancel(self, job: str) -> None:
        """End the job and all it started."""
        self._ask("DELETE", f"/jobs/{job}")

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        try:
            answer = self._client.request(method, path, **options)
        except httpx.HTTPError as error:
            raise UnreachableError(
                f"the runner does not answer ({type(error).__name__})", field="runner", value=str(self._client.base_url)
            ) from None
        if not answer.is_success:
            try:
                said = str(answer.json()["detail"])
            except (ValueError, KeyError, TypeError):
                said = answer.text[:200]
            raise ServiceError(f"the runner answers {answer.status_code}: {said}", field="runner", value=path)
        return answer.json()
