"""Stand-up and no-op of a platform against doing it by hand.

    python -m tests.benchmarks.platform [--rounds N] [noop] [standup]

`noop`: a second `tidemill up` of a platform against an empty program of the same engine, refresh on for both. The peer
is the Automation API as it is documented. Its `up` asks the engine for outputs and history in runs of their own, which
tidemill leaves out; so a second peer, for information, is an empty program with the same left out.
`standup`: `tidemill up` of lakeFS, MLflow, Prometheus and Alertmanager, the engine included, against the same four
started by hand all at once with their documented commands and the same authentication; and the memory of both.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
from tidemill.components import tools

from tests.benchmarks.measure import interleave, report
from tests.support.platform import BIN, RunningPlatform, copy_project, processes_of
from tests.support.ports import free_ports

FIVE_LINES = "config:\n  tidemill:stack:\n    team: bench\n    environment: dev\n"

EMPTY = """\
import os, pulumi.automation as auto
work = os.environ["WORK"]
opts = auto.LocalWorkspaceOptions(
    work_dir=work, pulumi_command=auto.PulumiCommand(os.environ["ENGINE_ROOT"]),
    project_settings=auto.ProjectSettings(name="empty", runtime="python",
        backend=auto.ProjectBackend(url=f"file://{work}/state")),
    env_vars={"PULUMI_CONFIG_PASSPHRASE": "benchmark", "PULUMI_SKIP_UPDATE_CHECK": "true"})
