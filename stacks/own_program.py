"""Finds and runs a project's own Pulumi program.

`tidemill up` and `pulumi up` run the same program. The three lines that tidemill writes into `__main__.py` create
what the stack config describes. A project with other lines there has its own program.
"""

from __future__ import annotations

import ast
import os
import runpy
import sys
from pathlib import Path

from .loading import project_settings

_GENERATED = ast.dump(ast.parse("from tidemill.stacks.program import main\n\nmain()\n"))


def own_program(project: Path) -> Path | None:
    """Return the folder or file of the project's own program; None if it has only the generated one, or none."""
    main = project / str(project_settings(project).get("main") or ".")
    file = main / "__main__.py" if main.is_dir() else main
    try:
        is_generated = ast.dump(ast.parse(file.read_bytes())) == _GENERATED
    except FileNotFoundError:
        return None
    except (SyntaxError, ValueError):
        is_generated = False  # running it reports the line
    return None if is_generated else main


def run_own_program(main: Path) -> None:
    """Run the program like the language host: in its folder, with that folder first on `sys.path`."""
    folder = main if main.is_dir() else main.parent
    # Keep the working directory: callbacks on outputs run after the program has ended.
    os.chdir(folder)
    if "." not in sys.path:
        sys.path.insert(0, ".")
    # Import the modules again in a second run, since they may declare resources on import.
    for name in _modules_below(folder.resolve()):
        del sys.modules[name]
    runpy.run_path("." if main.is_dir() else main.name, run_name="__main__")


def _modules_below(folder: Path) -> list[str]:
    """Return the loaded modules of the program, but not those of an environment inside its folder."""
    found: list[str] = []
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/").absolute()
        if file.is_relative_to(folder) and not file.is_relative_to(sys.prefix) and name != "__main__":
            found.append(name)
    return [name for name in found if name.partition(".")[0] != "tidemill"]
