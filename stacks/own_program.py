"""A project's own program: what it composes besides what its stack config describes, or in place of that.

`tidemill up` and `pulumi up` run the same program. The three lines which tidemill writes into `__main__.py` compose
what the stack config describes; where something else stands there, that is run.
"""

from __future__ import annotations

import ast
import os
import runpy
import sys
from pathlib import Path

from .loading import project_settings

__all__ = ["own_program", "run_own_program"]

_OURS = ast.dump(ast.parse("from tidemill.stacks.program import main\n\nmain()\n"))


def own_program(project: Path) -> Path | None:
    """Return the folder (or file) of the program which `project` has of its own; None where it has ours, or none."""
    main = project / str(project_settings(project).get("main") or ".")
    file = main / "__main__.py" if main.is_dir() else main
    try:
        ours = ast.dump(ast.parse(file.read_bytes())) == _OURS
    except FileNotFoundError:
        return None
    except (SyntaxError, ValueError):
        ours = False  # running it tells the line
    return None if ours else main


def run_own_program(main: Path) -> None:
    """Run the program as the language host does: in its folder, which comes first on `sys.path`."""
    folder = main if main.is_dir() else main.parent
    # It stays the working directory: what the program wants done with outputs is done after its last line.
    os.chdir(folder)
    if "." not in sys.path:
        sys.path.insert(0, ".")
    # A second run declares what the first one did, also where the program's modules do that as they are imported.
    for name in _modules_below(folder.resolve()):
        del sys.modules[name]
    runpy.run_path("." if main.is_dir() else main.name, run_name="__main__")


def _modules_below(folder: Path) -> list[str]:
    """Return the loaded modules of the program itself: not those of its environment, which may lie in its folder."""
    found: list[str] = []
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/").absolute()
        if file.is_relative_to(folder) and not file.is_relative_to(sys.prefix) and name != "__main__":
            found.append(name)
    return [name for name in found if name.partition(".")[0] != "tidemill"]
