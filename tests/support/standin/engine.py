"""The real engine, driven as tidemill drives it, on a stack whose providers are stand-ins.

stack = StandinStack(tmp_path, "docker", {"models": {...}})
stack.run("preview").unknowns()
made = stack.run("up")
assert made.of("docker:index/container:Container")["lakefs"].inputs["readOnly"]
assert stack.run("up").outcome.changed == 0
stack.write({...})  # another config
stack.run("up")
stack.run("destroy")  # RefusedError while there is data
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import yaml
from tidemill.components import tools
from tidemill.components.layout import StackRoot
from tidemill.stacks.engine.events import Event
from tidemill.stacks.engine.run import Engine, Outcome
from tidemill.stacks.loading import LoadedStack, load_stack, project_settings
from tidemill.stacks.program import stack_program

ROOT = Path(__file__).resolve().parents[3]
SUITE = (
    '{"name": "x", "expectations": [{"type": "expect_column_to_exist", "kwargs": {"column": "x"}}],'
    ' "meta": {"tidemill": {"path": "boats"}}}'
)
"""A suite for the repository of a sample config; its folder is `boats`."""
PACKAGES = ("tidemill-native", "docker", "docker-build", "aws", "random")
Action = Literal["preview", "up", "refresh", "destroy", "delete"]


@dataclass(frozen=True)
class Entry:
    """One line of the record.

    Attributes:
        action: create, update, delete, read, invoke or configure.
        type, name, urn: of the resource.
        inputs: what the program gave; an unknown value is the text `<unknown>`.
        secrets, unknowns: paths within the inputs.
        preview: whether it was only asked what would become of it.
    """

    action: str
    type: str = ""
    name: str = ""
    urn: str = ""
    id: str = ""
    package: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    unknowns: list[str] = field(default_factory=list)
    preview: bool = False


@dataclass(frozen=True)
class Run:
    """What one run of the engine did.

    Attributes:
        outcome: how it ended.
        events: what was told meanwhile.
        entries: what the stand-ins recorded.
    """

    outcome: Outcome
    events: list[Event]
    entries: list[Entry]

    def of(self, token: str) -> dict[str, Entry]:
        """Return name -> entry of the resources of type `token` which were made or changed."""
        return {
            entry.name: entry for entry in self.entries if entry.type == token and entry.action in {"create", "update"}
        }

    def names(self, *actions: str) -> set[str]:
        """Return `type name` of every resource with which one of `actions` was done."""
        return {f"{entry.type} {entry.name}" for entry in self.entries if entry.action in actions}

    def unknowns(self) -> set[str]:
        """Return `name.path` of every input which was not known."""
        return {f"{entry.name}.{path}" for entry in self.entries for path in entry.unknowns}


class StandinStack:
    """A stack in a project of its own.

    Args:
        folder: where the project is made.
        target: the target of its config.
        config: what else stands in `tidemill:stack`; `team` and `environment` have defaults.
        environment: variables for the engine and its providers, such as a backend.
        files: path -> text of files of the project, such as training code.
        policy: whether each resource is asked what the policy pack asks.
        program: what is run in place of the program which the config asks for, and given that one.
    """

    def __init__(
        self,
        folder: Path,
        target: str,
        config: Mapping[str, Any] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        policy: bool = True,
        program: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        tools.ensure("pulumi")
        self.project = folder / "project"
        self.record = folder / "record.jsonl"
        self.gone = folder / "gone"
        self.environment = dict(environment or {})
        self.policy = policy
        self.program = program
        (self.project / "config").mkdir(parents=True)
        plugins = plugins_of(folder / "bin", *PACKAGES)
        settings = {
            "name": "standin",
            "runtime": "python",
            "stackConfigDir": "config",
            "options": {"refresh": "always"},
            "plugins": {"providers": plugins},
        }
        (self.project / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
        for name, text in (files or {}).items():
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            (self.project / name).write_text(text)
        self.target = target
        self.write(config or {})

    def write(self, config: Mapping[str, Any], *, target: str | None = None) -> None:
        """Write the stack config again, with `target` in place of the stack's target where given."""
        self.target = target or self.target
        whole = {"team": "harbour", "environment": "dev", "target": self.target, **config}
        self.stack = f"{whole['team']}-{whole['environment']}"
        self.file = self.project / "config" / f"Pulumi.{self.stack}.yaml"
        kept: dict[str, Any] = yaml.safe_load(self.file.read_text()) if self.file.is_file() else {}
        kept["config"] = {"tidemill:stack": whole}
        self.file.write_text(yaml.safe_dump(kept))

    @property
    def root(self) -> StackRoot:
        """The stack's folders on this machine."""
        return StackRoot.of(self.project, self.stack)

    def load(self) -> LoadedStack:
        """Return the config as the command line reads it."""
        project_settings.cache_clear()
        return load_stack(self.project, self.stack)

    def run(self, action: Action, **options: Any) -> Run:
        """Run the engine once; `delete` destroys the data too."""
        events: list[Event] = []
        before = len(self.entries())
        with self._engine(events) as engine:
            match action:
                case "preview":
                    outcome = engine.preview()
                case "up":
                    outcome = engine.up(**options)
                case "refresh":
                    outcome = engine.refresh()
                case "destroy":
                    outcome = engine.destroy()
                case "delete":
                    outcome = engine.destroy(delete_data=True)
        return Run(outcome, events, self.entries()[before:])

    @contextmanager
    def _engine(self, events: list[Event]) -> Iterator[Engine]:
        loaded = self.load()
        records = {
            "STANDIN_RECORD": str(self.record),
            "STANDIN_GONE": str(self.gone),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        mine = {key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "TIDEMILL_"))}
        mine |= {key: os.environ[key] for key in ("TIDEMILL_CACHE",) if key in os.environ}
        with mock.patch.dict(os.environ, mine | self.environment | records, clear=True):
            program = stack_program(loaded)
            given = functools.partial(self.program, program) if self.program else program
            yield Engine(loaded, given, listener=events.append, policy=self.policy)

    def entries(self) -> list[Entry]:
        """Return the whole record."""
        if not self.record.is_file():
            return []
        return [Entry(**json.loads(line)) for line in self.record.read_text().splitlines()]

    def state(self) -> str:
        """Return all that the engine wrote down; on a file backend with the backups."""
        files = [path for path in (self.project / ".tidemill" / "state").rglob("*") if path.is_file()]
        return "\n".join(path.read_text(errors="replace") for path in files) or json.dumps(self._exported())

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources of the engine's state."""
        files = list((self.project / ".tidemill" / "state").rglob(f"stacks/*/{self.stack}.json"))
        latest = json.loads(files[0].read_text())["checkpoint"]["latest"] if files else self._exported()
        return latest["resources"]

    def _exported(self) -> dict[str, Any]:
        with self._engine([]) as engine:
            return dict(engine._handle.export_stack().deployment or {})

    def secrets(self) -> dict[str, str]:
        """Return name -> value of every secret which is kept on this machine."""
        return {path.name: path.read_text().strip() for path in self.root.secrets.glob("*") if path.is_file()}


def plugins_of(folder: Path, *packages: str, module: str = "provider") -> list[dict[str, str]]:
    """Return what Pulumi.yaml says of stand-ins for `packages`, whose executables are made below `folder`."""
    return [{"name": package, "path": str(_executables(folder, package, module))} for package in packages]


def _executables(folder: Path, package: str, module: str) -> Path:
    """Make the stand-in's executable for `package` and return its folder; the engine asks for one folder a plugin."""
    own = folder / package
    own.mkdir(parents=True, exist_ok=True)
    path = own / f"pulumi-resource-{package}"
    shell = shutil.which("sh") or "/bin/sh"
    path.write_text(
        f"#!{shell}\nPYTHONPATH='{ROOT}' exec '{sys.executable}' -m tests.support.standin.{module} {package} \"$@\"\n"
    )
    path.chmod(0o755)
    return own
