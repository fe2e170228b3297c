"""The `local` target: real processes under supervisord."""
