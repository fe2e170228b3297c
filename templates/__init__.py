"""Jinja2 templates and the one strict `render`."""
