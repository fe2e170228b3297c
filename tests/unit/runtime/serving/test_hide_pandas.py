"""Arrow leaves pandas alone until it is there, and then knows it."""

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


LEAN = "import sys; from tidemill.runtime.serving.hide_pandas import arrow_without_pandas; arrow_without_pandas()\n"


def test_what_writes_brings_neither_pandas_nor_the_readers() -> None:
    code = (
        "import tidemill.runtime.serving.recording.writer, tidemill.runtime.serving.recording.labels, pyarrow as pa\n"
        "pa.array(['x']), pa.repeat(pa.scalar('x'), 3)\n"
        "print([name for name in ('pandas', 'mlflow', 'sklearn') if name in sys.modules])\n"
    )
    assert run(LEAN + code) == ["[]"]


@pytest.mark.parametrize("before", ["", "pa = __import__('pyarrow'); pa.array(['x']);"])
def test_pandas_which_comes_later_is_known_to_arrow(before: str) -> None:
    plain = run(_USE)
    assert [line.split(" <")[0] for line in run(f"{LEAN}{before}{_USE}")] == [line.split(" <")[0] for line in plain]
    assert plain[0] == "1 1"


def test_where_pandas_is_there_already_nothing_happens() -> None:
    assert run(f"import pandas\n{LEAN}{_USE}")[0] == "1 1"
