"""Queries a registry for versions.

An HTTP registry is queried without MLflow's client, which costs seconds and 100 MB in each worker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ...common.secrets import is_loopback, read_secret
from ...common.settings import RegistrySettings
from ...common.tags import GATE_VERDICT

if TYPE_CHECKING:
    import httpx

_SECONDS = 15.0


class RegistryClient(Protocol):
    """Queries a registry; returns None for an unknown version, raises OSError if there is no answer."""

    def version_of_alias(self, name: str, alias: str) -> dict[str, Any] | None:
        """Return the version that `alias` points at."""

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        """Return a version by its number."""

    def has_promoted_version(self, name: str) -> bool:
        """Return whether a version passed the promotion gate."""
        ...

    def close(self) -> None:
        """Close the connections; the next call opens new ones."""


class RestClient:
    """MLflow's REST interface (https://mlflow.org/docs/latest/rest-api.html)."""

    def __init__(self, registry: RegistrySettings) -> None:
        self._registry = registry
        self._client: httpx.Client | None = None

    def version_of_alias(self, name: str, alias: str) -> dict[str, Any] | None:
        """See `RegistryClient`."""
        return self._get("registered-models/alias", {"name": name, "alias": alias}, f"alias {alias} not found")

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        """See `RegistryClient`."""
        return self._get("model-versions/get", {"name": name, "version": version}, None)

    def has_promoted_version(self, name: str) -> bool:
        """See `RegistryClient`."""
        answer, document = self._ask("model-versions/search", {"filter": _promoted(name), "max_results": "1"})
        if answer != 200:
            raise OSError(f"status {answer} {document.get('error_code', '')}".strip())
        return bool(document.get("model_versions"))

    def _get(self, what: str, query: dict[str, str], missing: str | None) -> dict[str, Any] | None:
        status, document = self._ask(what, query)
        if status == 200 and "model_version" in document:
            return document["model_version"]
        code, text = str(document.get("error_code", "")), str(document.get("message", ""))
        # MLflow reports an unknown alias as an invalid parameter.
        if code == "RESOURCE_DOES_NOT_EXIST" or (missing and code == "INVALID_PARAMETER_VALUE" and missing in text):
            return None
        raise OSError(f"status {status} {code}".strip())

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, what: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        import httpx

        uri = self._registry.tracking_uri
        if self._client is None:
            self._client = httpx.Client(timeout=_SECONDS, trust_env=not is_loopback(uri), follow_redirects=False)
        # Read on each call, so that a changed password needs no restart.
        auth = (
            (self._registry.username, read_secret(self._registry.password_file))
            if self._registry.username is not None and self._registry.password_file is not None
            else None
        )
        try:
            answer = self._client.get(f"{uri.rstrip('/')}/api/2.0/mlflow/{what}", params=query, auth=auth)
        except httpx.HTTPError as error:
            raise OSError(first_line(error)) from None
        try:
            document: dict[str, Any] = answer.json()
        except ValueError:
            document = {}
        return answer.status_code, document


class LibraryClient:
    """MLflow's own client, for a registry in a database or a folder."""

    def __init__(self, registry: RegistrySettings) -> None:
        self._registry = registry

    def version_of_alias(self, name: str, alias: str) -> dict[str, Any] | None:
        """See `RegistryClient`."""
        return self._call("get_model_version_by_alias", name, alias, missing=f"alias {alias} not found")

    def version(self, name: str, version: str) -> dict[str, Any] | None:
        """See `RegistryClient`."""
        return self._call("get_model_version", name, version)

    def has_promoted_version(self, name: str) -> bool:
        """See `RegistryClient`."""
        from mlflow.exceptions import MlflowException

        from ...registry import connect

        try:
            return bool(connect(self._registry).search_model_versions(_promoted(name), max_results=1))
        except MlflowException as error:
            raise OSError(first_line(error)) from None

    def close(self) -> None:
        """Do nothing: MLflow's client keeps its own connections."""

    def _call(self, method: str, *arguments: str, missing: str | None = None) -> dict[str, Any] | None:
        from mlflow.exceptions import MlflowException

        from ...registry import connect

        try:
            found = getattr(connect(self._registry), method)(*arguments)
        except MlflowException as error:
            text = str(error.message)
            if error.error_code == "RESOURCE_DOES_NOT_EXIST" or (missing is not None and missing in text):
                return None
            raise OSError(first_line(error)) from None
        return {
            "version": found.version,
            "source": found.source,
            "run_id": found.run_id,
            "tags": [{"key": key, "value": value} for key, value in found.tags.items()],
        }


def _promoted(name: str) -> str:
    """Return the filter for the versions of a model that passed the promotion gate."""
    return f"name = '{name}' and tags.`{GATE_VERDICT}` = 'accepted'"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
