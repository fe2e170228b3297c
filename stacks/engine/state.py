"""The engine's state; a file backend is read directly, which saves a run of the engine."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ...runtime.common.errors import PlatformError


@dataclass(frozen=True)
class Deployment:
    """The part of a stack's state that tidemill needs.

    Attributes:
        resources: names of the resources, without the stack itself and its providers.
        protected: names of the protected resources, which hold data or give access to it, the secrets last.
        pending: names of the resources that an engine was creating when it was killed.
        salt: the engine's `encryptionsalt` if a passphrase protects the secrets.
    """

    resources: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    salt: str | None = None

    @classmethod
    def of(cls, raw: dict[str, Any] | None) -> Deployment:
        """Parse the engine's JSON `raw`."""
        raw = raw or {}
        resources = [
            resource
            for resource in cast("list[dict[str, Any]]", raw.get("resources") or [])
            if not str(resource["type"]).startswith("pulumi:")
        ]
        provider = cast("dict[str, Any]", raw.get("secrets_providers") or {})
        operations = cast("list[dict[str, Any]]", raw.get("pending_operations") or [])
        return cls(
            resources=tuple(_name(resource) for resource in resources),
            protected=tuple(
                _name(resource)
                for resource in sorted(resources, key=lambda resource: str(resource["type"]).endswith(":Secret"))
                if resource.get("protect")
            ),
            pending=tuple(_name(entry["resource"]) for entry in operations if entry.get("type") == "creating"),
            salt=provider["state"]["salt"] if provider.get("type") == "passphrase" else None,
        )


def _name(resource: dict[str, Any]) -> str:
    """Return the last part of the URN, the name."""
    return str(resource["urn"]).rsplit("::", 1)[1]


def read_checkpoint(folder: Path, project: str, stack: str) -> Deployment | None:
    """Return the state of `stack` in the file backend `folder`, or None if it has none.

    Raises:
        PlatformError: the file is damaged.
    """
    for base in (folder / "stacks" / project / stack, folder / "stacks" / stack):
        for file in (base.with_name(f"{stack}.json"), base.with_name(f"{stack}.json.gz")):
            try:
                data = file.read_bytes()
            except FileNotFoundError:
                continue
            try:
                text = gzip.decompress(data) if file.suffix == ".gz" else data
                return Deployment.of(json.loads(text)["checkpoint"].get("latest"))
            except (ValueError, OSError, KeyError, AttributeError):
                hint = f"restore it, for example from {file.name}.bak in the same folder"
                raise PlatformError("the state is damaged", field=stack, value=str(file), hint=hint) from None
    return None


def drop_torn_attributes(folder: Path) -> None:
    """Remove half-written `.attrs` files that a killed engine left in the file backend `folder`.

    The engine replaces its other files atomically. An `.attrs` file has only a checksum and a media type: an empty one
    stops the engine ("failed to load checkpoint: EOF"), a missing one does not.
    """
    for kind in ("stacks", "locks"):
        for path in (folder / kind).rglob("*.attrs"):
            try:
                json.loads(path.read_bytes())
            except ValueError:
                path.unlink(missing_ok=True)
            except FileNotFoundError:
                continue


def remove_traces(folder: Path, project: str, stack: str) -> None:
    """Remove backups, history and empty folders of a removed stack from the file backend `folder`."""
    for kind in ("backups", "history", "stacks", "locks/organization"):
        owner = folder / kind / project
        for path in sorted((owner / stack).glob("**/*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if (owner / stack).is_dir():
            (owner / stack).rmdir()
        for path in owner.glob(f"{stack}.json*"):
            path.unlink()
        if owner.is_dir() and not any(owner.iterdir()):
            owner.rmdir()
