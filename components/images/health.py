"""The health checks that run inside containers."""

from __future__ import annotations

from ..targets.base import HealthCheck
from .container_layout import PORT


def upstream_health(check: HealthCheck) -> list[str]:
    """Return the command that checks a server in an image without Python, which has `wget`."""
    url = f"http://127.0.0.1:{PORT}{check.path}"
    if check.basic:
        # Arguments can be read from outside, so the check sends no password: a server that answers 401 is alive.
        script = f"said=$(wget -q -O /dev/null {url} 2>&1) || case \"$said\" in *' 401 '*) ;; *) exit 1 ;; esac"
        return ["CMD-SHELL", script]
    return ["CMD", "wget", "-q", "-O", "/dev/null", url]
