"""Serving protocols: each module here decodes the requests and encodes the responses of one, without HTTP.

To add a protocol, write a module with an `InferenceProtocol` and add it to `registry.PROTOCOLS`.
"""
