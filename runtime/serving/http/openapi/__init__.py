"""The OpenAPI document of a model server, generated from the contract of the served version."""
