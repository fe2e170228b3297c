"""The syntax of placeholders, `@{KIND}` and `@{KIND:NAME}`; `components.targets.base` lists the kinds."""

from __future__ import annotations

import re
from collections.abc import Callable

PLACEHOLDER = re.compile(r"@\{([a-z-]+)(?::([^{}]*))?\}")
"""Its groups are kind and name; a kind without a name has None."""


def substitute(text: str, value: Callable[[str, str, str], str]) -> str:
    """Return `text` with each placeholder replaced by `value(kind, name, placeholder)`.

    >>> substitute("@{host}:1 @{store:a}", lambda kind, name, whole: f"{kind}/{name}")
    'host/:1 store/a'
    """
    return PLACEHOLDER.sub(lambda found: value(found[1], found[2] or "", found[0]), text)
