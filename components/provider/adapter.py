"""Adapts the resources to the engine's protocol; no other module knows that protocol.

It serves each call in a thread, reports errors as one sentence with an exit code, answers previews without changes,
keeps the marks on secrets, keeps the state of unreachable resources, and guards data against deletion.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.protobuf import empty_pb2

from ...runtime.common.errors import ConfigError, TidemillError, UnreachableError
from .base import FAILURE_CODE, UNKNOWN, Context, NativeResource, Properties, lookup
from .parent import warn_of_destroy
from .wire import from_wire, messages, to_wire

_provider = messages("provider_pb2")
_services = messages("provider_pb2_grpc")
_plugin = messages("plugin_pb2")
_Empty = empty_pb2.Empty

# The engine sends whole states; this is its own limit (sdk/go/common/util/rpcutil).
_OPTIONS = [("grpc.max_receive_message_length", 400 * 1024 * 1024)]
_THREADS = 64
_LOG_SECONDS = 10.0

T = TypeVar("T")


class _Engine:
    """Sends messages to the engine, each warning once."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._shown: set[str] = set()
        self._stub: Any = None

    def warn(self, text: str, urn: str = "") -> None:
        """Show the warning `text` next to the resource `urn`."""
        with self._lock:
            if text not in self._shown:
                self._shown.add(text)
                self._log("WARNING", text, urn)

    def say(self, text: str, urn: str = "") -> None:
        """Show the line of progress `text` next to the resource `urn`."""
        with self._lock:
            self._log("INFO", text, urn)

    def report_exit_code(self, error: Exception, urn: str) -> None:
        """Send the exit code of a failure of the resource `urn`.

        The engine passes on only the text of an error. So the exit code is an ephemeral message, which `stacks.engine`
        reads from the events, and which a plain `pulumi up` does not show among the diagnostics.
        """
        code = error.exit_code if isinstance(error, TidemillError) else TidemillError.exit_code
        # An ending engine takes no more messages, but must still get the error itself.
        with self._lock, contextlib.suppress(grpc.RpcError):
            self._log("INFO", f"{FAILURE_CODE}{code}", urn, ephemeral=True)

    def _log(self, severity: str, text: str, urn: str, *, ephemeral: bool = False) -> None:
        engine = messages("engine_pb2")
        if self._stub is None:
            self._stub = messages("engine_pb2_grpc").EngineStub(grpc.insecure_channel(self._address))
        level = engine.LogSeverity.Value(severity)
        self._stub.Log(
            engine.LogRequest(severity=level, message=text, urn=urn, ephemeral=ephemeral), timeout=_LOG_SECONDS
        )


