"""The files of a project on the disk, and their state in Git."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ...runtime.common.errors import ToolError, UserError
from .git_command import message_of, run_git
from .tree import ProjectFile

_LARGEST = 1_000_000  # bytes; no file of the template is larger, so a larger file cannot be a moved one


class WorkTree:
    """The files of a project.

    Args:
        project: the folder of Pulumi.yaml.
        excluded: top-level folder whose files are not the team's.
    """

    def __init__(self, project: Path, excluded: str) -> None:
        self.project = project
        self.excluded = excluded

    def file(self, path: PurePosixPath) -> ProjectFile | None:
        """Return the file at `path`, or None.

        Raises:
            UserError: it cannot be read.
        """
        place = self.project / path
        if not place.is_file():
            return None
        try:
            return ProjectFile(place.read_bytes(), bool(place.stat().st_mode & 0o100))
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", field=str(path), hint="make it readable") from None

    def obstacle(self, path: PurePosixPath, removed: frozenset[PurePosixPath]) -> str | None:
        """Return why no file can be read or written at `path` after `removed` are deleted, or None."""
        # Links are not followed: they may point outside the project.
        for parent in reversed(path.parents[:-1]):
            place = self.project / parent
            if place.is_symlink():
                return f"{parent} is a symbolic link here"
            if place.exists() and not place.is_dir() and parent not in removed:
                return f"{parent} is a file here"
        place = self.project / path
        if place.is_symlink():
            return "it is a symbolic link here"
        if place.is_dir():
            inside = {
                PurePosixPath(found.relative_to(self.project)) for found in place.rglob("*") if not found.is_dir()
            }
            if not inside or inside - removed:
                return "it is a folder here"
        elif place.exists() and not place.is_file():
            return "it is not a regular file here"
        return None

    def other_files(self, known: frozenset[PurePosixPath], names: frozenset[str]) -> dict[PurePosixPath, bytes]:
        """Return the team's files except `known` whose suffix is the suffix of one of `names`."""
        suffixes = {PurePosixPath(name).suffix for name in names}
        listed = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        found: dict[PurePosixPath, bytes] = {}
        for path in sorted({PurePosixPath(name) for name in listed if name} - known):
            if path.suffix not in suffixes or path.parts[0] == self.excluded or self.obstacle(path, frozenset()):
                continue
            place = self.project / path
            if place.is_file() and place.stat().st_size <= _LARGEST and (file := self.file(path)):
                found[path] = file.content
        return found

    def uncommitted(self, paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
        """Return those of `paths` with uncommitted changes, which Git could not restore.

        Raises:
            UserError: the project is not in a Git repository.
            ToolError: Git is missing, or fails.
        """
        wanted = sorted(path for path in set(paths) if (self.project / path).exists())
        prefix = PurePosixPath(self._git("rev-parse", "--show-prefix").strip("\n"))
        if not wanted:
            return []
        options = ("--porcelain", "-z", "--untracked-files=all", "--ignored=matching", "--no-renames")
        answer = self._git("status", *options, "--", *map(str, wanted))
        # For an ignored file, Git may report its folder.
        reported = [PurePosixPath(entry[3:]) for entry in answer.split("\0") if entry]
        return [path for path in wanted if any((prefix / path).is_relative_to(found) for found in reported)]

    def files_with_conflicts(self, label: str) -> list[PurePosixPath]:
        """Return the files with a conflict whose last marker starts with `label`."""
        pattern = "^>>>>>>> " + label
        options = ("-l", "-z", "-I", "--untracked", "-e", pattern)
        listed = self._git("grep", *options, "--", ".", empty=True).split("\0")
        return [path for name in listed if name and (path := PurePosixPath(name)).parts[0] != self.excluded]

    def _git(self, *arguments: str, empty: bool = False) -> str:
        english = {**os.environ, "LC_ALL": "C"}  # messages are parsed below
        done = run_git(self.project, "--literal-pathspecs", "--no-optional-locks", *arguments, env=english)
        if done.returncode and not (empty and done.returncode == 1):
            message = message_of(done)
            if "not a git repository" in message:
                hint = "run `git init && git add --all && git commit`, so that you can undo changes"
                raise UserError("the project is not in a Git repository", field=str(self.project), hint=hint)
            raise ToolError(f"failed: {message}", field=f"git {arguments[0]}")
        return done.stdout.decode(errors="surrogateescape")
