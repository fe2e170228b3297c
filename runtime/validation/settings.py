"""Settings of the validation service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from ..common.settings import LakeSettings, ServiceSettings


class ValidationSettings(ServiceSettings):
    """Settings of the validation service."""

    hook_secret_file: Path = Field(description="File with the secret that lakeFS sends as X-Tidemill-Hook.")
    signing_key_file: Path = Field(description="File with the private key that signs verdicts, 32 bytes as base64.")
    lake: LakeSettings
    suites: dict[str, Path] = Field(description="Repository -> its Great Expectations suite, a JSON file.")
    reports: Path = Field(description="Folder for the verdicts, REPOSITORY/COMMIT.json; created if missing.")
