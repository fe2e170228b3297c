"""Who may import whom, and what stays light."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tree import ROOT, TOP_PACKAGES, project_files

SOURCES = [path for path in project_files() if path.parts[0] in TOP_PACKAGES and path.suffix == ".py"]
SETTINGS = [path for path in SOURCES if path.name == "settings.py"]


def module_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(["tidemill", *(parts[:-1] if parts[-1] == "__init__" else parts)])


def imports_of(path: Path) -> set[str]:
    """Return the absolute names of all that a module imports, wherever in it."""
    package = ["tidemill", *path.parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base += [node.module] if node.module else []
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return found


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


FORBIDDEN = {
    "runtime": ("tidemill.components", "tidemill.stacks", "tidemill.templates", "pulumi"),
    "templates": ("tidemill.components", "tidemill.stacks", "pulumi"),
    "components": ("tidemill.stacks",),
    "stacks": (),
}


def test_no_package_imports_one_above_it() -> None:
    wrong = [
        f"{path} imports {name}"
        for path in SOURCES
        for name in imports_of(path)
        if under(name, *FORBIDDEN[path.parts[0]])
        or (
            path.parts[0] == "templates"
            and under(name, "tidemill.runtime")
            and not under(name, "tidemill.runtime.common.errors")
        )
        or under(name, "tests")
    ]
    assert wrong == []


def test_the_rule_sees_relative_and_nested_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runtime" / "serving").mkdir(parents=True)
    path = Path("runtime/serving/x.py")
    (tmp_path / path).write_text(
        "def f():\n    from ...components import lake\n    from .. import errors\n    import a.b\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert imports_of(path) == {"tidemill.components.lake", "tidemill.runtime.errors", "a.b"}


def test_settings_modules_do_not_import_pulumi() -> None:
    assert [path for path in SETTINGS for name in imports_of(path) if under(name, "pulumi")] == []


def loaded_by(modules: list[str], unwanted: tuple[str, ...]) -> list[str]:
    """Import `modules` in a fresh Python, and return which of `unwanted` that loads."""
    code = "import importlib, json, sys\nfor name in json.loads(sys.argv[1]): importlib.import_module(name)\n"
    code += "print([name for name in json.loads(sys.argv[2]) if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(modules), json.dumps(unwanted)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT / "tests",
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


@pytest.mark.parametrize(
    ("modules", "unwanted"),
    [
        (["tidemill.runtime"], ("pandas", "pyarrow", "mlflow", "great_expectations", "pulumi", "fastapi", "sklearn")),
        (["tidemill.components.tools", "tidemill.components.tools.doctor"], ("pulumi", "httpx", "pandas", "mlflow")),
        (["tidemill.components.layout"], ("pulumi", "httpx", "pandas", "mlflow", "pydantic")),
        ([module_of(path) for path in SETTINGS], ("pulumi", "pandas", "mlflow", "great_expectations")),
        (["tidemill.stacks.cli"], ("pulumi", "pandas", "mlflow", "great_expectations")),
    ],
    ids=["runtime", "tools", "layout", "settings", "cli"],
)
def test_what_is_imported_often_stays_light(modules: list[str], unwanted: tuple[str, ...]) -> None:
    assert loaded_by(modules, unwanted) == []
