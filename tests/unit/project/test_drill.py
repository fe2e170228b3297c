"""The plugin for attacks fails a test whose attack succeeded, and shows it in its table."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.tree import ROOT

_ATTACKS = """
def test_held(drill):
    with drill("ports", "guesses", on="a") as attack:
        attack.tried("one", True)
        attack.tried("two", True)

def test_did_not_hold(drill):
    with drill("ports", "guesses", on="b") as attack:
        attack.tried("three", False, "an answer")
    with drill("ports", "others") as attack:
        attack.tried("four", True)

def test_nothing(drill):
    with drill("gate", "nothing"):
        pass

def test_error(drill):
    with drill("gate", "error") as attack:
        attack.tried("five", True)
        raise ValueError("broken")
"""


def test_a_successful_attack_fails_its_test_and_is_in_the_table(tmp_path: Path) -> None:
    (tmp_path / "test_attacks.py").write_text(_ATTACKS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.support.drill", "-p", "no:cacheprovider", "-n2"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", "test_attacks.py"],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 failed, 1 passed" in done.stdout
    assert "three: an answer" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["ports", "guesses", "3", "2", "DID", "NOT", "HOLD:", "b"] in rows
    assert ["ports", "others", "1", "1"] in rows
    assert ["gate", "nothing", "0", "0", "DID", "NOT", "HOLD:", "the", "platform"] in rows
    assert ["gate", "error", "2", "1", "DID", "NOT", "HOLD:", "the", "platform"] in rows
    assert ["all", "6", "4"] in rows
