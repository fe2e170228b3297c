"""What goes into our own images: exactly what the lock says, with hashes, and exactly what the image needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tidemill.components.images import ImageSpec, prepare, requirements
from tidemill.components.tools.table import IMAGES, PACKAGES
from tidemill.runtime.common.errors import ConfigError, NotFoundError

from tests.support.platform import ROOT

LOCK = """\
version = 1
requires-python = ">=3.11"

[[package]]
name = "quay"
version = "1"
source = { virtual = "." }
dependencies = [{ name = "tidemill", extra = ["serve"] }, { name = "sailing" }]

[package.optional-dependencies]
deep = [{ name = "diving", marker = "sys_platform == 'linux'" }, { name = "windy", marker = "sys_platform == 'win32'" }]

[[package]]
name = "tidemill"
version = "9"
source = { registry = "https://pypi.org/simple" }
dependencies = [{ name = "base" }]
wheels = [{ url = "https://files.pythonhosted.org/t.whl", hash = "sha256:00" }]

[package.optional-dependencies]
serve = [{ name = "fast", version = "2", marker = "python_full_version >= '3.12'" },
         { name = "fast", version = "1", marker = "python_full_version < '3.12'" }]
"""
for _name, _version in (("base", "1"), ("sailing", "3"), ("diving", "4"), ("windy", "5"), ("fast", "1"), ("fast", "2")):
    LOCK += (
        f'\n[[package]]\nname = "{_name}"\nversion = "{_version}"\n'
        'source = { registry = "https://pypi.org/simple" }\n'
        f'wheels = [{{ url = "https://files.pythonhosted.org/x.whl", hash = "sha256:{_name}{_version}" }}]\n'
    )


def names(text: str) -> set[str]:
    return set(re.findall(r"^(\S+==\S+)", text, re.MULTILINE))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "uv.lock").write_text(LOCK)
    return tmp_path


def test_the_extras_of_tidemill_alone(project: Path) -> None:
    assert names(requirements(project, ["serve"], python="3.11")) == {"base==1", "fast==1"}
    assert names(requirements(project, ["serve"], python="3.13")) == {"base==1", "fast==2"}
    assert requirements(project, [], python="3.11") == "base==1 \\\n    --hash=sha256:base1\n"


def test_the_project_with_what_it_depends_on(project: Path) -> None:
    assert names(requirements(project, [], python="3.11", own_extras=[])) == {"base==1", "fast==1", "sailing==3"}
    deep = names(requirements(project, [], python="3.11", own_extras=["deep"]))
    assert deep == {"base==1", "fast==1", "sailing==3", "diving==4"}, "what is for another system is not for this one"


def test_what_a_lock_cannot_give_is_told(project: Path) -> None:
    with pytest.raises(ConfigError, match="quay has no such extra, got 'depe'; use some of deep"):
        requirements(project, [], python="3.11", own_extras=["depe"])
    (project / "uv.lock").write_text(LOCK.replace(', hash = "sha256:sailing3"', ""))
    with pytest.raises(ConfigError, match=r"has no hash in the lock.*'sailing'"):
        requirements(project, [], python="3.11", own_extras=[])
    (project / "uv.lock").write_text("[")
    with pytest.raises(ConfigError, match="is not TOML"):
        requirements(project, [], python="3.11")
    (project / "uv.lock").unlink()
    with pytest.raises(NotFoundError, match="run `uv lock` beside"):
        requirements(project, [], python="3.11")


@pytest.mark.parametrize(
    "extras", [["registry"], ["serve", "compiled"], ["serve", "validation", "drift"]], ids="-".join
)
def test_it_is_what_uv_itself_would_export(extras: list[str]) -> None:
    uv = shutil.which("uv") or next((str(path) for path in ROOT.glob(".tidemill/uv/bin/uv")), None)
    if uv is None:
        pytest.skip("uv is not here to compare with")
    words = [word for extra in extras for word in ("--extra", extra)]
    said = subprocess.run(
        [
            *(uv, "export", "--frozen", "--quiet", "--no-emit-project", "--no-dev", "--no-hashes", "--no-annotate"),
            *("--no-header", *words),
        ],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    here = {"python_full_version": "3.11.0", "python_version": "3.11", "platform_machine": "x86_64"}
    wanted = {
        f"{found.name}{found.specifier}"
        for found in map(Requirement, filter(None, said.splitlines()))
        if found.marker is None or found.marker.evaluate({**here, "sys_platform": "linux", "platform_system": "Linux"})
    }
    assert names(requirements(ROOT, extras, python="3.11")) == wanted


def test_the_same_is_prepared_twice_and_names_the_image(tmp_path: Path) -> None:
    spec = ImageSpec("serving", ["serve"], "python:3.11-slim")
    first = prepare(tmp_path / "a", ROOT, spec, python="3.11")
    again = prepare(tmp_path / "b", ROOT, spec, python="3.11")
    assert first.digest == again.digest
    assert prepare(tmp_path / "a", ROOT, ImageSpec("serving", ["serve"], "python:3.11"), python="3.11") != first
    assert not list((tmp_path / "b").rglob("__pycache__"))


def test_the_runtime_in_the_folder_works_by_itself(tmp_path: Path) -> None:
    context = prepare(tmp_path / "context", ROOT, ImageSpec("runtime", ["serve"], "python:3.11-slim"), python="3.11")
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "import tidemill.runtime, importlib.metadata as m\n"
        "assert tidemill.runtime.__file__.startswith(sys.argv[1]), tidemill.runtime.__file__\n"
        "from tidemill.runtime.serving.settings import ServingSettings\n"
        "print(m.version('tidemill'))\n"
    )
    # The meta path finder of an editable install comes before any path: without it this reads the folder.
    code = f"import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(context.folder / "lib")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+", done.stdout.strip())


def test_images_are_of_the_versions_of_the_table_and_none_is_pinned_to_an_invented_digest() -> None:
    for package in PACKAGES:
        if package.image:
            assert package.image.tag.removeprefix("v") == package.version, package.name
            assert {program.name for program in package.programs} <= set(package.image.programs)
    for image in IMAGES.values():
        assert image.digest is None or re.fullmatch(r"sha256:[0-9a-f]{64}", image.digest)
        assert image.tag != "latest"
