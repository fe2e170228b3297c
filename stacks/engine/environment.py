"""The environment of the engine: backend and passphrase, without telemetry.

The user's settings always take precedence: PULUMI_BACKEND_URL, PULUMI_ACCESS_TOKEN, a `backend` in Pulumi.yaml,
PULUMI_CONFIG_PASSPHRASE, PULUMI_CONFIG_PASSPHRASE_FILE, a `secretsprovider` in the stack config.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from ...components.layout import home
from ...runtime.common.errors import UserError
from ..loading import LoadedStack, project_settings


def private_folder(path: Path) -> Path:
    """Return the folder `path`, creating it if necessary, readable only by its owner.

    Raises:
        UserError: the folder cannot be created or written.
    """
    try:
        for folder in (*reversed(path.parents), path):
            folder.mkdir(mode=0o700, exist_ok=True)  # `parents=True` would create parents with the default mode
    except OSError as error:
        raise UserError(
            f"cannot create the folder ({error.strerror})",
            field="TIDEMILL_HOME",
            value=os.environ.get("TIDEMILL_HOME") or str(path),
            hint="make it writable, or set TIDEMILL_HOME to a writable folder",
        ) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(
            "cannot write into the folder",
            field="TIDEMILL_HOME",
            value=os.environ.get("TIDEMILL_HOME") or str(path),
            hint="make it writable, or set TIDEMILL_HOME to a writable folder",
        )
    return path


def ensure_passphrase(folder: Path) -> Path:
    """Return the file with the passphrase of this home, created once, mode 0600; safe for concurrent runs."""
    path = folder / "passphrase"
    if path.exists():
        return path
    handle, temporary = tempfile.mkstemp(dir=private_folder(folder), prefix=".passphrase-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another run was first, and its file is complete
            path.hardlink_to(temporary)
    finally:
        Path(temporary).unlink()
    return path


def engine_environment(loaded: LoadedStack, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that the engine needs in addition to `environ`, and create the folders they name.

    Raises:
        UserError: the target requires shared state, but the backend is a folder on this machine.
    """
    require_shared_state(loaded, environ)
    mine: dict[str, str] = {
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",  # for a config without the salt
    }
    if not loaded.config.spec.plugins:
        # tidemill brings the only provider that it needs.
        mine["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    folder = home(loaded.project)
    if _default_backend(loaded.project, environ):
        mine["PULUMI_BACKEND_URL"] = private_folder(folder / "state").as_uri()
    own = "PULUMI_CONFIG_PASSPHRASE" in environ or "PULUMI_CONFIG_PASSPHRASE_FILE" in environ
    if not own and loaded.secrets_provider in (None, "default", "passphrase"):
        mine["PULUMI_CONFIG_PASSPHRASE_FILE"] = str(ensure_passphrase(folder))
    return {key: value for key, value in mine.items() if key not in environ}


def require_shared_state(loaded: LoadedStack, environ: Mapping[str, str] = os.environ) -> None:
    """Check that the state of a shared stack is not in a folder on this machine.

    Without a shared state, a colleague or CI would create a second platform, and a lost folder would lose the platform.

    Raises:
        UserError: the target needs a shared state, and the backend is a folder.
    """
    if not loaded.config.spec.shared_state:
        return
    if _default_backend(loaded.project, environ):
        where = "no backend is set, and the default is a folder on this machine"
    elif folder := backend_folder(loaded.project, environ):
        where = f"the backend is a folder on this machine ({folder.parent})"
    else:
        return
    raise UserError(
        f"the whole team and CI must reach the state of a stack on {loaded.config.target}: {where}",
        field="PULUMI_BACKEND_URL",
        hint="set it, such as s3://BUCKET?region=REGION, or write `backend: { url: ... }` into Pulumi.yaml, or set "
        "PULUMI_ACCESS_TOKEN; `aws s3 mb s3://BUCKET` creates a bucket",
    )


def current_login(project: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return PULUMI_BACKEND_URL of the backend that a plain `pulumi` is logged in to; {} if another one is set."""
    if not _default_backend(project, environ):
        return {}
    folder = Path(environ.get("PULUMI_CREDENTIALS_PATH") or environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    try:
        current: Any = json.loads((folder / "credentials.json").read_text(encoding="utf-8")).get("current")
    except (OSError, ValueError, AttributeError):
        return {}
    return {"PULUMI_BACKEND_URL": current} if isinstance(current, str) and current else {}


def _default_backend(project: Path, environ: Mapping[str, str]) -> bool:
    backend: Any = project_settings(project).get("backend")
    configured = isinstance(backend, dict) and bool(cast("dict[str, Any]", backend).get("url"))
    return not (environ.get("PULUMI_BACKEND_URL") or environ.get("PULUMI_ACCESS_TOKEN") or configured)


def state_folder(project: Path, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the folder `.pulumi` of the backend of a run, or None if it is not a folder; create nothing."""
    if _default_backend(project, environ):
        return home(project) / "state" / ".pulumi"
    return backend_folder(project, environ)


def backend_folder(project: Path, environment: Mapping[str, str]) -> Path | None:
    """Return the folder `.pulumi` of a file backend, or None for other backends."""
    url = environment.get("PULUMI_BACKEND_URL", "")
    if not url:
        backend: Any = project_settings(project).get("backend")
        url = str(cast("dict[str, Any]", backend).get("url", "")) if isinstance(backend, dict) else ""
    if not url.startswith("file://"):
        return None
    text = unquote(urlsplit(url).netloc + urlsplit(url).path)
    path = Path(text).expanduser()
    return (path if path.is_absolute() else project / path) / ".pulumi"
