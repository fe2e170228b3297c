"""The `local` target: real processes under supervisord. `operations` imports no Pulumi."""
