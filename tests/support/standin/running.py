"""A stand-in which does more than stand there: what it records is really made, by one Docker daemon.

    python -m tests.support.standin.running PACKAGE ADDRESS

Under the names `docker` and `docker-build` it replaces the vendor's plugins if these cannot be installed.
`DOCKER_HOST` names the daemon.
"""

# ruff: noqa: N802 - the names are the protocol's

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import provider_pb2

from tests.support import docker_graph
from tests.support.standin.provider import Standin, _merged, _token, record, serve
from tests.support.standin.wire import decode


class Running(Standin):
    """Records, and makes."""

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.preview:
            return super().Create(request, context)
        plain = decode(request.properties)
        self._record("create", request, plain)
        try:
            made, told = docker_graph.make(_token(request.urn), plain.value)
        except Exception as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))
            raise
        return provider_pb2.CreateResponse(id=made, properties=_merged(request.properties, told))

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        answer = super().Update(request, context)
        if request.preview:
            return answer
        try:
            told = docker_graph.change(_token(request.urn), request.id, decode(request.news).value)
        except Exception as error:
            context.abort(grpc.StatusCode.INTERNAL, str(error))
            raise
        return provider_pb2.UpdateResponse(properties=_merged(request.news, told))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not docker_graph.exists(_token(request.urn), request.id):
            return provider_pb2.ReadResponse()
        return super().Read(request, context)

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        record(action="delete", type=_token(request.urn), urn=request.urn, id=request.id)
        docker_graph.remove(_token(request.urn), request.id, decode(request.properties).value)
        return empty_pb2.Empty()


if __name__ == "__main__":
    serve(Running)
