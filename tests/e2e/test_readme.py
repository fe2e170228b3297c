"""Runs the README's examples as a reader would paste them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.platform import BIN, ROOT, RunningPlatform, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]

README = (ROOT / "README.md").read_text()
TOUR = README.split("## A tour in ten minutes")[1].split("\n## ")[0]


def blocks(text: str, *kinds: str) -> list[str]:
    return re.findall(rf"```(?:{'|'.join(kinds)})\n(.*?)```", text, flags=re.DOTALL)


def paste(platform: RunningPlatform, script: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=platform.project, env=platform.environment(),
        capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_tour(platform: RunningPlatform) -> None:
    status, curl, replay, life, destroy = blocks(TOUR, "sh", "bash")
    assert "serving-flights" in paste(platform, status)
    answer = json.loads(paste(platform, curl))
    ((_, late),) = answer["predictions"]
    assert 0 < late < 1
    assert answer["version"]
    assert answer["request_id"]
    assert "0 failed" in paste(platform, replay)
    paste(platform, life)
    wait_for("the model to serve again", lambda: "predictions" in json.loads(paste(platform, curl)) or None, 60)
    assert destroy.strip() == "tidemill destroy --delete-data"


def test_the_set_up_commands_are_two_and_end_in_what_the_tests_run() -> None:
    first, second = blocks(README.split("## Set up")[1].split("\n## ")[0], "sh", "bash")
    assert first.strip().endswith("uv run --frozen tidemill up --yes")
    assert second.strip().endswith("uv run --frozen pytest")


def test_five_lines_are_a_valid_stack(tmp_path: Path) -> None:
    (text,) = blocks(README, "yaml")
    assert len(text.splitlines()) <= 5
    stack = yaml.safe_load(text)["config"]["tidemill:stack"]
    (tmp_path / "stacks/config").mkdir(parents=True)
    (tmp_path / "Pulumi.yaml").write_text((ROOT / "Pulumi.yaml").read_text())
    (tmp_path / f"stacks/config/Pulumi.{stack['team']}-{stack['environment']}.yaml").write_text(text)
    done = subprocess.run(
        [str(BIN / "tidemill"), "validate"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_training_example_runs(platform: RunningPlatform) -> None:
    (example,) = blocks(README, "python")
    script = platform.project / "example.py"
    script.write_text(example + "    print(data.commit)\n")
    said = paste(platform, f'eval "$(tidemill env)"\nexec "{BIN / "python"}" example.py')
    assert re.search(r"^[0-9a-f]{64}$", said, flags=re.MULTILINE)
