"""Runs of the engine: up, preview, refresh, destroy, on the project and state that a plain `pulumi` also uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pulumi import RunError
from pulumi.automation import CommandResult, LocalWorkspace, OutputMap, Stack, UpdateSummary
from pulumi.automation._stack import StackInitMode  # an argument of Stack that is not exported
from pulumi.automation.errors import CommandError, ConcurrentUpdateError, InvalidVersionError, StackNotFoundError

from ...components.layout import StackRoot, home
from ...runtime.common.errors import RefusedError, TidemillError, UserError
from ..loading import LoadedStack, project_settings
from ..operations import remove_deletion_protection
from .command import EngineCommand
from .config_file import config_restored, config_with_salt
from .environment import backend_folder, engine_environment
from .events import Event, Listener, Translator
from .failures import explain
from .locks import clear_dead_locks, run_lock
from .policies import PACK, install
from .preparation import ensure_tools, get_tool, require_free_ports
from .state import Deployment, drop_torn_attributes, read_checkpoint, remove_traces

T = TypeVar("T")

_PARALLEL = 16  # most of the time, services wait for their health checks


@dataclass(frozen=True)
class Outcome:
    """Outcome of a run.

    Attributes:
        changes: operation -> number of resources, including the stack itself.
        notes: tidemill's messages during the run.
    """

    changes: dict[str, int] = field(default_factory=dict[str, int])
    notes: tuple[str, ...] = ()

    @property
    def changed(self) -> int:
        """Number of resources that were created, changed or deleted."""
        return sum(count for operation, count in self.changes.items() if operation not in ("same", "refresh", "read"))


class _Workspace(LocalWorkspace):
    """A workspace that never selects a stack: every command names it, and the user's selection stays."""

    def select_stack(self, stack_name: str) -> None:  # noqa: ARG002 - the base class's signature
        return


class _Stack(Stack):
    """A stack without three unused queries of the engine."""

    def outputs(self) -> OutputMap:
        return {}

    def info(self, show_secrets: bool = True) -> UpdateSummary | None:  # noqa: ARG002 - the base class's signature
        return UpdateSummary("", datetime.now(UTC), "", {}, {}, "succeeded")


