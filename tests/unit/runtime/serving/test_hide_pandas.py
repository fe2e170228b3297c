"""Arrow does not import pandas, but recognises its data once a model has imported it."""

from __future__ import annotations

import subprocess
import sys

import pytest

_USE = """
import pyarrow as pa, pandas as pd
table = pa.Table.from_pandas(pd.DataFrame({"a": [1.0, None], "c": pd.Categorical(["x", "y"])}))
print(pa.array(pd.Series(["a", None])).null_count, pa.array(pd.Series([1.0, None])).null_count)
print(table["a"].null_count, table.schema.field("c").type, pd.__spec__.loader)
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


HIDE = "import sys; from tidemill.runtime.serving.hide_pandas import hide_pandas_from_arrow; hide_pandas_from_arrow()\n"


def test_the_writers_import_neither_pandas_nor_mlflow() -> None:
    code = (
        "import tidemill.runtime.serving.recording.writer, tidemill.runtime.serving.recording.labels, pyarrow as pa\n"
        "pa.array(['x']), pa.repeat(pa.scalar('x'), 3)\n"
        "print([name for name in ('pandas', 'mlflow', 'sklearn') if name in sys.modules])\n"
    )
    assert run(HIDE + code) == ["[]"]


@pytest.mark.parametrize("before", ["", "pa = __import__('pyarrow'); pa.array(['x']);"])
def test_arrow_recognises_pandas_imported_later(before: str) -> None:
    plain = run(_USE)
    assert [line.split(" <")[0] for line in run(f"{HIDE}{before}{_USE}")] == [line.split(" <")[0] for line in plain]
    assert plain[0] == "1 1"


def test_nothing_changes_if_pandas_is_already_imported() -> None:
    assert run(f"import pandas\n{HIDE}{_USE}")[0] == "1 1"
