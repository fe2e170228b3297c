# ruff: noqa: N802 - the names of the methods are those of the protocol
"""A language host for the real `pulumi` command line, for tests only.

A user's Pulumi brings the vendor's Python language host; the engine which is built from its Go module has none. This
one runs a program as the vendor's does: in a process of its own with the Python of the project's virtual environment,
the program's folder as working directory, "." first on `sys.path`, the config in PULUMI_CONFIG, exit code 32 for an
error which the engine was told of already.

    folder = install(tmp_path)  # holds `pulumi-language-python`
    subprocess.run([pulumi, "up"], env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

_REPORTED = 32  # the vendor's exit code of a program whose error the engine was told of


def install(folder: Path) -> Path:
    """Write the executable `pulumi-language-python` into `folder`, made if need be, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "pulumi-language-python"
    # -P: this file's own folder must not be on sys.path, its neighbours are named like standard modules.
    command = shlex.join([sys.executable, "-u", "-P", str(Path(__file__).resolve()), "serve"])
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o755)
    return folder


def serve(engine: str) -> None:
    """Answer the engine at the address `engine` until it ends."""
    from concurrent.futures import ThreadPoolExecutor

    import grpc
    from google.protobuf import empty_pb2
    from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

    children: list[subprocess.Popen[bytes]] = []

    class Host(language_pb2_grpc.LanguageRuntimeServicer):
        def Handshake(self, request: Any, context: Any) -> Any:
            return language_pb2.LanguageHandshakeResponse()

        def GetPluginInfo(self, request: Any, context: Any) -> Any:
            return plugin_pb2.PluginInfo(version="0.0.0")

        def GetRequiredPackages(self, request: Any, context: Any) -> Any:
            return language_pb2.GetRequiredPackagesResponse()  # Pulumi.yaml names the only one

        def GetRequiredPlugins(self, request: Any, context: Any) -> Any:
            return language_pb2.GetRequiredPluginsResponse()

        def RuntimeOptionsPrompts(self, request: Any, context: Any) -> Any:
            return language_pb2.RuntimeOptionsResponse()

        def InstallDependencies(self, request: Any, context: Any) -> Any:
            yield from ()  # the environment is there already

        def About(self, request: Any, context: Any) -> Any:
            return language_pb2.AboutResponse(executable=sys.executable, version=sys.version.split()[0])

        def GetProgramDependencies(self, request: Any, context: Any) -> Any:
            return language_pb2.GetProgramDependenciesResponse()

        def Cancel(self, request: Any, context: Any) -> Any:
            for child in children:
                child.terminate()
            return empty_pb2.Empty()

        def Run(self, request: Any, context: Any) -> Any:
            options = {key: value.string_value for key, value in request.info.options.fields.items()}
            argv, environment = command_of(request, options, engine)
            child = subprocess.Popen(argv, cwd=request.info.program_directory or request.pwd, env=environment)
            children.append(child)
            code = child.wait()
            if code == _REPORTED:
                return language_pb2.RunResponse(bail=True)
            return language_pb2.RunResponse(error=f"Program exited with non-zero exit code: {code}" if code else "")

    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(Host(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    threading.Thread(target=_end_with_parent, args=(children,), daemon=True).start()
    print(port, flush=True)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:  # how the engine ends its plugins
        for child in children:
            child.terminate()


def command_of(request: Any, options: dict[str, str], engine: str) -> tuple[list[str], dict[str, str]]:
    """Return the command and the environment of the program which `request` (a RunRequest) asks for."""
    environment = dict(os.environ)
    environment["PULUMI_CONFIG"] = json.dumps(dict(request.config))
    environment["PULUMI_CONFIG_SECRET_KEYS"] = json.dumps(list(request.configSecretKeys))
    python = sys.executable
    if options.get("virtualenv"):
        virtualenv = Path(request.info.root_directory) / options["virtualenv"]
        python = str(virtualenv / "bin" / "python")
        environment["VIRTUAL_ENV"] = str(virtualenv)
        environment["PATH"] = f"{virtualenv / 'bin'}{os.pathsep}{environment.get('PATH', '')}"
        environment.pop("PYTHONHOME", None)
    settings = {
        "monitor": request.monitor_address,
        "engine": engine,
        "project": request.project,
        "stack": request.stack,
        "organization": request.organization,
        "root_directory": request.info.root_directory,
        "parallel": str(request.parallel),
        "dry_run": "true" if request.dryRun else "false",
    }
    argv = [python, "-u", "-P", str(Path(__file__).resolve()), "run"]
    argv += [part for key, value in settings.items() for part in (f"--{key}", value)]
    return [*argv, request.info.entry_point or request.program or ".", *request.args], environment


def run(args: argparse.Namespace) -> int:
    """Run the program `args.program`; in its own process."""
    import asyncio
    import logging
    import runpy
    import traceback

    import pulumi
    import pulumi.runtime
    from pulumi.runtime.settings import reset_options

    secret_keys = pulumi.runtime.get_config_secret_keys_env()
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), secret_keys)
    reset_options(
        project=args.project,
        stack=args.stack,
        root_directory=args.root_directory,
        parallel=int(args.parallel),
        engine_address=args.engine,
        monitor_address=args.monitor,
        preview=args.dry_run == "true",
        organization=args.organization,
    )
    sys.argv = [args.program, *args.arguments]
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # as the vendor's: the engine has told what failed

    def program() -> None:
        runpy.run_path(args.program, run_name="__main__")

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(program))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return _REPORTED
    except Exception:  # noqa: BLE001 - whatever the program raised is its author's to see
        pulumi.log.error(traceback.format_exc())
        return _REPORTED
    finally:
        loop.close()
    return 0


def _end_with_parent(children: list[subprocess.Popen[bytes]]) -> None:
    """End when the engine is killed, and the program with it."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.2)
    for child in children:
        child.kill()
    os._exit(1)


def main() -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve").add_argument("rest", nargs="+")  # the engine's address comes last
    runner = commands.add_parser("run")
    for name in ("monitor", "engine", "project", "stack", "organization", "root_directory", "parallel", "dry_run"):
        runner.add_argument(f"--{name}")
    runner.add_argument("program")
    runner.add_argument("arguments", nargs="*")
    args = parser.parse_args()
    if args.command == "serve":
        serve(args.rest[-1])
        return 0
    return run(args)


if __name__ == "__main__":
    sys.exit(main())
