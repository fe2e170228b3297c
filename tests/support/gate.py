"""A lake with its gate for tests: real lakeFS, the real validation service, one guarded repository."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from tidemill.runtime.common.settings import LakeSettings
from tidemill.runtime.common.verdicts import generate_signing_key, public_key
from tidemill.runtime.data import Lake
from tidemill.runtime.validation.action import GATE_ACTION, action_yaml

from tests.support.servers import Server, free_port, lakefs_server, secret_file

PROJECT = Path(__file__).resolve().parents[2]
SUITE = PROJECT / "stacks/flights/expectations.json"
ACTION_FILE = f"_lakefs_actions/{GATE_ACTION}.yaml"


@dataclass
class GatedLake:
    """A lake whose repositories are guarded on `main`."""

    settings: LakeSettings
    lakefs: Server
    validation: Server
    hook_secret: str
    token: str
    suite: Path = SUITE

    def repository(self, name: str) -> None:
        """Create a guarded repository; only the repositories given at the start have a suite."""
        answer = httpx.post(
            f"{self.lakefs.url}/api/v1/repositories",
            json={"name": name, "storage_namespace": f"local://{name}", "default_branch": "main"},
            auth=self.lakefs.auth,
            trust_env=False,
        )
        answer.raise_for_status()
        self.guard(name)

    def action(self) -> str:
        """Return the gate's action file."""
        return action_yaml(GATE_ACTION, ["main"], f"{self.validation.url}/hooks/lakefs")

    def guard(self, name: str) -> None:
        """Commit the gate's action file on `main`, as the platform does, and does again when it is gone."""
        with Lake(self.settings) as lake:
            file = self.validation.folder / "action.yaml"
            file.write_text(self.action())
            lake.upload(name, "main", ACTION_FILE, file)
            assert lake.commit(name, "main", "Guard main", {})


@contextmanager
def gated_lake(folder: Path, repositories: Sequence[str] = ("flights",)) -> Iterator[GatedLake]:
    """Run lakeFS and the validation service, with guarded repositories and the sample team's expectations."""
    secrets = folder / "secrets"
    hook = secret_file(secrets, "hook")
    token = secret_file(secrets, "token")
    signing_key = secret_file(secrets, "verdict-signing-key", generate_signing_key())
    with lakefs_server(folder / "lakefs", env={"LAKEFSACTION_HOOK": hook.read_text()}) as lakefs:
        lake = {
            "endpoint": lakefs.url,
            "key_id_file": str(lakefs.files["key_id"]),
            "secret_file": str(lakefs.files["secret"]),
            "verdict_keys": [public_key(signing_key.read_text())],
        }
        port = free_port()
        home = folder / "validation"
        home.mkdir()
        settings = home / "settings.json"
        settings.write_text(
            json.dumps(
                {
                    "listen": {"port": port, "token_file": str(token)},
                    "hook_secret_file": str(hook),
                    "signing_key_file": str(signing_key),
                    "lake": lake,
                    "suites": dict.fromkeys(repositories, str(SUITE)),
                    "reports": str(home / "reports"),
                }
            )
        )
        validation = Server(
            url=f"http://127.0.0.1:{port}",
            auth=("", ""),
            folder=home,
            health="/healthz",
            argv=[sys.executable, "-m", "tidemill.runtime.validation", "--settings", str(settings)],
            env={},
        )
        validation.start()
        try:
            made = GatedLake(LakeSettings.model_validate(lake), lakefs, validation, hook.read_text(), token.read_text())
            for name in repositories:
                made.repository(name)
            yield made
        finally:
            validation.stop()
