"""One provider for the engine which makes nothing and records everything, under whatever package's name it is started.

    python -m tests.support.standin.provider PACKAGE ADDRESS

`STANDIN_RECORD` names the file of JSON lines it writes, and `STANDIN_GONE` a file with the names of resources, a line
each, which `read` takes for removed by somebody. For `tidemill-native`, what lives below the stack's root on this
machine (ports, secrets, folders) is really made by the real provider; what needs servers, a daemon or a cloud is not.
"""

# ruff: noqa: N802 - the names are the protocol's

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc
from tidemill.components.provider.base import NativeResource, lookup
from tidemill.components.provider.docker import data
from tidemill.components.provider.parent import end_with_parent
from tidemill.runtime.common.errors import NotFoundError

from tests.support.standin import outputs
from tests.support.standin.wire import UNKNOWN, decode, encode

NATIVE = "tidemill-native"
REALLY_MADE = frozenset({f"{NATIVE}:local:{kind}" for kind in ("Endpoint", "Secret", "Folder")})


def _token(urn: str) -> str:
    return urn.split("::")[-2].rsplit("$", 1)[-1]


def _name(urn: str) -> str:
    return urn.rsplit("::", 1)[-1]


def record(**entry: Any) -> None:
    """Add one line to the record; several providers write to it at a time."""
    with Path(os.environ["STANDIN_RECORD"]).open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(entry, sort_keys=True) + "\n")


def _gone(name: str) -> bool:
    path = os.environ.get("STANDIN_GONE")
    return bool(path) and Path(path).is_file() and name in Path(path).read_text(encoding="utf-8").splitlines()


class Standin(provider_pb2_grpc.ResourceProviderServicer):
    """Echoes what it is given, with invented outputs."""

    def __init__(self, package: str) -> None:
        self.package = package

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:
        return plugin_pb2.PluginInfo(version="0.0.1")

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.GetSchemaResponse(schema="{}")

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        record(action="configure", package=self.package, urn=request.urn, inputs=decode(request.news).value)
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:
        return empty_pb2.Empty()

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        old = decode(request.old_inputs or request.olds).value
        new = decode(request.news).value
        changes = sorted(
            key for key in {*old, *new} if not key.startswith("__") and _differs(old.get(key), new.get(key))
        )
        kind = provider_pb2.DiffResponse
        return kind(
            changes=kind.DIFF_SOME if changes else kind.DIFF_NONE,
            diffs=changes,
            replaces=self.replaces(_token(request.urn), changes),
        )

    def replaces(self, token: str, changes: list[str]) -> list[str]:
        """Return those of `changes` which ask for a new resource."""
        in_place = outputs.REPLACES.get(token)
        return [] if in_place is None else [key for key in changes if key not in in_place]

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _token(request.urn), _name(request.urn)
        plain = decode(request.properties)
        self._record("create", request, plain)
        told = self.told(token, name, plain.value)
        if request.preview:
            told = dict.fromkeys(told, UNKNOWN)
        made = "" if request.preview else outputs.id_of(token, name, plain.value)
        return provider_pb2.CreateResponse(id=made, properties=_merged(request.properties, told))

    def told(self, token: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        """Return the outputs of a resource that are not inputs."""
        return outputs.outputs_of(token, name, inputs)

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        token, name = _token(request.urn), _name(request.urn)
        plain = decode(request.news)
        self._record("update", request, plain)
        told = self.told(token, name, plain.value)
        if request.preview:
            old = decode(request.olds).value
            told = {key: old.get(key, UNKNOWN) for key in told}
        return provider_pb2.UpdateResponse(properties=_merged(request.news, told))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        name = _name(request.urn)
        record(action="read", type=_token(request.urn), name=name, urn=request.urn)
        if _gone(name):
            return provider_pb2.ReadResponse()
        if not request.properties.fields:  # `Resource.get`: what was brought
            told = self.told(_token(request.urn), name, {})
            properties = _merged(struct_pb2.Struct(), told)
            return provider_pb2.ReadResponse(id=request.id, properties=properties, inputs=struct_pb2.Struct())
        return provider_pb2.ReadResponse(id=request.id, properties=request.properties, inputs=request.inputs)

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        record(action="delete", type=_token(request.urn), name=_name(request.urn), urn=request.urn, id=request.id)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: grpc.ServicerContext) -> Any:
        plain = decode(request.args)
        record(action="invoke", type=request.tok, inputs=plain.value)
        answer = outputs.INVOKES.get(request.tok)
        if answer is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the stand-in has no answer to {request.tok}")
            raise RuntimeError("abort ends the call")
        told = {key: encode(value) for key, value in (plain.value | answer(plain.value)).items()}
        return provider_pb2.InvokeResponse(**{"return": struct_pb2.Struct(fields=told)})

    def _record(self, action: str, request: Any, plain: Any) -> None:
        record(
            action=action,
            preview=bool(request.preview),
            type=_token(request.urn),
            name=_name(request.urn),
            urn=request.urn,
            inputs=plain.value,
            secrets=plain.secrets,
            unknowns=plain.unknowns,
        )


