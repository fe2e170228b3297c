"""Three-way merges of files and trees: each case; no line of the team is lost."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill.stacks.projects.merging import Change, merge_trees
from tidemill.stacks.projects.text_merge import ConflictLabels, merge_lines
from tidemill.stacks.projects.tree import ProjectFile
from tidemill.stacks.projects.worktree import WorkTree

LABELS = ConflictLabels("yours", "template 1", "template 2")
TEXT = b"".join(b"line %d\n" % number for number in range(20))
OTHER = TEXT.replace(b"line 3\n", b"line three\n")
THEIRS = TEXT.replace(b"line 15\n", b"line fifteen\n")
CLASH = TEXT.replace(b"line 3\n", b"the third line\n")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def tree(**files: bytes) -> dict[PurePosixPath, ProjectFile]:
    return {PurePosixPath(name.replace("__", "/")): ProjectFile(content) for name, content in files.items()}


def merged(
    project: Path, base: Mapping[PurePosixPath, ProjectFile], theirs: Mapping[PurePosixPath, ProjectFile]
) -> list[Change]:
    return merge_trees(base, theirs, WorkTree(project, ".hidden"), LABELS, ".hidden/pristine")


def kinds(changes: list[Change]) -> dict[str, str]:
    return {str(change.path): change.kind for change in changes}


def test_changes_of_both_sides_are_in_the_result(project: Path) -> None:
    (project / "a").write_bytes(OTHER)
    [change] = merged(project, tree(a=TEXT), tree(a=THEIRS))
    assert change.kind == "merged"
    assert change.file is not None
    assert change.file.content == OTHER.replace(b"line 15\n", b"line fifteen\n")


def test_a_line_changed_by_both_is_shown_in_three_versions_between_markers(project: Path) -> None:
    (project / "a").write_bytes(OTHER)
    [change] = merged(project, tree(a=TEXT), tree(a=CLASH))
    assert (change.kind, change.note) == ("conflict", "one conflict between markers")
    assert change.file is not None
    assert change.file.content == TEXT.replace(
        b"line 3\n",
        b"<<<<<<< yours\nline three\n||||||| template 1\nline 3\n=======\nthe third line\n>>>>>>> template 2\n",
    )


def test_a_change_of_one_side_only_is_taken(project: Path) -> None:
    (project / "a").write_bytes(TEXT)
    (project / "b").write_bytes(OTHER)
    (project / "c").write_bytes(THEIRS)
    changes = merged(project, tree(a=TEXT, b=TEXT, c=TEXT), tree(a=THEIRS, b=TEXT, c=THEIRS))
    assert kinds(changes) == {"a": "updated"}


def test_a_new_file_is_added_or_merged_with_the_teams_file(project: Path) -> None:
    (project / "taken").write_bytes(b"mine\nboth\n")
    changes = merged(project, {}, tree(new=TEXT, taken=b"both\ntheirs\n"))
    assert kinds(changes) == {"new": "added", "taken": "conflict"}
    file = changes[1].file
    assert file is not None
    assert file.content == b"<<<<<<< yours\nmine\nboth\n=======\nboth\ntheirs\n>>>>>>> template 2\n"


def test_a_removed_file_is_deleted_unless_the_team_changed_it(project: Path) -> None:
    (project / "same").write_bytes(TEXT)
    (project / "changed").write_bytes(OTHER)
    changes = merged(project, tree(same=TEXT, changed=TEXT, away=TEXT), {})
    assert kinds(changes) == {"same": "removed", "changed": "kept"}
    assert [change.touched for change in changes] == [(), (PurePosixPath("same"),)]


def test_a_file_that_the_team_removed_stays_removed_and_is_reported(project: Path) -> None:
    [change] = merged(project, tree(a=TEXT, b=TEXT), tree(a=THEIRS, b=TEXT))
    assert (change.kind, change.touched) == ("kept", ())
    assert "your project removed it, so it stays removed" in change.note


def test_the_template_moves_a_file_together_with_the_teams_changes(project: Path) -> None:
    (project / "old").write_bytes(OTHER)
    [change] = merged(project, tree(old=TEXT), tree(sub__new=THEIRS))
    assert (change.kind, str(change.path), str(change.removes)) == ("moved", "sub/new", "old")
    assert change.file is not None
    assert b"line three\n" in change.file.content
    assert b"line fifteen\n" in change.file.content


def test_a_moved_template_file_does_not_restore_a_removed_file(project: Path) -> None:
    [change] = merged(project, tree(old=TEXT), tree(new=THEIRS))
    assert (str(change.path), change.kind, change.touched) == ("old", "kept", ())


def test_a_change_is_merged_into_a_file_that_the_team_moved(project: Path) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "a").write_bytes(OTHER)
    [change] = merged(project, tree(a=TEXT), tree(a=THEIRS))
    assert (change.kind, str(change.path), change.note) == ("merged", "mine/a", "your project moved it from a")
    assert change.file is not None
    assert change.file.content == OTHER.replace(b"line 15\n", b"line fifteen\n")


def test_a_binary_file_changed_by_both_keeps_the_teams_content(project: Path) -> None:
    for name in ("both", "template"):
        (project / name).write_bytes(b"\0mine" if name == "both" else b"\0one")
    base, theirs = tree(both=b"\0one", template=b"\0one"), tree(both=b"\0two", template=b"\0two")
    both, template = merged(project, base, theirs)
    assert (both.kind, both.touched) == ("conflict", ())
    assert ".hidden/pristine/both" in both.note
    assert (template.kind, template.file and template.file.content) == ("updated", b"\0two")


@pytest.mark.parametrize(
    ("before", "now", "here", "wanted"),
    [(False, True, False, True), (True, False, True, False), (False, False, True, True), (True, True, False, False)],
)
def test_the_executable_bit_follows_the_side_that_changed_it(
    project: Path, before: bool, now: bool, here: bool, wanted: bool
) -> None:
    (project / "a").write_bytes(OTHER)
    (project / "a").chmod(0o755 if here else 0o644)
    base, theirs = ProjectFile(TEXT, before), ProjectFile(THEIRS, now)
    [change] = merged(project, {PurePosixPath("a"): base}, {PurePosixPath("a"): theirs})
    assert change.file is not None
    assert (change.kind, change.file.executable) == ("merged", wanted)


def test_only_the_executable_bit_changed(project: Path) -> None:
    (project / "a").write_bytes(OTHER)
    [change] = merged(project, {PurePosixPath("a"): ProjectFile(TEXT)}, {PurePosixPath("a"): ProjectFile(TEXT, True)})
    assert change.file is not None
    assert (change.file.content, change.file.executable) == (OTHER, True)


def test_links_and_folders_are_not_overwritten(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (project / "link").symlink_to(outside)
    (project / "file").symlink_to(outside / "target")
    (project / "folder" / "inner").mkdir(parents=True)
    (project / "plain").write_bytes(b"a file of the team\n")
    theirs = tree(link__a=TEXT, file=TEXT, folder=TEXT, plain__a=TEXT)
    changes = merged(project, {}, theirs)
    assert set(kinds(changes).values()) == {"conflict"}
    assert len(changes) == 4
    assert [change.touched for change in changes] == [()] * 4


def test_a_file_can_become_a_folder_and_a_folder_a_file(project: Path) -> None:
    (project / "a").write_bytes(b"was a file\n")
    (project / "b").mkdir()
    (project / "b" / "c").write_bytes(b"was in a folder\n")
    base = tree(a=b"was a file\n", b__c=b"was in a folder\n")
    changes = merged(project, base, tree(a__c=b"in a folder now\n", b=b"now something else\n"))
    assert kinds(changes) == {"a": "removed", "a/c": "added", "b": "added", "b/c": "removed"}


def test_crlf_line_endings_are_ignored_in_the_merge_and_kept(project: Path) -> None:
    (project / "a").write_bytes(OTHER.replace(b"\n", b"\r\n"))
    [change] = merged(project, tree(a=TEXT), tree(a=THEIRS))
    assert change.kind == "merged"
    assert change.file is not None
    assert change.file.content == OTHER.replace(b"line 15\n", b"line fifteen\n").replace(b"\n", b"\r\n")


def test_a_missing_last_newline_is_kept(project: Path) -> None:
    (project / "a").write_bytes(OTHER.removesuffix(b"\n"))
    [change] = merged(project, tree(a=TEXT), tree(a=TEXT.replace(b"line 10\n", b"line ten\n")))
    assert change.file is not None
    assert (change.kind, change.file.content[-7:]) == ("merged", b"line 19")


LINES = st.lists(
    st.sampled_from([b"a", b"b", b"c", b"", b"  a", b"=======", b"<<<<<<< yours", b"\xff\xfe", b"x\ry"]), max_size=12
)
ENDS = st.tuples(st.sampled_from([b"\n", b"\n", b"\r\n"]), st.booleans())


def joined(lines: list[bytes], end: tuple[bytes, bool]) -> bytes:
    content = end[0].join(lines)
    return content + end[0] if lines and end[1] else content


def counted(content: bytes) -> Counter[bytes]:
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return Counter(line.removesuffix(b"\r") for line in lines)


@settings(max_examples=150, deadline=None)
@given(LINES, LINES, LINES, ENDS, ENDS, st.booleans())
def test_no_line_of_the_team_is_ever_lost(
    ours: list[bytes],
    base: list[bytes],
    theirs: list[bytes],
    end: tuple[bytes, bool],
    other: tuple[bytes, bool],
    new: bool,
) -> None:
    here, before = joined(ours, end), joined(base, other)
    result = merge_lines(here, None if new else before, joined(theirs, other), LABELS).content
    # The template can remove its own lines, each as often as it had them.
    of_the_template = Counter[bytes]() if new else counted(before)
    mine = counted(here)
    found = counted(result)
    assert {line: number for line, number in mine.items() if found[line] < number - of_the_template[line]} == {}
