"""What people see of the model server: the page at `/`, the API reference at `/docs`, and what they are filled from."""

from __future__ import annotations

from tidemill.runtime.serving.page.pages import Served, routes
from tidemill.runtime.serving.page.recent import Recent, merged

__all__ = ["Recent", "Served", "merged", "routes"]
