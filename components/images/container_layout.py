"""Where our containers keep files, the user they run as and the port they listen on. Imports no Pulumi."""

from __future__ import annotations

USER = 10001
"""User and group of our processes. A fixed, high number, which no user of the host has by chance."""

PORT = 8080
"""Port on which each service listens in its container."""

MOUNT = "/run/tidemill"
CONFIG, SECRETS = f"{MOUNT}/config", f"{MOUNT}/secrets"
DATA, SCRATCH, PROJECT = "/data", "/scratch", "/project"