class NativeStandin(Standin):
    """Ours: inputs are checked by the real classes, and what belongs to this machine is really made."""

    def __init__(self, package: str, address: str) -> None:
        super().__init__(package)
        from tidemill.components.provider.adapter import _Engine, _Provider

        self._real = _Provider(_Engine(address))

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._real.Check(request, context)

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._real.Diff(request, context) if self._made(request) else super().Diff(request, context)

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self._made(request):
            return super().Create(request, context)
        self._record("create", request, decode(request.properties))
        return self._real.Create(request, context)

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:
        if not self._made(request):
            return super().Update(request, context)
        self._record("update", request, decode(request.news))
        return self._real.Update(request, context)

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._real.Read(request, context) if self._made(request) else super().Read(request, context)

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:
        # The guard of the real one stands before what only seems to be made, too.
        resource = self._resource(_token(request.urn))
        if self._made(request) or resource.holds_data:
            if not self._made(request):
                self._real._guarded(request, context, lambda: resource.guard_delete(decode(request.properties).value))
                return super().Delete(request, context)
            record(action="delete", type=_token(request.urn), name=_name(request.urn), urn=request.urn, id=request.id)
            return self._real.Delete(request, context)
        return super().Delete(request, context)

    def replaces(self, token: str, changes: list[str]) -> list[str]:
        return [key for key in changes if key in self._resource(token).replace_on]

    def told(self, token: str, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        told = {key: _NATIVE.get(key, f"{key}-of-{name}") for key in self._resource(token).outputs if key not in inputs}
        return told | _docker(token, inputs)

    @staticmethod
    def _resource(token: str) -> NativeResource:
        return lookup(token)

    @staticmethod
    def _made(request: Any) -> bool:
        return _token(request.urn) in REALLY_MADE


def _docker(token: str, inputs: dict[str, Any]) -> dict[str, Any]:
    """Return what the real resources of Docker would tell: their names, and the digest of contents which are here."""
    if not token.startswith(f"{NATIVE}:docker:") or UNKNOWN in json.dumps(inputs):
        return {}
    volume = f"tidemill-{inputs['stack']}-{inputs['name']}"
    if token.endswith((":Volume", ":Scratch")):
        return {"volume": volume}
    if token.endswith(":Files"):
        try:
            digest = data._digest(inputs)
        except NotFoundError:
            return {}  # a preview: the secrets are not made yet
        return {"digest": digest, "volume": f"{volume}-files-{digest[:12]}"}
    return {}


_NATIVE: dict[str, Any] = {"running": True, "exitCode": 0, "created": 1}


def _differs(old: Any, new: Any) -> bool:
    return (old or None) != (new or None)


def _merged(struct: struct_pb2.Struct, told: dict[str, Any]) -> struct_pb2.Struct:
    """Return `struct` with its marks, and what is told beside it."""
    fields = dict(struct.fields)
    fields |= {key: encode(value) for key, value in told.items()}
    return struct_pb2.Struct(fields=fields)


def serve(kind: Callable[[str], Standin] = Standin) -> None:
    """Run as the engine starts a provider; `kind` makes what answers for every package but ours."""
    package, *arguments = sys.argv[1:]
    parent = os.getppid()
    address = next(argument for argument in arguments if not argument.startswith("-"))
    end_with_parent(parent)
    servicer = NativeStandin(package, address) if package == NATIVE else kind(package)
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 400 * 1024 * 1024)])
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    stopped.wait()
    server.stop(grace=5.0).wait()


if __name__ == "__main__":
    serve()
