"""Keeps the engine's `encryptionsalt` out of the stack config, so that `up` leaves the checkout clean.

The engine writes the salt of its passphrase into the stack config and into the state. A run reads a copy of the
config, completed with the salt of the state. A config which already holds a salt, or names a `secretsprovider`, is
meant to be committed with it: the engine reads and writes that file itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ...components.provider.local.files import write_private
from ...runtime.common.files import replacement
from ..loading import LoadedStack
from ..stack_config.yaml_positions import read_yaml
from .environment import private_folder

_ENCRYPTION_KEY = re.compile(rb"^(encryptionsalt|encryptedkey|secretsprovider)\s*:", re.MULTILINE)


def config_with_salt(loaded: LoadedStack, salt: str | None, path: Path) -> Path | None:
    """Write the stack config with `salt` to `path`; return None where the engine uses the file itself."""
    if salt is None or _ENCRYPTION_KEY.search(loaded.file.read_bytes()):
        return None
    private_folder(path.parent)
    write_private(path, json.dumps({**read_yaml(loaded.file, loaded.project)[0], "encryptionsalt": salt}, indent=2))
    return path


@contextmanager
def config_restored(loaded: LoadedStack) -> Generator[None]:
    """Undo what the engine writes into the stack config, unless the file is meant to hold a salt."""
    before = loaded.file.read_bytes()
    try:
        yield
    finally:
        if not _ENCRYPTION_KEY.search(before) and loaded.file.read_bytes() != before:
            file = loaded.file.resolve()
            # As a whole, because another command may read it meanwhile.
            with replacement(file, mode=file.stat().st_mode & 0o777) as restored:
                restored.write(before)
