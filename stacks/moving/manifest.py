"""What an archive says of itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

__all__ = ["FORMAT", "Database", "Entry", "Manifest", "Repository", "StoreCount", "Table"]

FORMAT = 1
"""Number of the archives' form; one of a later form is refused."""

_SHA256 = r"^[0-9a-f]{64}$"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Part):
    """One file of an archive."""

    name: str
    size: int = Field(ge=0)
    sha256: str = Field(pattern=_SHA256)


class Table(_Part):
    """A table of a database.

    Attributes:
        rows: how many rows.
        digest: sum of the hashes of all rows, whatever their order; see `database.Digest`.
    """

    rows: int = Field(ge=0)
    digest: str = Field(pattern=_SHA256)


class Database(_Part):
    """A database of MLflow's.

    Attributes:
        revision: which of MLflow's schemas it has.
        tables: those with rows.
    """

    revision: str
    tables: dict[str, Table]


class StoreCount(_Part):
    """An object store."""

    files: int = Field(ge=0)
    bytes: int = Field(ge=0)


class Repository(_Part):
    """A repository of the lake.

    Attributes:
        default_branch: its default branch.
        branches, tags: name -> commit.
        commits: how many commits there are.
        pinned: commits which models were trained on.
        runs: how many runs of actions, among them the gate's verdicts.
        metadata: what lakeFS keeps with it.
        protected: its rules of which branches only merges may change, as lakeFS's API gives them.
        left_out: what was written and not committed, `branch: path`, and so is not in the archive.
        commits_range, branches_range, tags_range: names of lakeFS's own dumps of them, among the objects.
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
    """What an archive holds.

    Attributes:
        form: `FORMAT`.
        id: identifier of this archive.
        created: when it was made.
        stack, team, target: the stack it is of.
        models: names of its models.
        versions: program -> version.
        salt: of the passphrase, see `sealing`.
        passphrase: a code which only the right passphrase gives.
        secrets: names of the secrets in it.
        unresolved: `repository@commit` which the tags of a run name, and the lake had no more.
        files: how many files are listed in `files.jsonl`, how many bytes they are, and that list's own hash.
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
        """When it was made, in UTC, without fractions of a second."""
        return self.created.replace(microsecond=0)
