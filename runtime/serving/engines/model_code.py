"""Imports the code that is packaged with a model: one module name is different code in each version."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

one_at_a_time = threading.RLock()
"""Held while a version loads: loading changes the paths and the environment variables of the process."""


@contextmanager
def fresh_imports(root: Path, code: Path | None) -> Generator[None]:
    """Hide the modules and paths of other versions while one version loads; restore them if loading fails.

    A version that already serves keeps its modules, because its functions refer to them. Of the serving version and the
    shadow, which load in threads of their own, the second waits: both would change the same paths.

    Args:
        root: folder of all cached versions.
        code: folder of the code of the version to load.
    """

    def below(file: object) -> bool:
        return isinstance(file, str) and Path(file).is_relative_to(root)

    with one_at_a_time:
        path = list(sys.path)
        # A list: other threads import meanwhile.
        modules = {name: module for name, module in list(sys.modules.items()) if below(_file_of(module))}
        for name in modules:
            del sys.modules[name]
        sys.path[:] = [entry for entry in path if not below(entry)]
        if code is not None:
            sys.path.insert(0, str(code))
        try:
            yield
        except BaseException:
            for name, module in list(sys.modules.items()):
                if below(_file_of(module)):
                    del sys.modules[name]
            sys.modules.update(modules)
            sys.path[:] = path
            raise


def _file_of(module: object) -> object:
    return getattr(module, "__file__", None)
