"""`capture find` and `capture forget`, on a folder and on a stack's."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest
from tidemill.components.layout import StackRoot
from tidemill.runtime.capture import read_capture, read_labels
from tidemill.runtime.common.ids import uuid7
from tidemill.runtime.serving.contract.model_contract import Column
from tidemill.runtime.serving.recording.writer import CaptureWriter
from tidemill.runtime.serving.settings import CaptureSettings
from tidemill.stacks.cli.app import run

from tests.support.captured import captured, served_model, write_labels

CONFIG = """config:
  tidemill:stack:
    team: harbour
    environment: dev
    models:
      boats: { owner: o@example.org, purpose: Which is late, code: boats, train: [python],
               data: harbour/main/boats, target: late }
"""
PEOPLE = served_model("7", Column("email", "string"), Column("raw", "binary"), Column("age", "long"))


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(words)
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StackRoot:
    """A project with a stack which was up once."""
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "PULUMI_")):
            monkeypatch.delenv(name)
    (tmp_path / "Pulumi.yaml").write_text("name: quay\nruntime: python\nstackConfigDir: config\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "boats").mkdir()
    (tmp_path / "config" / "Pulumi.harbour-dev.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    root = StackRoot.of(tmp_path, "harbour-dev")
    root.secrets.mkdir(parents=True)
    return root


def fill(folder: Path, **settings: object) -> list[str]:
    """Capture two requests of two rows; return their ids."""
    writer = CaptureWriter(CaptureSettings.model_validate({"directory": folder, **settings}))
    writer.start()
    items = [captured(2, model=PEOPLE, values=[(f"ann{number}", b"\xff", 40), ("bob", b"", 41)]) for number in range(2)]
    for item in items:
        writer.take(item)
    writer.close()
    return [item.request_id for item in items]


def test_a_request_is_found_in_the_capture_of_whatever_model_of_the_stack(
    stack: StackRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = fill(stack.data("capture-boats"))
    code, out, err = said(capsys, "capture", "find", first)
    assert code == 0, err
    path, *rows = out.splitlines()
    assert path.endswith(".parquet")
    assert len(rows) == 2
    assert "flights version 7 as champion: score 0.5; email=ann0 raw=ff age=40" in rows[0]
    document = json.loads(said(capsys, "capture", "find", first, "--json")[1])
    assert document["request_id"] == first
    assert [row["features"] for row in document["found"][0]["rows"]] == [
        {"email": "ann0", "raw": "ff", "age": 40},
        {"email": "bob", "raw": "", "age": 41},
    ]
    code, out, err = said(capsys, "capture", "find", str(uuid7()))
    assert (code, out, "no captured row" in err) == (1, "", True)
    code, out, _ = said(capsys, "capture", "find", str(uuid7()), "--json")
    assert (code, json.loads(out)["found"]) == (1, [])


def test_a_subject_is_forgotten_in_a_models_capture(stack: StackRoot, capsys: pytest.CaptureFixture[str]) -> None:
    folder = stack.data("capture-boats")
    fill(folder)
    words = ("capture", "forget", "boats", "--column", "email", "--yes")
    assert said(capsys, *words, "--value", "bob")[:2] == (0, "deleted 2 rows and 0 labels in 1 files\n")
    document = json.loads(said(capsys, *words, "--value", "bob", "--json")[1])
    assert document == {"rows": 0, "labels": 0, "segments": 0, "waiting": 0}
    table = read_capture(folder)
    assert table is not None
    assert [row["email"] for row in table["features"].to_pylist()] == ["ann0", "ann1"]


def test_a_hashed_subject_is_forgotten_with_the_stacks_key_and_its_name_stays_off_the_command_line(
    stack: StackRoot, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, key = stack.data("capture-boats"), stack.secrets / "capture-boats-hash"
    key.write_text("secret\n")
    fill(folder, hash=["email"], hash_key_file=key)
    monkeypatch.setattr(sys, "stdin", io.StringIO("bob\n"))
    code, out, err = said(capsys, "capture", "forget", "boats", "--column", "email", "--value", "-", "--yes")
    assert (code, out[:14]) == (0, "deleted 2 rows"), err
    code, _, err = said(
        capsys, "capture", "forget", "--directory", str(folder), "--column", "email", "--value", "ann0", "--yes"
    )
    assert (code, "only hashes" in err) == (2, True)
    alone = ("--directory", str(folder), "--hash-key-file", str(key))
    code, out, err = said(capsys, "capture", "forget", *alone, "--column", "email", "--value", "ann0", "--yes")
    assert (code, out[:14]) == (0, "deleted 1 rows"), err


def test_the_labels_of_a_key_are_forgotten_and_those_of_others_count_again(
    stack: StackRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stack.data("capture-boats")
    ids = fill(folder)
    write_labels(folder, ids, [1.0, 1.0], key="office")
    write_labels(folder, ids, [0.0, 0.0], key="partner")
    code, out, err = said(capsys, "capture", "forget", "boats", "--labels-of", "partner", "--yes", "--json")
    assert code == 0, err
    assert json.loads(out) == {"rows": 0, "labels": 2, "segments": 1, "waiting": 0}
    assert read_labels(folder).to_pydict()["label"] == [1.0, 1.0]
    captured_rows = read_capture(folder)
    assert captured_rows is not None
    assert captured_rows.num_rows == 4
    for words in (["--labels-of", "a", "--column", "email", "--value", "x"], ["--column", "email"], []):
        code, _, err = said(capsys, "capture", "forget", "boats", *words)
        assert (code, "either --column and --value, or --labels-of" in err) == (2, True)


def test_nothing_is_deleted_unasked(
    stack: StackRoot, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = stack.data("capture-boats")
    fill(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, _, err = said(capsys, "capture", "forget", "boats", "--column", "email", "--value", "bob")
    assert (code, "aborted" in err) == (1, True)
    table = read_capture(folder)
    assert table is not None
    assert table.num_rows == 4


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["find", "x"], "not a request id"),
        (["find", str(uuid7()), "--directory", "absent"], "no such capture folder"),
        (["forget", "boat", "--column", "c", "--value", "v", "--yes"], "did you mean boats?"),
        (["forget", "boats", "--column", "c", "--value", "v", "--yes"], "no capture folder"),
        (["forget", "--column", "c", "--value", "v"], "either a MODEL or --directory"),
        (["forget", "boats", "--directory", ".", "--column", "c", "--value", "v"], "either a MODEL or --directory"),
        (["forget", "boats", "--value", "v"], "--column"),
        ([], "Usage"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    stack: StackRoot, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    stack.data("capture-other").mkdir(parents=True)
    if words[:2] == ["find", "x"]:
        stack.data("capture-boats").mkdir()
    code, out, err = said(capsys, "capture", *words)
    assert (code, text in out + err, "Traceback" in err) == (2, True, False), err
