"""Runs in a model's own environment and answers the model server; started as a script, with no tidemill at hand.

    python -I isolated_host.py CHANNEL LIFELINE

CHANNEL is the number of a socket on which batches come and answers go; LIFELINE that of a pipe whose other end the
server holds. A message is `!IQ` (lengths), a JSON header, and a body: rows as Arrow IPC, outputs as
doubles or JSON. Nothing is ever unpickled.
This process only watches: the model runs in a child of it, which ends with the server even when that was killed, and
whatever the model has started ends with it.

Only what every Python from 3.8 on has is used here, besides MLflow, pandas and pyarrow.
"""

# ruff: noqa: B905 - zip has no `strict` before Python 3.10

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

LENGTHS = struct.Struct("!IQ")
NUMPY = {"boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64"}
NULLABLE = {"boolean": "object", "integer": "Int32", "long": "Int64"}
DEPTH = 32


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
            if len(content) > model.message_bytes:
                raise ValueError(f"the model gave {len(content)} bytes, more than the server takes at once")
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
            unpickle; `contract`, its columns; `message_bytes`, the size of an answer.
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
        self.message_bytes = told["message_bytes"]
        self.predictor = mlflow.pyfunc.load_model(told["model"], suppress_warnings=True)
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
    if kind == "string":
        # A series, since pandas 3 would make its own text of a bare array of objects, and NaN of None.
        return pd.Series(values, dtype=object)
    if kind == "json":
        values = [None if value is None else json.loads(value) for value in values]
    objects = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        objects[position] = value
    return objects


def normal(given: Any, rows: int) -> Any:
    """Return what a model gave as an array of floats or as a list of what JSON can hold, one value a row.

    This and `plain` say what `engines/outputs.py` of the server says, to any Python; a test compares them.
    """
    import numpy as np

    if isinstance(given, np.ndarray):
        if given.dtype.kind == "f" and given.ndim in (1, 2):
            values: Any = given.astype(np.float64, copy=False)
        else:
            values = plain(given) if given.ndim else [plain(given)]
    elif hasattr(given, "columns") and hasattr(given, "to_dict"):
        values = [{str(key): plain(value) for key, value in row.items()} for row in given.to_dict(orient="records")]
    elif hasattr(given, "to_numpy"):
        array = given.to_numpy()
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.ndim == 1:
            values = array.astype(np.float64, copy=False)
        else:
            values = [plain(value) for value in given.tolist()]
    elif isinstance(given, Mapping):
        values = by_name(given, rows)
    elif isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        values = [plain(value) for value in given]
    else:
        values = [plain(given)]
    if len(values) != rows:
        raise ValueError(f"the model gave {len(values)} values for {rows} rows")
    return values


def by_name(given: Any, rows: int) -> list[Any]:
    """Return an object a row of named columns; of one row, they may be anything."""
    columns = {str(name): normal(value, length(value)) for name, value in given.items()}
    if not columns or any(len(values) != rows for values in columns.values()):
        if rows == 1:
            return [plain(given)]
        raise ValueError(f"the model gave an object whose parts are not one value for each of {rows} rows")
    return [dict(zip(columns, row)) for row in zip(*[plain(values) for values in columns.values()])]


def length(value: Any) -> int:
    """Return how many rows `value` is of."""
    return len(value) if hasattr(value, "__len__") and not isinstance(value, (str, bytes, Mapping)) else 1


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as JSON can hold it; a number which is not finite is null there."""
    import numpy as np

    if value is None or isinstance(value, (str, bool, int)):
        return next((kind(value) for kind in (bool, int, str) if isinstance(value, kind)), None)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if depth > DEPTH:
        raise ValueError("the model gave a value which is nested too deeply")
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return None if np.isnat(value) else str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, np.ndarray):
        return [plain(item, depth + 1) for item in value] if value.ndim else plain(value.item(), depth + 1)
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item, depth + 1) for item in value]
    return other(value, depth)


def other(value: Any, depth: int) -> Any:
    """Return a value of a class which is no common one as JSON can hold it."""
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, (datetime, date)):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        return plain(float(value))
    if isinstance(value, timedelta):
        return value.total_seconds()
    for way in ("model_dump", "to_dict", "tolist"):
        method = getattr(value, way, None)
        if callable(method):
            return plain(method(), depth + 1)
    return str(value)


def encode(outputs: Any) -> tuple[dict[str, Any], Any]:
    """Return header and body which say `outputs`."""
    if isinstance(outputs, list):
        return {"form": "json"}, json.dumps(outputs, allow_nan=False).encode("utf-8")
    return {"form": "array", "shape": list(outputs.shape)}, outputs.astype("<f8", copy=False).tobytes()


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
