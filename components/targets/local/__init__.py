"""The target `local`: processes under supervisord. `spec` and `operations` import no Pulumi."""
