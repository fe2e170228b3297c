"""Runs a model in its own environment and process when its requirements differ from the server's."""
