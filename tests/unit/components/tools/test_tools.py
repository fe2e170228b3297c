"""Tools are found, got once, verified, and got again where they are broken."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tidemill.components.tools import Package, Program, Toolbox, WayError, cache_folder
from tidemill.components.tools.base import Machine
from tidemill.components.tools.doctor import rows
from tidemill.components.tools.gobuild import GoBuild
from tidemill.components.tools.release import Release
from tidemill.components.tools.table import PACKAGES
from tidemill.runtime.common.errors import NotFoundError, ToolError

from tests.support.fake_tools import FakeWay, package, script

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


@pytest.fixture
def box(tmp_path: Path, log: Path) -> Toolbox:
    return Toolbox([package(FakeWay(log))], tmp_path / "cache")


def fills(log: Path) -> int:
    return len(log.read_text().splitlines())


def test_a_tool_is_got_once_and_then_found(box: Toolbox, log: Path) -> None:
    with pytest.raises(ToolError, match=r"^fake: version 1\.2\.3 is neither on PATH nor in the cache .*; run "):
        box.find("fake")
    said: list[str] = []
    path = box.ensure("fake", said.append)
    assert subprocess.check_output([path], text=True) == "fake 1.2.3\n"
    assert "fake: 1.2.3 is in the cache" in said[-1]
    assert box.find("fake") == box.ensure("fake") == path
    assert fills(log) == 1
    with pytest.raises(NotFoundError, match="use one of fake"):
        box.find("nail")


def test_a_truncated_program_is_not_found_and_is_replaced(box: Toolbox, log: Path) -> None:
    path = box.ensure("fake")
    os.truncate(path, 10)
    assert [row.state for row in rows(box)] == ["broken"]
    with pytest.raises(ToolError):
        box.find("fake")
    assert box.ensure("fake").read_text() == script("1.2.3")
    assert fills(log) == 2


def test_a_changed_program_of_the_same_size_and_time_is_replaced_by_the_next_run(
    box: Toolbox, log: Path, tmp_path: Path
) -> None:
    path = box.ensure("fake")
    state = path.stat()
    path.write_text(script("9.9.9"))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    next_run = Toolbox(box.packages, tmp_path / "cache")
    assert next_run.ensure("fake").read_text() == script("1.2.3")
    assert fills(log) == 2


def test_a_cache_which_was_copied_is_still_good(box: Toolbox, log: Path) -> None:
    path = box.ensure("fake")
    os.utime(path, (0, 0))
    assert box.find("fake") == path
    assert fills(log) == 1


def test_what_a_killed_run_left_is_no_entry_and_is_cleaned_up(box: Toolbox, tmp_path: Path) -> None:
    left = tmp_path / "cache" / "tools" / ".staging" / "fake-killed"
    left.mkdir(parents=True)
    (left / "half").write_text("#!/bin/sh")
    entry = tmp_path / "cache" / "tools" / "fake" / f"1.2.3-fake-{Machine.here()}"
    (entry / "bin").mkdir(parents=True)
    (entry / "bin" / "fake").write_text("#!/bin/sh")
    assert [row.state for row in rows(box)] == ["missing"]
    assert box.ensure("fake").read_text() == script("1.2.3")
    assert list(left.parent.iterdir()) == []


def test_two_processes_at_once_fill_the_cache_once(tmp_path: Path, log: Path) -> None:
    command = [sys.executable, "-m", "tests.support.fake_tools", str(tmp_path / "cache"), str(log), "0.7"]
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(answers) == 1
    assert fills(log) == 1


def test_the_error_says_what_was_tried_and_what_to_do(tmp_path: Path, log: Path) -> None:
    ways = (
        FakeWay(log, missing="there is no moon", name="moon"),
        FakeWay(log, fails="the sun is down", name="sun"),
        FakeWay(log, version="1.1.0", name="old"),
    )
    box = Toolbox([package(*ways)], tmp_path / "cache")
    with pytest.raises(ToolError) as caught:
        box.ensure("fake")
    assert str(caught.value) == (
        "fake: version 1.2.3 cannot be had here (on PATH: not found; moon: there is no moon; sun: the sun is down; "
        "old: it brought fake 1.1.0, wanted is at least 1.2.0 and below 2.0.0); put `fake` on PATH"
    )
    assert list((tmp_path / "cache" / "tools").glob("*/*")) == []


def test_a_cache_which_cannot_be_written_is_one_clear_sentence(tmp_path: Path, log: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ToolError, match="set TIDEMILL_CACHE to another folder"):
        Toolbox([package(FakeWay(log))], tmp_path / "file" / "cache").ensure("fake")


def test_path_comes_first_where_the_version_fits(
    box: Toolbox, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "fake"
    program.parent.mkdir()
    program.write_text(script("1.9.0"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    assert box.ensure("fake") == program
    assert (rows(box)[0].way, rows(box)[0].version) == ("path", "1.9.0")
    program.write_text(script("2.0.0"))
    assert box.ensure("fake") != program
    assert "is 2.0.0, which does not fit" in (rows(box)[0].note or "")
    assert fills(log) == 1


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDEMILL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tidemill"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == Path.home() / ".cache" / "tidemill"
    monkeypatch.setenv("TIDEMILL_CACHE", str(tmp_path / "own"))
    assert cache_folder() == tmp_path / "own"


class Vendor:
    """Serves a release and its checksum file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = vendor.files.get(self.path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{self.server.server_port}"
        self.way = Release(
            archive="fake-{version}.{os}-{arch}.tar.gz",
            url=f"{url}/v{{version}}",
            checksums=f"{url}/v{{version}}/sums.txt",
            programs={"fake": "fake-{version}/fake"},
            os_names={Machine.here().os: "Best"},
            arch_names={Machine.here().arch: "x"},
        )

    def publish(self, digest: str | None = None, member: str = "fake-1.2.3/fake") -> None:
        content = script("1.2.3").encode()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
        archive = buffer.getvalue()
        digest = digest or hashlib.sha256(archive).hexdigest()
        self.files["/v1.2.3/fake-1.2.3.Best-x.tar.gz"] = archive
        self.files["/v1.2.3/sums.txt"] = f"{'0' * 64}  other.tar.gz\n{digest} *fake-1.2.3.Best-x.tar.gz\n".encode()


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    vendor = Vendor()
    yield vendor
    vendor.server.shutdown()
    vendor.server.server_close()


def fake_package(way: Release) -> Package:
    return Package("fake", "1.2.3", "1.2.0", "2.0.0", (Program("fake"),), (way,), "put it on PATH")


def test_a_release_is_verified_by_the_vendors_checksums_and_unpacked(vendor: Vendor, tmp_path: Path) -> None:
    vendor.publish()
    path = Toolbox([fake_package(vendor.way)], tmp_path).ensure("fake")
    assert path.read_text() == script("1.2.3")
    assert "release" in str(path)


@pytest.mark.parametrize("filters", [True, False])
def test_a_release_cannot_write_outside_of_its_folder(
    vendor: Vendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filters: bool
) -> None:
    if not filters:  # Python before 3.11.4
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    vendor.publish(member="fake-1.2.3/../../fake")
    (tmp_path / "box").mkdir()
    with pytest.raises(WayError):
        vendor.way.fill(fake_package(vendor.way), tmp_path / "box", Machine.here(), print)
    assert not (tmp_path / "fake").exists()
    assert not (tmp_path / "box" / "fake").exists()


@pytest.mark.parametrize(
    ("digest", "sums", "message"),
    [
        ("1" * 64, None, f"the expected one is {'1' * 64}"),
        (None, b"", "so it cannot be verified"),
        (None, b"<html>404</html>", "so it cannot be verified"),
    ],
)
def test_a_release_which_cannot_be_verified_is_not_unpacked(
    vendor: Vendor, tmp_path: Path, digest: str | None, sums: bytes | None, message: str
) -> None:
    vendor.publish(digest)
    if sums is not None:
        vendor.files["/v1.2.3/sums.txt"] = sums
    with pytest.raises(WayError, match=message):
        vendor.way.fill(fake_package(vendor.way), tmp_path, Machine.here(), print)
    assert not (tmp_path / "release").exists()


def test_the_releases_have_the_vendors_addresses() -> None:
    by_name = {package.name: package for package in PACKAGES}
    found = {}
    for name, machine in (
        ("pulumi", Machine("linux", "amd64")),
        ("lakefs", Machine("darwin", "arm64")),
        ("grafana", Machine("linux", "arm64")),
    ):
        way = by_name[name].ways[0]
        assert isinstance(way, Release)
        assert not way.tried
        found[name] = way.urls(by_name[name], machine)[1:]
    assert found == {
        "pulumi": (
            "https://github.com/pulumi/pulumi/releases/download/v3.259.0/pulumi-v3.259.0-linux-x64.tar.gz",
            "https://github.com/pulumi/pulumi/releases/download/v3.259.0/pulumi-3.259.0-checksums.txt",
        ),
        "lakefs": (
            "https://github.com/treeverse/lakeFS/releases/download/v1.86.0/lakeFS_1.86.0_Darwin_arm64.tar.gz",
            "https://github.com/treeverse/lakeFS/releases/download/v1.86.0/checksums.txt",
        ),
        "grafana": (
            "https://dl.grafana.com/oss/release/grafana-11.6.0.linux-arm64.tar.gz",
            "https://dl.grafana.com/oss/release/grafana-11.6.0.linux-arm64.tar.gz.sha256",
        ),
    }


@pytest.mark.parametrize(
    ("version", "toolchain", "obstacle"),
    [
        ("go1.26.8", "local", None),
        ("go1.22.1", None, None),  # fetches the one it needs
        ("go1.22.1", "local", "Go 1.22.1 is too old; it needs Go 1.26.4 or newer"),
        ("go1.19.8", None, "Go 1.19.8 is too old; it needs Go 1.26.4 or newer"),
    ],
)
def test_a_build_says_which_go_it_needs(
    version: str, toolchain: str | None, obstacle: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "go"
    go.write_text(f"#!/bin/sh\necho {version}\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GOTOOLCHAIN", raising=False)
    if toolchain:
        monkeypatch.setenv("GOTOOLCHAIN", toolchain)
    assert GoBuild("x", "example.org/x", "v").obstacle(Machine.here()) == obstacle


def test_the_engine_is_the_one_the_python_package_is_pinned_to() -> None:
    from importlib.metadata import version

    [engine] = [package for package in PACKAGES if package.name == "pulumi"]
    assert version("pulumi").split(".")[:2] == engine.version.split(".")[:2]


def test_the_pinned_modules_are_those_of_the_table() -> None:
    builds = ROOT / "components" / "tools" / "builds"
    for pinned in PACKAGES:
        for way in pinned.ways:
            if isinstance(way, GoBuild):
                module = (builds / pinned.name / "go.mod").read_text()
                assert f"v{pinned.version}\n" in module
                imported = (builds / pinned.name / "tools.go").read_text()
                assert all(f'_ "{source}"' in imported for source in way.programs.values())
                assert (builds / pinned.name / "go.sum").stat().st_size > 10_000


def test_the_docs_name_every_tool_with_its_ways_and_what_was_not_tried() -> None:
    rows = [line for line in (ROOT / "docs" / "tools.md").read_text().splitlines() if line.startswith("| ")][1:]
    expected: list[str] = []
    for pinned in PACKAGES:
        names = ", ".join(program.name for program in pinned.programs) + (" (optional)" if pinned.optional else "")
        ways = ["PATH", "cache"]
        for way in pinned.ways:
            text = f"{way.name} {pinned.version}" if isinstance(way, Release) else way.name
            ways.append(text if way.tried else f"{text} (not tried)")
        below = pinned.below.removesuffix(".0.0")
        expected.append(f"| {names} | {pinned.at_least} or newer, below {below} | {', '.join(ways)} |")
    assert rows == expected
