"""Sends one HTTP GET to a service, without a proxy. Imports no Pulumi."""

from __future__ import annotations


def http_get(url: str, *, token: str | None = None, timeout: float = 5.0) -> tuple[int, bytes] | None:
    """Return status and body of `GET url`, or None if there is no answer.

    Args:
        url: what to get.
        token: the bearer token to send.
        timeout: seconds for each step of the request.
    """
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(timeout=timeout, trust_env=False) as client:
            answer = client.get(url, headers=headers)
    except httpx.HTTPError:
        return None
    return answer.status_code, answer.content


def is_healthy(url: str) -> bool:
    """Return whether `GET url` answers 200."""
    answer = http_get(url)
    return answer is not None and answer[0] == 200
