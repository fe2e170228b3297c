"""Attacks that run against the platform of any target; `tests/e2e/attacks` and `tests/e2e/test_docker.py` run them."""
