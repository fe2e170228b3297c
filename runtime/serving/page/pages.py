"""The pages as they are sent: each is one document, which asks no other host for anything and runs nothing but its own.

The style and the scripts stand in the document, and the policy names their hashes: text which gets into a page is never
run. The pages hold no data and ask for no key; what they show comes from `/status` and `/openapi.json`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["Served", "routes"]

_STYLES = ("base.css",)
_PAGES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # path: the document, its styles, its scripts
    "/": (
        "status.html",
        (*_STYLES, "status.css"),
        ("common.js", "charts.js", "form.js", "panels.js", "status.js"),
    ),
    "/docs": ("docs.html", (*_STYLES, "docs.css"), ("common.js", "schema.js", "docs.js")),
}


@dataclass(frozen=True, slots=True)
class Served:
    """One page.

    Attributes:
        headers: all of the answer's, its content type among them.
        etag: changes with the content.
    """

    body: bytes
    headers: Mapping[str, str]
    etag: str

    @property
    def content_type(self) -> str:
        """Its media type."""
        return self.headers["Content-Type"]

    def answer(self, if_none_match: str | None = None) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body for a request which had the header `If-None-Match`, or had not."""
        held = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        if self.etag in held or "*" in held:
            return 304, {name: value for name, value in self.headers.items() if name != "Content-Type"}, b""
        return 200, self.headers, self.body


@cache
def routes() -> Mapping[str, Served]:
    """Return the pages by their path: `/` and `/docs`."""
    return {path: _page(*parts) for path, parts in _PAGES.items()}


def _page(document: str, styles: tuple[str, ...], scripts: tuple[str, ...]) -> Served:
    style = "\n".join(_asset(name) for name in styles)
    # One scope for all files of a page, and none of its names in the window's.
    script = "(() => {\n'use strict';\n" + "\n".join(_asset(name) for name in scripts) + "})();\n"
    body = _asset(document).replace("/* style */", style).replace("/* script */", script).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _policy(style, script),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        # Kept, but asked about each time: the page must fit the server behind it.
        "Cache-Control": "no-cache",
        "ETag": etag,
    }
    return Served(body, headers, etag)


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return (files(__package__ or __name__) / "assets" / name).read_text(encoding="utf-8")
