"""Texts that break out of a file whose format they are not written for."""

from __future__ import annotations

HOSTILE = (
    '"', "'", "\\", "\\n", "\n", "\r\n", "\n  - x: 1", ": ", " #", "#", "- ", "{{ 1 }}", "{% x %}", "${{ secrets.A }}",
    "$(id)", "`id`", "${HOME}", "$HOME", ";", "&&", "|", ">", "]", "}", "@{secret:admin}", "%", "\0", "\x85", "\u2028",
    "\ufeff", "\U0001f600", "é", "no", "null", "1e3", "~", "<<", "*a", "&a", "!!python/object:os.system", "'''", '"""',
    "<script>", "](x)", "**", "RUN id", "\x7f", "\ud800",
)  # fmt: skip
