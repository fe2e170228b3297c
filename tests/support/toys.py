"""Small services and programs by which the provider is tried with the real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi import automation as auto
from tidemill.components import tools
from tidemill.components.layout import StackRoot
from tidemill.components.provider import resources as native
from tidemill.components.provider.local import launch
from tidemill.components.provider.local.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"
STACK = "toys-dev"

# Answers /healthz; started with FORK=1 it has a child of its own, as servers with workers do.
SERVER = """
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/healthz" else 404)
        self.end_headers()
    def log_message(self, *args): pass
server = http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
if os.environ.get("FORK") and os.fork() == 0:
    while True: time.sleep(1)
print("serving", flush=True)
server.serve_forever()
"""

_SLOW = """
import sys
from pathlib import Path
from tests.support.toys import Engine, slow_program
engine = Engine(Path(sys.argv[1]))
engine.up(slow_program(engine))
"""


class Engine:
    """A project of its own, run by the real engine through the Automation API."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.project.mkdir(parents=True, exist_ok=True)
        (folder / "state").mkdir(exist_ok=True)
        self.folder = folder
        (folder / "passphrase").write_text("correct horse")
        (self.project / "Pulumi.yaml").write_text(
            f"name: toys\nruntime: python\nplugins:\n  providers:\n    - {{name: tidemill-native, path: '{BIN}'}}\n"
        )
        self.root = StackRoot(folder / "home" / "stacks" / STACK)
        self.state = folder / "state"
        engine = tools.find("pulumi")
        self.env = {
            "PATH": f"{engine.parent}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_BACKEND_URL": f"file://{self.state}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(folder / "passphrase"),
            "PULUMI_HOME": str(folder / "pulumi"),
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        self.command = auto.PulumiCommand(root=str(engine.parent.parent), skip_version_check=False)

    def stack(self, program: Callable[[], None], **env: str) -> auto.Stack:
        """Return the stack with `program` as its program."""
        options = auto.LocalWorkspaceOptions(
            work_dir=str(self.project), env_vars=self.env | env, pulumi_command=self.command
        )
        return auto.create_or_select_stack(STACK, project_name="toys", program=program, opts=options)

    def up(self, program: Callable[[], None], **env: str) -> auto.UpResult:
        """Run `up` with a refresh, as the product does."""
        return self.stack(program, **env).up(refresh=True, on_output=lambda line: print(line, flush=True))

    def start_slow(self) -> subprocess.Popen[bytes]:
        """Begin an `up` of `slow_program` in a process of its own, to be interrupted."""
        return subprocess.Popen(
            [sys.executable, "-c", _SLOW, str(self.folder)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def pid(self, name: str) -> int:
        """Return the number of the recorded process of the service `name`, which must live."""
        record = launch.read_record(self.root.record(name))
        assert record is not None, f"no record of {name}"
        assert launch.alive(record), f"{name} does not live"
        return int(record["pid"])

    def processes(self, name: str = "") -> list[int]:
        """Return every process of the stack, or of its service `name`."""
        wanted = f"{self.root.path}/{name}"
        return [
            pid
            for pid in launch.processes()
            if ((marker := launch.marker_of(pid) or "") == wanted or (not name and marker.startswith(wanted)))
            and launch.start_mark(pid)
        ]

    def state_text(self) -> str:
        """Return all the engine wrote down, backups included."""
        files = [path for path in self.state.rglob("*") if path.is_file()]
        assert files
        return "\n".join(path.read_text(errors="replace") for path in files)

    def close(self) -> None:
        """End every process of the stack."""
        Supervisor(self.root).stop()


def endpoint(engine: Engine, name: str, **more: Any) -> native.Endpoint:
    return native.Endpoint(name, stack=STACK, root=str(engine.root.path), **more)


def service(engine: Engine, name: str, after: native.Endpoint, code: str = SERVER, **more: Any) -> native.Service:
    """A toy which answers /healthz on its endpoint."""
    given: dict[str, Any] = {
        "argv": ["@{python}", "-c", code, "@{host}", "@{port}"],
        "endpoints": [name],
        "health": {"path": "/healthz", "timeout": 20.0},
        "opts": pulumi.ResourceOptions(depends_on=[after]),
    }
    return native.Service(name, stack=STACK, root=str(engine.root.path), **(given | more))


def changes(result: auto.UpResult) -> Mapping[str, int]:
    """Return the counts of what `up` did."""
    return {str(getattr(key, "value", key)): count for key, count in (result.summary.resource_changes or {}).items()}


def slow_program(engine: Engine) -> Callable[[], None]:
    """Return a program of which a service and a job take some seconds."""

    def program() -> None:
        one, two = endpoint(engine, "one"), endpoint(engine, "two")
        service(engine, "one", one, code=f"import time; time.sleep(4)\n{SERVER}")
        native.Folder("store", stack=STACK, root=str(engine.root.path))
        native.Job("job", stack=STACK, root=str(engine.root.path), argv=["sh", "-c", "sleep 4; echo done"])
        service(engine, "two", two)

    return program
