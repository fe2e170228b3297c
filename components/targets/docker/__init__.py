"""The `docker` target: containers of one Docker daemon. `settings` imports no Pulumi."""
