"""Jinja2 templates, and the one strict `render`.

The folders: `monitoring/` (Prometheus, Alertmanager, Grafana), `images/` (Dockerfiles and their companions),
`project/` (the files of `tidemill init`).

To add a template, create `FOLDER/NAME.j2`, write every value through the filter of its format (see `formats`), and call
`render("FOLDER/NAME.j2", ...)` where you need the text. In `project/` the file alone is enough: `stacks.projects.tree`
renders each file there. Then add the result to `tests/support/golden.py` and run `python -m tests.support.golden`.
"""

from __future__ import annotations

from .rendering import render

__all__ = ["render"]
