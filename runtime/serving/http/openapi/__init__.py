"""The OpenAPI document of a model server."""