class _Provider(_services.ResourceProviderServicer):
    """The calls of the engine, with the names of the protocol."""

    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._cancelled = threading.Event()

    def GetPluginInfo(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return the version."""
        from importlib.metadata import version

        return _plugin.PluginInfo(version=version("tidemill"))

    def GetSchema(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return an empty schema: no SDK is generated."""
        return _provider.GetSchemaResponse(schema="{}")

    def CheckConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Accept the configuration, which is empty."""
        return _provider.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Report no changes: the configuration is empty."""
        return _provider.DiffResponse(changes=_provider.DiffResponse.DIFF_NONE)

    def Configure(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Report the provider's features."""
        warn_of_destroy(self._engine.warn)
        return _provider.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def Cancel(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Interrupt waiting operations."""
        self._cancelled.set()
        return _Empty()

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Check inputs."""
        inputs, secrets = from_wire(request.news)
        resource = self._resource(request, context)
        try:
            checked = resource.check(inputs)
        except ConfigError as error:
            self._engine.report_exit_code(error, str(request.urn))
            failure = _provider.CheckFailure(property=error.field or "", reason=str(error))
            return _provider.CheckResponse(inputs=request.news, failures=[failure])
        return _provider.CheckResponse(inputs=to_wire(checked, secrets))

    def Diff(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Compare wanted inputs with the state."""
        state, _ = from_wire(request.olds)
        inputs, _ = from_wire(request.news)
        resource = self._resource(request, context)
        found = self._guarded(request, context, lambda: resource.diff(self._context(request), state, inputs))
        answer = _provider.DiffResponse
        return answer(
            changes=answer.DIFF_SOME if found.changes else answer.DIFF_NONE,
            diffs=list(found.changes),
            replaces=list(found.replaces),
            deleteBeforeReplace=bool(found.replaces) and resource.delete_before_replace,
        )

    def Create(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Create a resource."""
        inputs, secrets = from_wire(request.properties)
        resource = self._resource(request, context)
        if request.preview:
            planned = {**dict.fromkeys(resource.outputs, UNKNOWN), **inputs}
            return _provider.CreateResponse(properties=to_wire(planned, secrets | resource.secret_outputs))
        found, state = self._guarded(request, context, lambda: resource.create(self._context(request), inputs))
        return _provider.CreateResponse(id=found, properties=to_wire(state, secrets | resource.secret_outputs))

    def Read(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Return the actual state; keep the state of an unreachable resource."""
        state, secrets = from_wire(request.properties)
        resource = self._resource(request, context)
        if not state:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED, "tidemill's resources cannot be imported; `up` adopts existing ones"
            )
        found = self._guarded(request, context, lambda: self._read(resource, self._context(request), state))
        if found is None:
            return _provider.ReadResponse()
        wired = to_wire(found, secrets | resource.secret_outputs)
        return _provider.ReadResponse(id=request.id, properties=wired, inputs=request.inputs)

    def Update(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Change a resource in place."""
        state, old_secrets = from_wire(request.olds)
        inputs, secrets = from_wire(request.news)
        resource = self._resource(request, context)
        secrets |= resource.secret_outputs | old_secrets
        if request.preview:
            kept = {key: state.get(key) for key in resource.outputs}
            return _provider.UpdateResponse(properties=to_wire({**kept, **inputs}, secrets))
        found = self._guarded(request, context, lambda: resource.update(self._context(request), state, inputs))
        return _provider.UpdateResponse(properties=to_wire(found, secrets))

    def Delete(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        """Delete a resource; delete data only if the user asked for it."""
        state, _ = from_wire(request.properties)
        resource = self._resource(request, context)

        def delete() -> None:
            resource.guard_delete(state)
            resource.delete(self._context(request), state)

        self._guarded(request, context, delete)
        return _Empty()

    def _read(self, resource: NativeResource, context: Context, state: Properties) -> Properties | None:
        try:
            return resource.read(context, state)
        except UnreachableError as error:
            context.warn(f"{error}; its resources are assumed unchanged")
            return state

    def _resource(self, request: Any, context: grpc.ServicerContext) -> NativeResource:
        # The last part of `PARENT$TYPE` in the URN is the resource's own type.
        kind = request.urn.split("::")[-2].rsplit("$", 1)[-1]
        return self._guarded(request, context, lambda: lookup(kind))

    def _context(self, request: Any) -> Context:
        urn = str(request.urn)
        return Context(
            urn=urn,
            warn=lambda text: self._engine.warn(text, urn),
            say=lambda text: self._engine.say(text, urn),
            cancelled=self._cancelled,
            timeout=float(getattr(request, "timeout", 0.0)),
        )

    def _guarded(self, request: Any, context: grpc.ServicerContext, act: Callable[[], T]) -> T:
        """Return the result of `act`; abort the call with one sentence if it raises."""
        try:
            return act()
        except TidemillError as error:
            failure, text = error, str(error)
        except OSError as error:
            failure = error
            text = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
        self._engine.report_exit_code(failure, str(request.urn))
        context.abort(grpc.StatusCode.UNKNOWN, text)
        raise RuntimeError("abort ends the call")


def serve(address: str) -> tuple[grpc.Server, int]:
    """Start a server for the engine at `address`; return it with its port."""
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
    _services.add_ResourceProviderServicer_to_server(_Provider(_Engine(address)), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port
