"""The runner: runs the configured trainings, and no other command, in a separate container.

It has no access to the lake or the registry, and it cannot start anything outside its own container.
"""
