"""Runs a model in its own environment and answers the model server. Runs as a script, without tidemill installed.

    python -I host.py CHANNEL LIFELINE

CHANNEL is the number of a socket that carries batches and answers. LIFELINE is the number of a pipe whose other end the
server holds. A message is `!IQ` (two lengths), a JSON header and a body: rows as Arrow IPC, outputs as doubles or JSON.
Nothing is unpickled, unless the server trusts the pickles of this model.
This process only watches. The model runs in a child process, which ends with the server, even if the server is killed.
All processes that the model started end with it.

The script uses MLflow, pandas, pyarrow, the server's modules `engines/outputs.py` and `contract/frames.py`, and
otherwise only what every Python from 3.8 on has.
"""

# ruff: noqa: B905 - zip has no `strict` before Python 3.10

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LENGTHS = struct.Struct("!IQ")


def main(argv: list[str]) -> int:
    """Fork: watch in the parent, run the model in the child."""
    channel, lifeline = int(argv[1]), int(argv[2])
    ready, wake = os.pipe()
    for end in (ready, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    # The server decides when this process ends.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = os.fork()
    if child:
        os.close(channel)
        return watch(child, lifeline, ready)
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for end in (ready, wake, lifeline):
        os.close(end)
    with socket.socket(fileno=channel) as connection:
        serve(connection)
    os._exit(0)


def watch(child: int, lifeline: int, ready: int) -> int:
    """Wait until the child or the server ends, kill the child's process group, and return the exit code."""
    with contextlib.suppress(OSError):  # the child did so itself, or is gone
        os.setpgid(child, child)
    while True:
        readable, _, _ = select.select([lifeline, ready], [], [])
        if lifeline in readable:
            kill_group(child)
            os.waitpid(child, 0)
            return 0
        os.read(ready, 512)
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            kill_group(child)
            return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kill_group(group: int) -> None:
    """Kill the process group `group` if it exists."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def serve(connection: socket.socket) -> None:
    """Load the model that the first message names, then answer one batch after another until the server hangs up."""
    header, _ = receive(connection)
    try:
        model = Model(header)
    except BaseException as error:  # noqa: BLE001 - report any error of a broken model
        send(connection, {"error": text_of(error), "kind": type(error).__name__})
        return
    discard_output()
    send(connection, {"pid": os.getpid(), "python": sys.version.split()[0]})
    while True:
        try:
            header, body = receive(connection)
        except EOFError:
            return
        number = header["id"]
        try:
            answer, content = model.answer(body, header)
            if len(content) > model.message_bytes:
                raise ValueError(f"the model gave {len(content)} bytes, more than the server takes at once")
        except Exception as error:  # noqa: BLE001 - as above
            answer, content = {"error": text_of(error), "kind": type(error).__name__}, b""
        send(connection, {"id": number, **answer}, content)


def text_of(error: BaseException) -> str:
    """Return the start of the error's message."""
    return str(error)[:2000]


def discard_output() -> None:
    """Discard what the model prints, because it may contain rows."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(null, stream)
    os.close(null)


def receive(connection: socket.socket) -> tuple[dict[str, Any], memoryview]:
    """Return header and body of the next message."""
    header_size, body_size = LENGTHS.unpack(receive_bytes(connection, LENGTHS.size))
    header = json.loads(bytes(receive_bytes(connection, header_size)).decode("utf-8"))
    return header, receive_bytes(connection, body_size)


def receive_bytes(connection: socket.socket, size: int) -> memoryview:
    """Return the next `size` bytes."""
    content = memoryview(bytearray(size))
    received = 0
    while received < size:
        count = connection.recv_into(content[received:])
        if not count:
            raise EOFError
        received += count
    return content


def send(connection: socket.socket, header: dict[str, Any], body: Any = b"") -> None:
    """Send a message."""
    text = json.dumps(header).encode("utf-8")
    connection.sendall(LENGTHS.pack(len(text), len(body)) + text)
    if len(body):
        connection.sendall(body)


class Model:
    """The loaded model.

    Args:
        settings: `model`, its folder; `loader`, the only module that may load it; `unpickles`, whether its code may
            unpickle; `contract`, its columns; `message_bytes`, the maximum size of an answer.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        import mlflow.pyfunc
        from mlflow.models import Model as MLmodel

        function = (MLmodel.load(settings["model"]).flavors or {}).get("python_function") or {}
        if function.get("loader_module") != settings["loader"]:
            raise ValueError(f"the model is loaded by {function.get('loader_module')} instead of {settings['loader']}")
        if not settings["unpickles"]:
            forbid_pickle()
        self.contract = settings["contract"]
        self.message_bytes = settings["message_bytes"]
        self.outputs = load_outputs()
        self.frames = load_module("contract/frames.py")
        self.predictor = mlflow.pyfunc.load_model(settings["model"], suppress_warnings=True)
        allow_pickle()

    def answer(self, body: memoryview, options: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Return header and body of the answer to a batch.

        Args:
            body: its values.
            options: `absent`, `index`, `arrays` and `params` of the batch, if it has any.
        """
        import pyarrow as pa

        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            batch = reader.read_next_batch()
        data = self.data(batch, options)
        given = self.frames.predict(self.predictor, self.contract["columns"], data, options.get("params"))
        return encode(self.outputs.normalise(given, batch.num_rows))

    def data(self, batch: Any, options: dict[str, Any]) -> Any:
        """Return `batch` in the form that MLflow passes to a model, as the server's `Contract.to_pandas` does."""
        columns = self.contract["columns"]
        if columns[0]["kind"] == "tensor":
            return self.tensors(batch, options.get("tensors"))
        if self.contract["hinted"]:
            return self.frames.plain(columns[0], batch.column(0))
        named, missing_text = self.contract["named"], self.contract["missing_text"]
        absent, index, arrays = options.get("absent", ()), options.get("index"), options.get("arrays", False)
        return self.frames.frame(columns, batch.columns, named, missing_text, absent, index, batch.num_rows, arrays)

    def tensors(self, batch: Any, whole: dict[str, Any] | None) -> Any:
        """Return `batch`, or `whole` if the tensors differ in length, as one array or as several named arrays."""
        columns = self.contract["columns"]
        if whole is not None:
            return {
                column["name"]: self.frames.tensor(whole[column["name"]][1], column["dtype"], whole[column["name"]][0])
                for column in columns
            }
        arrays = {
            column["name"]: self.frames.rows_of_tensor(column, array.to_pylist())
            for column, array in zip(columns, batch.columns)
        }
        return arrays if len(arrays) > 1 or self.contract["named"] else next(iter(arrays.values()))


def load_outputs() -> Any:
    """Return the server's module `engines/outputs.py`."""
    return load_module("engines/outputs.py")


def load_module(name: str) -> Any:
    """Return a module of the server, loaded by its path because tidemill is not installed here.

    Args:
        name: of its folder and file, such as `engines/outputs.py`.
    """
    path = pathlib.Path(__file__).resolve().parent.parent / name
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    module = types.ModuleType(path.stem + "_of_host")
    exec(code, module.__dict__)  # noqa: S102 - an import would write a cache file into the server's installation
    return module


def encode(outputs: Any) -> tuple[dict[str, Any], Any]:
    """Return header and body for `outputs`: an array, a list, or the parts of an answer one after another."""
    if isinstance(outputs, list):
        return {"form": "json"}, json.dumps(outputs).encode("utf-8")
    if not hasattr(outputs, "parts"):
        return {"form": "array", "shape": list(outputs.shape)}, outputs.astype("<f8", copy=False).tobytes()
    parts = [encode_part(part) for part in outputs.parts]
    header = {
        "form": "answer",
        "answer": outputs.form,
        "names": list(outputs.names),
        "rows": outputs.rows,
        "parts": [{**part, "size": len(content)} for part, content in parts],
    }
    return header, b"".join(content for _, content in parts)


def encode_part(part: Any) -> tuple[dict[str, Any], bytes]:
    """Return type and bytes of a part of an answer."""
    if not hasattr(part, "dtype"):
        return {}, json.dumps(part).encode("utf-8")
    array = part.astype(part.dtype.newbyteorder("<"), copy=False)
    return {"dtype": array.dtype.str, "shape": list(array.shape)}, array.tobytes()


forbidden: list[bool] = []
hooked: list[Callable[..., None]] = []


def forbid_pickle() -> None:
    """Forbid every pickle to name a class or function; no model that the server accepts without trust contains one."""
    forbidden.append(True)
    if not hooked:
        hooked.append(refuse_pickle)
        sys.addaudithook(refuse_pickle)


def refuse_pickle(event: str, arguments: Any) -> None:
    """Refuse a pickle while pickles are forbidden; an audit hook."""
    if forbidden and event == "pickle.find_class":
        raise RuntimeError(f"the model holds a pickle (of {arguments[0]}.{arguments[1]}), which is not trusted")


def allow_pickle() -> None:
    """Allow pickles again: after loading, the model's libraries may send them to their own threads and processes."""
    del forbidden[:]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
