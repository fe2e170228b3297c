"""Named API keys: what the file holds, who may read it, and what the commands say."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tidemill.components.layout import StackRoot
from tidemill.runtime.common.errors import ConfigError, UserError
from tidemill.runtime.serving.http.key_file import NamedKey, add_key, check_name, read_keys, revoke_key
from tidemill.runtime.serving.http.keys import PLATFORM, Keys
from tidemill.stacks.cli.app import run

CONFIG = """config:
  tidemill:stack:
    team: harbour
    environment: dev
    models:
      boats: { owner: o@example.org, purpose: Which is late, code: boats, train: [python],
               data: harbour/main/boats, target: late }
"""


def name_of(keys: Keys, authorization: bytes | None, api_key: bytes | None) -> str | None:
    found = keys.find(authorization, api_key)
    return found.name if found else None


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = run(words)
    output = capsys.readouterr()
    return code, output.out, output.err


def test_the_file_holds_hashes_alone_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    before = os.umask(0)
    try:
        key = add_key(file, "dashboard")
    finally:
        os.umask(before)
    assert file.stat().st_mode & 0o777 == 0o600
    [kept] = json.loads(file.read_text())["keys"]
    assert kept["name"] == "dashboard"
    assert kept["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert datetime.fromisoformat(kept["created"]) <= datetime.now(UTC)
    assert key not in file.read_text()
    assert read_keys(file) == [NamedKey(**kept)]
    assert {path.name for path in tmp_path.iterdir()} == {"keys.json", ".keys.json.lock"}


def test_the_server_takes_keys_up_and_gives_them_up(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    keys = Keys("own", file)
    first, second = add_key(file, "one"), add_key(file, "two")
    assert name_of(keys, f"Bearer {first}".encode(), None) is None
    keys.refresh()
    assert name_of(keys, f"Bearer {first}".encode(), None) == "one"
    assert name_of(keys, None, second.encode()) == "two"
    revoke_key(file, "one")
    keys.refresh()
    assert name_of(keys, f"Bearer {first}".encode(), None) is None
    assert name_of(keys, f"Bearer {second}".encode(), None) == "two"
    assert name_of(keys, b"Bearer own", None) == PLATFORM


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "-a", "a/b", "a\n", PLATFORM])
def test_names_which_would_mislead_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError):
        check_name(name)
    with pytest.raises(UserError):
        add_key(tmp_path / "keys.json", name)
    assert not (tmp_path / "keys.json").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": {}}',
        '{"keys": [1]}',
        '{"keys": [{"name": "a", "sha256": "12", "created": ""}]}',
        '{"keys": [{"name": "a", "sha256": 3, "created": ""}]}',
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "created": "x", "more": 1}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "created": "x"}] * 2}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "created": "x", "may": []}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "created": "x", "may": ["predict", "all"]}]}),
        json.dumps({"keys": [{"name": "a", "sha256": "0" * 64, "created": "x", "may": "label"}]}),
    ],
)
def test_a_file_of_something_else_is_neither_read_nor_overwritten(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    for attempt in (lambda: read_keys(file), lambda: add_key(file, "b"), lambda: revoke_key(file, "a")):
        with pytest.raises(ConfigError):
            attempt()
    assert file.read_text() == text


def test_a_key_has_the_uses_it_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "all")
    assert "may" not in json.loads(file.read_text())["keys"][0], "an earlier release reads the file"
    for words, may in (
        (["--may", "label"], ("label",)),
        (["--may", "read,label", "--may", "label"], ("label", "read")),
        ([], ("predict", "label", "read")),
    ):
        code, key, err = said(capsys, "keys", "add", "one", *words, "--file", str(file))
        assert code == 0, err
        known = Keys("own", file).find(None, key.strip().encode())
        assert known is not None
        assert known.may == may
        assert said(capsys, "keys", "revoke", "one", "--file", str(file))[0] == 0
    code, _, err = said(capsys, "keys", "add", "one", "--may", "write", "--file", str(file))
    assert (code, "use predict, label, read" in err) == (2, True)
    code, _, err = said(capsys, "keys", "add", "unknown", "--file", str(file))
    assert (code, "reserved" in err) == (2, True), "`unknown` stands for rows without a key"
    assert [key.name for key in read_keys(file)] == ["all"]


def test_no_key_is_lost_when_several_are_added_at_once(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: add_key(file, f"key-{number}"), range(24)))
    assert len(set(made)) == 24
    assert {key.name for key in read_keys(file)} == {f"key-{number}" for number in range(24)}


def test_a_writer_which_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    add_key(file, "first")
    script = (
        "import os, signal, sys; from pathlib import Path; from tidemill.runtime.serving.http import key_file\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "key_file.add_key(Path(sys.argv[1]), 'second')"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], check=False)
    assert done.returncode == -9
    assert [key.name for key in read_keys(file)] == ["first"]
    add_key(file, "third")
    assert [key.name for key in read_keys(file)] == ["first", "third"]


def test_the_commands_for_a_server_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "keys.json")
    code, out, err = said(capsys, "keys", "add", "dashboard", "--file", file)
    assert code == 0, err
    assert [line.startswith("tm_") for line in out.splitlines()] == [True]
    assert out.strip() not in err
    assert name_of(Keys("own", Path(file)), None, out.strip().encode()) == "dashboard"
    code, _, err = said(capsys, "keys", "add", "dashboard", "--file", file)
    assert (code, "a key with this name exists" in err) == (2, True)
    listed = said(capsys, "keys", "list", "--file", file)[1]
    assert (listed.startswith("dashboard  20"), listed.rstrip().endswith("predict,label,read")) == (True, True)
    listed = json.loads(said(capsys, "keys", "list", "--file", file, "--json")[1])
    assert [sorted(key) for key in listed["keys"]] == [["created", "may", "name"]]
    code, _, err = said(capsys, "keys", "revoke", "dashbord", "--file", file)
    assert (code, "did you mean dashboard?" in err) == (2, True)
    assert said(capsys, "keys", "revoke", "dashboard", "--file", file)[0] == 0
    assert read_keys(Path(file)) == []
    code, out, err = said(capsys, "keys", "list", "--file", file)
    assert (code, out, "no named keys" in err) == (0, "", True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["add", "boats"], "MODEL and NAME are required"),
        (["add", "boats", "a", "b"], "MODEL and NAME are required"),
        (["add", "a", "b", "--file", "keys.json"], "only the NAME of the key"),
        (["add", "boat", "a"], "did you mean boats?"),
        (["add", "boats", "a"], "tidemill up"),
        (["list"], "either a MODEL or --file"),
        (["list", "boats", "--file", "keys.json"], "either a MODEL or --file"),
        (["add", "a", "--file", "absent/keys.json"], "the folder does not exist"),
        ([], "Usage"),
    ],
)
def test_mistakes_are_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    project_in(tmp_path, monkeypatch)
    code, out, err = said(capsys, "keys", *words)
    assert (code, text in out + err, "Traceback" in err) == (2, True, False), err
    assert not list(tmp_path.rglob("keys.json"))


def test_the_keys_of_a_stack_lie_in_the_store_of_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project_in(tmp_path, monkeypatch)
    store = StackRoot.of(tmp_path, "harbour-dev").data("access-boats")
    store.mkdir(parents=True)
    assert said(capsys, "keys", "add", "boats", "dashboard")[0] == 0
    assert [key.name for key in read_keys(store / "keys.json")] == ["dashboard"]
    assert "dashboard" in said(capsys, "keys", "list", "boats")[1]
    assert said(capsys, "keys", "revoke", "boats", "dashboard")[0] == 0
    assert read_keys(store / "keys.json") == []


def project_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TIDEMILL_", "PULUMI_")):
            monkeypatch.delenv(name)
    (folder / "Pulumi.yaml").write_text("name: quay\nruntime: python\nstackConfigDir: config\n")
    (folder / "config").mkdir()
    (folder / "boats").mkdir()
    (folder / "config" / "Pulumi.harbour-dev.yaml").write_text(CONFIG)
    monkeypatch.chdir(folder)
