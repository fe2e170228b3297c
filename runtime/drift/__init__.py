"""Drift between a reference and a current window."""