class Engine:
    """Drives one stack.

    Args:
        loaded: the stack's config.
        program: declares its resources.
        executable: the engine's command; None installs the one of the tools table.
        listener: receives the events.
        policy: whether the policy pack checks the resources.
    """

    def __init__(
        self,
        loaded: LoadedStack,
        program: Callable[[], None],
        *,
        executable: Path | None = None,
        listener: Listener | None = None,
        policy: bool = False,
    ) -> None:
        self.loaded = loaded
        self._policy = policy
        self.stack = loaded.config.stack
        self._executable = executable
        self._program = program
        self._listener: Listener = listener or (lambda _: None)
        self._program_error: TidemillError | None = None
        self._notes: list[str] = []
        self._salt: str | None = None
        self._environment = engine_environment(loaded)
        self._home = home(loaded.project)
        self._config_file = self._home / "config" / loaded.file.name
        self._project = str(project_settings(loaded.project)["name"])
        self._folder = backend_folder(loaded.project, {**os.environ, **self._environment})

    def up(self, recreate: Sequence[str] = ()) -> Outcome:
        """Create or change the platform to match the config, and repair differences.

        Args:
            recreate: names of lost data resources that may be recreated empty.

        Raises:
            PlatformError: a fixed port is taken, a tool cannot be installed, or the engine failed.
        """
        if recreate:
            self._environment["TIDEMILL_RECREATE"] = ",".join(recreate)
        with self._locked():
            require_free_ports(self.loaded)
            ensure_tools(self.loaded, self._note)
            self._ready()
            return self._run(lambda stack, on_event: stack.up(on_event=on_event, suppress_outputs=True, **self._common))

    def preview(self) -> Outcome:
        """Report what `up` would do, without changing the platform."""
        self._ready(clear=False)
        return self._run(lambda stack, on_event: stack.preview(on_event=on_event, **self._common))

    def refresh(self) -> Outcome:
        """Update the state from the actual resources, without changing the platform."""
        with self._locked():
            self._ready()
            return self._run(lambda stack, on_event: stack.refresh(on_event=on_event, **self._quiet))

    def destroy(self, *, delete_data: bool = False) -> Outcome:
        """Remove the platform; with `delete_data`, also all its data.

        Raises:
            RefusedError: the platform holds data, and `delete_data` is not set.
        """
        with self._locked() as lock:
            deployment = self.deployment()
            if deployment is None:
                self._note("the state has no such stack: nothing to destroy")
                if delete_data:
                    self._remove_files(lock)
                return Outcome(notes=tuple(self._notes))
            if deployment.protected and not delete_data:
                raise self.refusal(deployment)
            if delete_data:
                self._environment["TIDEMILL_DELETE_DATA"] = self.stack
                remove_deletion_protection(self.loaded)
            if deployment.pending:
                self._clear_pending(deployment)
            if deployment.protected:
                self._command("state", "unprotect", "--all", "--yes", "--stack", self.stack)
            outcome = self._run(lambda stack, on_event: stack.destroy(on_event=on_event, **self._quiet))
            if delete_data:
                self._command(
                    "stack", "rm", self.stack, "--yes", "--preserve-config",
                    *(["--remove-backups"] if self._folder else []),
                )  # fmt: skip
                self._remove_files(lock)
            return outcome

    def refusal(self, deployment: Deployment) -> RefusedError:
        """Return the error for destroying a stack with data; it names both options."""
        names = ", ".join(deployment.protected[:6]) + (", ..." if len(deployment.protected) > 6 else "")
        return RefusedError(
            f"holds data ({names}) and is not destroyed",
            field=self.stack,
            hint="`tidemill stop` stops all services and keeps everything; "
            "`tidemill destroy --delete-data` deletes everything",
        )

    def deployment(self) -> Deployment | None:
        """Return the stack's state, or None if it has none."""
        if self._folder is not None:
            deployment = read_checkpoint(self._folder, self._project, self.stack)
        else:
            try:
                deployment = Deployment.of(dict(self._handle.export_stack().deployment or {}))
            except StackNotFoundError:
                deployment = None
            except CommandError as error:
                raise explain(error, [], self.loaded) from None
        self._salt = deployment.salt if deployment else None
        return deployment

    @property
    def _quiet(self) -> dict[str, Any]:
        return {**self._output, "suppress_outputs": True}

    @property
    def _common(self) -> dict[str, Any]:
        # Pulumi.yaml sets `refresh` too, but that of another project may not.
        packs = {"policy_packs": [str(PACK)]} if self._policy else {}
        return {**self._output, "refresh": True, **packs}

    @property
    def _output(self) -> dict[str, Any]:
        config_file = config_with_salt(self.loaded, self._salt, self._config_file)
        return {
            "color": "never",
            "suppress_progress": True,
            "parallel": _PARALLEL,
            "config_file": str(config_file) if config_file else None,
        }

    @cached_property
    def _handle(self) -> Stack:
        executable = self._executable or get_tool("pulumi", self._note)
        try:
            command = EngineCommand(executable, self._note)
        except InvalidVersionError as error:
            raise UserError(str(error), field="pulumi", value=str(executable), hint="see `tidemill doctor`") from None
        if self._policy:
            self._environment["PATH"] = os.pathsep.join([str(install(self._home)), os.environ["PATH"]])
        workspace = _Workspace(
            work_dir=str(self.loaded.project),
            program=self._guarded,
            env_vars=self._environment,
            secrets_provider=self.loaded.secrets_provider,
            pulumi_command=command,
        )
        return _Stack(self.stack, workspace, StackInitMode.SELECT)

    def _guarded(self) -> None:
        """Run the program; keep tidemill's errors, which the engine would report as tracebacks."""
        try:
            self._program()
        except TidemillError as error:
            self._program_error = error
            raise RunError(str(error)) from None

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._listener(Event("note", text=text))

    @contextmanager
    def _locked(self) -> Generator[Path]:
        with run_lock(self._home, self.stack) as lock:
            if self._folder is not None:
                drop_torn_attributes(self._folder)
            yield lock

    def _ready(self, *, clear: bool = True) -> None:
        """Create the stack in the state if necessary, and clear what a killed engine left in it."""
        deployment = self.deployment()
        if deployment is None:
            provider = ["--secrets-provider", given] if (given := self.loaded.secrets_provider) else []
            with config_restored(self.loaded):
                self._command("stack", "init", self.stack, "--no-select", *provider)
            self.deployment()
        elif deployment.pending and clear:
            self._clear_pending(deployment)

    def _clear_pending(self, deployment: Deployment) -> None:
        names = ", ".join(deployment.pending)
        self._note(f"an earlier run was killed while it created {names}: taking over or recreating what it left")
        silent = Translator(lambda _: None)
        self._attempt(lambda: self._handle.refresh(on_event=silent, clear_pending_creates=True, **self._quiet), silent)

    def _command(self, *args: str) -> CommandResult:
        """Run one engine command on this stack."""
        workspace = self._handle.workspace
        return self._attempt(
            lambda: workspace.pulumi_command.run(list(args), str(workspace.work_dir), dict(self._environment)),
            Translator(lambda _: None),
        )

    def _run(self, operation: Callable[[Stack, Translator], object]) -> Outcome:
        translator = Translator(self._listener)
        self._attempt(lambda: operation(self._handle, translator), translator)
        changes = dict(translator.changes)
        return Outcome(changes, tuple(self._notes))

    def _attempt(self, operation: Callable[[], T], translator: Translator) -> T:
        """Run `operation`, and repeat it once after removing a dead lock."""
        try:
            try:
                return operation()
            except ConcurrentUpdateError as error:
                clear_dead_locks(str(error), self.stack, self._handle.cancel, self._note)
                translator.errors.clear()
                return operation()
        except ConcurrentUpdateError as error:
            clear_dead_locks(str(error), self.stack, self._handle.cancel, self._note)
            raise explain(error, translator.errors, self.loaded) from None
        except CommandError as error:
            if self._program_error:
                raise self._program_error from None
            command = self._handle.workspace.pulumi_command
            interrupted = isinstance(command, EngineCommand) and command.interrupted
            raise explain(error, translator.errors, self.loaded, interrupted=interrupted) from None

    def _remove_files(self, lock: Path) -> None:
        """Remove all files of a removed stack."""
        root = StackRoot.of(self.loaded.project, self.stack)
        if root.socket.parent != root.run and root.socket.parent.is_dir():
            shutil.rmtree(root.socket.parent)
        if root.path.is_dir():
            shutil.rmtree(root.path)
        if self._folder is not None:
            remove_traces(self._folder, self._project, self.stack)
        self._config_file.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)
