"""One GET of a service over HTTP, with no proxy between; imports no Pulumi."""

from __future__ import annotations

__all__ = ["get"]


def get(url: str, *, token: str | None = None, timeout: float = 5.0) -> tuple[int, bytes] | None:
    """Return status and body of what `url` answers, or None when it does not; `token` is shown as bearer token."""
    import httpx

    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(timeout=timeout, trust_env=False) as client:
            answer = client.get(url, headers=headers)
    except httpx.HTTPError:
        return None
    return answer.status_code, answer.content
