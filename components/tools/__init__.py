"""The servers and the engine: where they come from and at which version."""
