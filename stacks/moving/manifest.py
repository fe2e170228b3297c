"""The manifest of an archive."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

FORMAT = 1
"""Version of the archive format; newer archives are refused."""

_SHA256 = r"^[0-9a-f]{64}$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Part):
    """One file of an archive."""

    name: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)


class Table(_Part):
    """A table: number of rows, and their `database.Digest`."""

    rows: int = Field(ge=0)
    digest: str = Field(pattern=_SHA256)


class Database(_Part):
    """A database of MLflow: revision of its schema, and its tables with rows."""

    revision: str
    tables: dict[str, Table]


class StoreCount(_Part):
    """The number of files of an object store, and their bytes."""

    files: int = Field(ge=0)
    bytes: int = Field(ge=0)


class Repository(_Part):
    """A repository of the lake.

    Attributes:
        default_branch: its default branch.
        branches, tags: name -> commit.
        commits: number of commits.
        pinned: commits that models were trained on.
        runs: number of action runs, including the gate's verdicts.
        metadata: its metadata in lakeFS.
        protected: its branch protection rules, as returned by lakeFS's API.
        left_out: uncommitted changes, `branch: path`, which are not in the archive.
        commits_range, branches_range, tags_range: objects with lakeFS's own dumps.
        objects: the files of its storage namespace.
    """

    default_branch: str
    branches: dict[str, str]
    tags: dict[str, str]
    commits: int
    pinned: list[str]
    runs: int
    left_out: list[str]
    metadata: dict[str, str]
    protected: list[dict[str, Any]]
    commits_range: str
    branches_range: str
    tags_range: str
    objects: StoreCount


class Manifest(_Part):
    """The description of an archive and its contents.

    Attributes:
        form: `FORMAT`.
        id: identifier of the archive.
        created: time of the export.
        stack, team, target: the exported stack.
        models: names of its models.
        versions: program -> version.
        salt: salt of the passphrase, see `encryption`.
        passphrase: signature of the salt, which tells whether a passphrase is right.
        secrets: names of the secrets.
        unresolved: `repository@commit` that runs were trained on and the lake no longer has.
        files, bytes, list_sha256: number and total size of the files in `files.jsonl`, and that list's hash.
    """

    kind: Literal["tidemill-archive"] = "tidemill-archive"
    form: int
    id: str
    created: AwareDatetime
    stack: str
    team: str
    target: str
    models: list[str]
    versions: dict[str, str]
    salt: str = Field(pattern=r"^[0-9a-f]{32}$")
    passphrase: str = Field(pattern=_SHA256)
    repositories: dict[str, Repository]
    databases: dict[str, Database]
    stores: dict[str, StoreCount]
    secrets: list[str]
    unresolved: list[str]
    files: int = Field(ge=0)
    bytes: int = Field(ge=0)
    list_sha256: str = Field(pattern=_SHA256)

    @property
    def at(self) -> datetime:
        """The time of the export, without fractions of a second."""
        return self.created.replace(microsecond=0)