stack = auto.create_or_select_stack("empty", project_name="empty", program=lambda: None, opts=opts)
stack.up(refresh=True)
"""


LEAN = """\
from pathlib import Path
from tidemill.stacks.engine.run import Engine
from tidemill.stacks.loading import load_stack
Engine(load_stack(Path.cwd(), "empty-dev"), lambda: None).up()
"""


def five_line_platform(folder: Path) -> RunningPlatform:
    """Return a platform, not yet up, of a stack config of five lines."""
    project = copy_project(folder / "project")
    (project / "stacks/config/Pulumi.bench-dev.yaml").write_text(FIVE_LINES)
    return RunningPlatform(project, "bench-dev")


def noop(rounds: int) -> float:
    """Print the ratios of a no-op `up` to empty programs, and return the one which has a goal."""
    with tempfile.TemporaryDirectory() as folder:
        platform = five_line_platform(Path(folder))
        (platform.project / "stacks/config/Pulumi.empty-dev.yaml").write_text(FIVE_LINES.replace("bench", "empty"))
        engine = Path(folder) / "engine" / "bin"
        engine.mkdir(parents=True)
        (engine / "pulumi").symlink_to(tools.find("pulumi"))
        work = Path(folder) / "empty"
        (work / "state").mkdir(parents=True)
        env = platform.environment(WORK=str(work), ENGINE_ROOT=str(engine.parent))

        def ours() -> float:
            start = time.perf_counter()
            output = platform.check("up", "--yes", "--no-wait", "--stack", platform.stack)
            assert "no changes" in output.lower(), output
            return time.perf_counter() - start

        def python(script: str) -> float:
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, "-c", script], cwd=platform.project, env=env, check=True, capture_output=True
            )
            return time.perf_counter() - start

        cases = {
            "tidemill up, no change": ours,
            "empty program": lambda: python(EMPTY),
            "empty, same left out": lambda: python(LEAN),
        }
        try:
            platform.check("up", "--yes", "--no-wait", "--stack", platform.stack)
            for script in (EMPTY, LEAN):
                python(script)
            figures = interleave(cases, rounds)
        finally:
            platform.close()
    lean = statistics.median(figures["tidemill up, no change"]) / statistics.median(figures["empty, same left out"])
    ratio = report("A second up", "s", figures, "tidemill up, no change", "empty program", 1.6)
    print(f"  for information: to an empty program with the same left out {lean:.2f}")
    return ratio


def by_hand(folder: Path) -> tuple[list[subprocess.Popen[bytes]], list[tuple[str, tuple[str, str] | None]]]:
    """Start the four with their documented commands; return the processes and the URLs which tell that they live."""
    lakefs, mlflow, prometheus, alertmanager = free_ports(4)
    folder.mkdir(parents=True)
    web = folder / "web.yml"
    # bcrypt of "benchmark-password", cost 10 as the documentation shows it.
    import bcrypt

    hashed = bcrypt.hashpw(b"benchmark-password", bcrypt.gensalt(10)).decode()
    web.write_text(f'basic_auth_users:\n  admin: "{hashed}"\n')
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    (folder / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    (folder / "auth.ini").write_text(
        f"[mlflow]\ndefault_permission = NO_PERMISSIONS\ndatabase_uri = sqlite:///{folder}/auth.db\n"
        "admin_username = admin\nadmin_password = benchmark-password\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    env = {
        **os.environ,
        "LAKEFS_AUTH_ENCRYPT_SECRET_KEY": "benchmark-encrypt-key",
        "LAKEFS_INSTALLATION_USER_NAME": "admin",
        "LAKEFS_INSTALLATION_ACCESS_KEY_ID": "AKIAIOSFOLKFSSAMPLES",
        "LAKEFS_INSTALLATION_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "LAKEFS_DATABASE_TYPE": "local",
        "LAKEFS_DATABASE_LOCAL_PATH": str(folder / "lakefs-kv"),
        "LAKEFS_BLOCKSTORE_TYPE": "local",
        "LAKEFS_BLOCKSTORE_LOCAL_PATH": str(folder / "lakefs-objects"),
        "LAKEFS_COMMITTED_LOCAL_CACHE_DIR": str(folder / "lakefs-cache"),
        "LAKEFS_LISTEN_ADDRESS": f"127.0.0.1:{lakefs}",
        "LAKEFS_STATS_ENABLED": "false",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "benchmark-session-key",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    commands = [
        [str(tools.find("lakefs")), "run"],
        [
            str(BIN / "mlflow"), "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(mlflow),
            "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
            "--artifacts-destination", str(folder / "artifacts"),
            "--expose-prometheus", str(folder / "metrics"),
        ],
        [
            str(tools.find("prometheus")), f"--config.file={folder}/prometheus.yml", f"--web.config.file={web}",
            f"--web.listen-address=127.0.0.1:{prometheus}", f"--storage.tsdb.path={folder}/tsdb",
        ],
        [
            str(tools.find("alertmanager")), f"--config.file={folder}/alertmanager.yml", f"--web.config.file={web}",
            f"--web.listen-address=127.0.0.1:{alertmanager}", f"--storage.path={folder}/am",
            "--cluster.listen-address=",
        ],
    ]  # fmt: skip
    log = (folder / "log").open("wb")
    started = [
        subprocess.Popen(command, env=env, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        for command in commands
    ]
    admin = ("admin", "benchmark-password")
    return started, [
        (f"http://127.0.0.1:{lakefs}/_health", None),
        (f"http://127.0.0.1:{mlflow}/health", None),
        (f"http://127.0.0.1:{prometheus}/-/healthy", admin),
        (f"http://127.0.0.1:{alertmanager}/-/healthy", admin),
    ]


@contextlib.contextmanager
def ended(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """End `processes` and what they started, by their groups' ids."""
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def memory_mb(processes: list[psutil.Process]) -> float:
    """Return the proportional set size of `processes` in MB: pages which several share count once."""
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def standup(rounds: int) -> tuple[float, float]:
    """Print and return the ratios of time and of memory."""
    memory: dict[str, list[float]] = {"tidemill up": [], "by hand": []}
    with tempfile.TemporaryDirectory() as folder:
        turn = 0

        def ours() -> float:
            nonlocal turn
            turn += 1
            platform = five_line_platform(Path(folder) / f"ours-{turn}")
            try:
                start = time.perf_counter()
                platform.check("up", "--yes", "--no-wait", "--stack", platform.stack)
                took = time.perf_counter() - start
                names = {"lakefs", "mlflow", "prometheus", "alertmanager"}
                assert set(platform.services()) == names
                memory["tidemill up"].append(memory_mb(processes_of(platform.root)))
            finally:
                platform.close()
            return took

        def hand() -> float:
            nonlocal turn
            turn += 1
            start = time.perf_counter()
            processes, urls = by_hand(Path(folder) / f"hand-{turn}")
            with ended(processes):
                waiting = list(urls)
                while waiting:
                    url, auth = waiting[0]
                    try:
                        healthy = httpx.get(url, auth=auth, timeout=5).status_code == 200
                    except httpx.HTTPError:
                        healthy = False
                    if healthy:
                        waiting.pop(0)
                    else:
                        assert time.perf_counter() - start < 180, f"{url} did not become healthy"
                        time.sleep(0.05)
                took = time.perf_counter() - start
                family = [psutil.Process(process.pid) for process in processes]
                memory["by hand"].append(
                    memory_mb(family + [child for one in family for child in one.children(recursive=True)])
                )
            shutil.rmtree(Path(folder) / f"hand-{turn}")
            return took

        figures = interleave({"tidemill up": ours, "by hand": hand}, rounds)
    time_ratio = report("Stand-up", "s", figures, "tidemill up", "by hand", 0.65)
    return time_ratio, report("Memory (PSS)", "MB", memory, "tidemill up", "by hand", 0.5)


def main() -> int:
    """Run what is asked for, or everything; return 1 where a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("what", nargs="*", choices=["noop", "standup"], default=["noop", "standup"])
    args = parser.parse_args()
    met = True
    if "noop" in args.what:
        met = noop(args.rounds) <= 1.6
    if "standup" in args.what:
        time_ratio, memory_ratio = standup(args.rounds)
        met = met and time_ratio <= 0.65 and memory_ratio <= 0.5
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
