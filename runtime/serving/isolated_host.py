"""Runs in a model's own environment and answers the model server; started as a script, with no tidemill at hand.

    python -I isolated_host.py CHANNEL LIFELINE

CHANNEL is the number of a socket on which batches come and answers go; LIFELINE that of a pipe whose other end the
server holds. A message is `!IQ` (lengths), a JSON header, and a body: Arrow IPC, or JSON. Nothing is ever unpickled.
This process only watches: the model runs in a child of it, which ends with the server even when that was killed, and
whatever the model has started ends with it.

Only what every Python from 3.8 on has is used here, besides MLflow, pandas and pyarrow.
"""

# ruff: noqa: B905 - zip has no `strict` before Python 3.10

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LENGTHS = struct.Struct("!IQ")
NUMPY = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
NULLABLE = {"boolean": "object", "integer": "Int32", "long": "Int64"}


def main(argv: list[str]) -> int:
    """Be the watcher, or, in the child, the model."""
    channel, lifeline = int(argv[1]), int(argv[2])
    ready, wake = os.pipe()
    for end in (ready, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    # The server decides when it ends.
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
    """Wait for the end of the child or of the server; leave nothing of the child's group; return how it ended."""
    with contextlib.suppress(OSError):  # it did so itself, or is gone
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
    """Kill `group`, if there is anything of it."""
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def serve(connection: socket.socket) -> None:
    """Load the model which the first message names, then answer one batch after the other until the server leaves."""
    header, _ = receive(connection)
    try:
        model = Model(header)
    except BaseException as error:  # noqa: BLE001 - whatever a broken model raises is the answer
        send(connection, {"error": text_of(error), "kind": type(error).__name__})
        return
    quiet()
    send(connection, {"pid": os.getpid(), "python": sys.version.split()[0]})
    while True:
        try:
            header, body = receive(connection)
        except EOFError:
            return
        number = header["id"]
        try:
            answer, content = model.answer(body)
        except Exception as error:  # noqa: BLE001 - as above
            answer, content = {"error": text_of(error), "kind": type(error).__name__}, b""
        send(connection, {"id": number, **answer}, content)


def text_of(error: BaseException) -> str:
    """Return the first lines of what `error` says."""
    return str(error)[:2000]


def quiet() -> None:
    """Let what the model prints go nowhere: it may hold the rows."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)


def receive(connection: socket.socket) -> tuple[dict[str, Any], memoryview]:
    """Return the next message."""
    described, length = LENGTHS.unpack(exactly(connection, LENGTHS.size))
    header = json.loads(bytes(exactly(connection, described)).decode("utf-8"))
    return header, exactly(connection, length)


def exactly(connection: socket.socket, size: int) -> memoryview:
    """Return the next `size` bytes."""
    content = memoryview(bytearray(size))
    got = 0
    while got < size:
        count = connection.recv_into(content[got:])
        if not count:
            raise EOFError
        got += count
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
        told: `model`, its folder; `loader`, the only module which may load it; `unpickles`, whether its code may
            unpickle; `contract`, its columns.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        import mlflow.pyfunc
        from mlflow.models import Model as Described

        function = (Described.load(told["model"]).flavors or {}).get("python_function") or {}
        if function.get("loader_module") != told["loader"]:
            raise ValueError(f"the model is loaded by {function.get('loader_module')} instead of {told['loader']}")
        if not told["unpickles"]:
            forbid_pickle()
        self.columns = told["contract"]["columns"]
        self.named = told["contract"]["named"]
        self.predictor = mlflow.pyfunc.load_model(told["model"])
        allow_pickle()

    def answer(self, body: memoryview) -> tuple[dict[str, Any], Any]:
        """Return header and body of the answer to a batch."""
        import pyarrow as pa

        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            batch = reader.read_next_batch()
        return encode(normal(self.predictor.predict(self.frame(batch)), batch.num_rows))

    def frame(self, batch: Any) -> Any:
        """Return `batch` as MLflow hands it to a model: what `Contract.to_pandas` of the server gives."""
        if self.columns[0]["kind"] == "tensor":
            return self.tensors(batch)
        import pandas as pd

        labels = [column["name"] for column in self.columns] if self.named else list(range(len(self.columns)))
        columns = zip(labels, self.columns, batch.columns)
        return pd.DataFrame({label: series(column, array) for label, column, array in columns})

    def tensors(self, batch: Any) -> Any:
        """Return `batch` as one array, or as several by name."""
        import numpy as np

        arrays = {
            column["name"]: np.array(array.to_pylist(), dtype=column["dtype"]).reshape(
                [len(array), *column["shape"][1:]] if -1 not in column["shape"][1:] else np.shape(array.to_pylist())
            )
            for column, array in zip(self.columns, batch.columns)
        }
        return arrays if len(arrays) > 1 or self.named else next(iter(arrays.values()))


def series(column: dict[str, Any], array: Any) -> Any:
    """Return an Arrow array as a column of a frame."""
    import numpy as np
    import pandas as pd

    kind = column["kind"]
    if kind in NUMPY and (column["required"] or kind not in NULLABLE):
        return np.array(array.to_numpy(zero_copy_only=False), dtype=NUMPY[kind])
    values = array.to_pylist()
    if kind in ("integer", "long"):
        return pd.array(values, dtype=NULLABLE[kind])
    if kind == "datetime":
        plain = [None if value is None else value.replace(tzinfo=None) for value in values]
        return np.array(plain, dtype="datetime64[us]").astype("datetime64[ns]")
    if kind == "string" and int(pd.__version__.partition(".")[0]) >= 3:
        return pd.array(values, dtype="str")
    if kind == "json":
        values = [None if value is None else json.loads(value) for value in values]
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        objects[position] = value
    return objects


def normal(result: Any, rows: int) -> Any:
    """Return what a model gave as an array of floats or as a list of what JSON can hold, one value a row."""
    import numpy as np
    import pandas as pd

    if hasattr(result, "toarray"):  # a sparse matrix
        result = result.toarray()
    if isinstance(result, pd.DataFrame):
        result = result.iloc[:, 0] if result.shape[1] == 1 else result.to_dict("records")
    elif isinstance(result, dict):
        names = [str(name) for name in result]
        result = [dict(zip(names, values)) for values in zip(*result.values())]
    if not isinstance(result, list):
        result = np.asarray(result)
        if result.shape[:1] != (rows,):
            raise ValueError(f"the model gave the shape {result.shape} for {rows} rows")
        if result.dtype.kind == "f" and result.ndim <= 2:
            return result.astype("float64", copy=False)
    if len(result) != rows:
        raise ValueError(f"the model gave {len(result)} values for {rows} rows")
    return [plain(value) for value in result]


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if hasattr(value, "isoformat"):
        return value.isoformat() if value == value else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise TypeError(f"the model gave a {type(value).__name__}, which JSON does not hold")


def encode(outputs: Any) -> tuple[dict[str, Any], Any]:
    """Return header and body which say `outputs`."""
    if isinstance(outputs, list):
        return {"form": "json"}, json.dumps(outputs, allow_nan=False).encode("utf-8")
    import pyarrow as pa

    flat = pa.array(outputs.reshape(-1))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("outputs", flat.type)])) as writer:
        writer.write_batch(pa.record_batch([flat], names=["outputs"]))
    return {"form": "array", "shape": list(outputs.shape)}, memoryview(sink.getvalue())


forbidden: list[bool] = []
hooked: list[Callable[..., None]] = []


def forbid_pickle() -> None:
    """Let no pickle name a class or function from now on, whoever reads it: no model which we let through has one."""
    forbidden.append(True)
    if not hooked:
        hooked.append(refuse_pickle)
        sys.addaudithook(refuse_pickle)


def refuse_pickle(event: str, arguments: Any) -> None:
    """Refuse, as long as pickles are forbidden."""
    if forbidden and event == "pickle.find_class":
        raise RuntimeError(f"the model holds a pickle (of {arguments[0]}.{arguments[1]}), which is never read")


def allow_pickle() -> None:
    """Let pickles be: the model is loaded, and what its libraries send to their own threads and processes is theirs."""
    del forbidden[:]


if __name__ == "__main__":
    sys.exit(main(sys.argv))
