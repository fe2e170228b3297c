"""The web pages of the model server: the status page at `/` and the API reference at `/docs`."""

from __future__ import annotations

from .pages import Page, pages

__all__ = ["Page", "pages"]
