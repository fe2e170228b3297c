"""The target `docker`: containers of one Docker daemon. `spec`, `settings` and `operations` import no Pulumi."""
