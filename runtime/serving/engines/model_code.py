"""Code which travels with a model: the same module name is other code in each version."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["fresh_code"]


@contextmanager
def fresh_code(root: Path, code: Path | None) -> Generator[None]:
    """Load without the modules and paths which earlier versions brought from below `root`; put back on failure.

    A version in use keeps its modules: its functions refer to them.

    Args:
        root: folder of all cached versions.
        code: folder of the code of the version which is loaded.
    """

    def below(file: object) -> bool:
        return isinstance(file, str) and Path(file).is_relative_to(root)

    path = list(sys.path)
    modules = {name: module for name, module in sys.modules.items() if below(getattr(module, "__file__", None))}
    for name in modules:
        del sys.modules[name]
    sys.path[:] = [entry for entry in path if not below(entry)]
    if code is not None:
        sys.path.insert(0, str(code))
    try:
        yield
    except BaseException:
        for name, module in list(sys.modules.items()):
            if below(getattr(module, "__file__", None)):
                del sys.modules[name]
        sys.modules.update(modules)
        sys.path[:] = path
        raise
