"""The fast path uses private classes of uvicorn: in one module, and only with the version that has them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from packaging.requirements import Requirement
from packaging.version import Version
from tidemill.runtime.common.settings import ListenSettings
from tidemill.runtime.serving.app import create_app
from tidemill.runtime.serving.http.draining_server import DrainingServer
from tidemill.runtime.serving.http.server import FAST_PATH_UVICORN, create_server
from tidemill.runtime.serving.settings import ServingSettings

from tests.support.servers import secret_file
from tests.support.tree import ROOT


def test_the_installed_uvicorn_has_the_fast_path() -> None:
    assert uvicorn.__version__.startswith(f"{FAST_PATH_UVICORN}."), (
        f"uvicorn {uvicorn.__version__} is installed, but the fast path of the model server needs {FAST_PATH_UVICORN}: "
        "check the private classes in runtime/serving/http/uvicorn_internals.py, run the tests and benchmarks, and "
        "change FAST_PATH_UVICORN and the pins in pyproject.toml"
    )


def test_the_extras_pin_the_minor_version_of_uvicorn() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = {name: Requirement(line) for name, lines in extras.items() for line in lines if line.startswith("uvicorn")}
    assert set(pins) == {"registry", "serve"}
    major, minor = map(int, FAST_PATH_UVICORN.split("."))
    for name, pin in pins.items():
        assert pin.specifier.contains(f"{major}.{minor}.0"), name
        assert pin.specifier.contains(f"{major}.{minor}.99"), name
        assert not pin.specifier.contains(f"{major}.{minor - 1}.99"), name
        assert not pin.specifier.contains(f"{major}.{minor + 1}.0"), name


def private_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        yield from (name for name in names if name.startswith("uvicorn."))


def test_two_modules_import_private_parts_of_uvicorn() -> None:
    sources = [path for top in ("runtime", "components", "stacks", "templates") for path in (ROOT / top).rglob("*.py")]
    assert [path.relative_to(ROOT).as_posix() for path in sources if list(private_imports(path))] == [
        "runtime/common/limited_server.py",
        "runtime/serving/http/uvicorn_internals.py",
    ]


@pytest.mark.parametrize("other", ["0.53.9", "0.55.0", "0.540.0", "1.54.0"])
def test_another_version_serves_plain_asgi_and_logs_it_once(
    other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    listen = ListenSettings(port=1, token_file=secret_file(tmp_path, "key"))
    settings = ServingSettings(listen=listen, model="flights", path=tmp_path, cache=tmp_path)
    assert type(create_server(create_app(settings), settings, grace=1)) is not DrainingServer
    assert not caplog.records
    monkeypatch.setattr(uvicorn, "__version__", str(Version(other)))
    server = create_server(create_app(settings), settings, grace=1)
    assert type(server) is DrainingServer
    assert server.config.http == "h11", "unlike uvicorn's default parser, it limits heads and trailers"
    [record] = caplog.records
    assert "without the fast path" in record.message
    assert (record.uvicorn, record.needed) == (other, f"{FAST_PATH_UVICORN}.*")
