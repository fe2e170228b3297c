"""Texts that break out of a file whose format they are not written for."""

from __future__ import annotations

from hypothesis import strategies as st

HOSTILE = (
    '"', "'", "\\", "\\n", "\n", "\r\n", "\n  - x: 1", ": ", " #", "#", "- ", "{{ 1 }}", "{% x %}", "${{ secrets.A }}",
    "$(id)", "`id`", "${HOME}", "$HOME", ";", "&&", "|", ">", "]", "}", "@{secret:admin}", "%", "\0", "\x85", "\u2028",
    "\ufeff", "\U0001f600", "é", "no", "null", "1e3", "~", "<<", "*a", "&a", "!!python/object:os.system", "'''", '"""',
    "<script>", "](x)", "**", "RUN id", "\x7f", "\ud800",
)  # fmt: skip

texts = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8), max_size=6).map("".join)
whole = texts.filter(lambda text: not any("\ud800" <= character <= "\udfff" for character in text))
