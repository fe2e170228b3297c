"""The HTTP side of the model server: connections, the fast path, routes, limits, errors and OpenAPI."""
