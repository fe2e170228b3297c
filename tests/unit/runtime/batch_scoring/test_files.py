"""Files in, files out: every kind is read as the same rows, and a result is there whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from tidemill.runtime.batch_scoring.inputs import open_input
from tidemill.runtime.batch_scoring.outputs import open_output, open_sink
from tidemill.runtime.common.errors import ConfigError, NotFoundError, TidemillError, UserError

TABLE = pa.table({"id": ["007", "8", "9"], "x": [1.5, 2.5, None], "name": ["a", "it,s", 'q"']})


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("TIDEMILL_RUNTIME", "TIDEMILL_STACK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, table: pa.Table = TABLE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name
    if name.endswith((".parquet", ".pq")):
        pq.write_table(table, path, row_group_size=2)
    elif name.endswith(".csv"):
        pyarrow.csv.write_csv(table, path)
    elif name.endswith(".csv.gz"):
        with pa.CompressedOutputStream(str(path), "gzip") as stream:
            pyarrow.csv.write_csv(table, stream)
    elif name.endswith(".tsv"):
        pyarrow.csv.write_csv(table, path, pyarrow.csv.WriteOptions(delimiter="\t"))
    elif name.endswith(".feather"):
        pyarrow.feather.write_feather(table, str(path))
    else:
        opened = pyarrow.ipc.new_stream if name.endswith(".arrows") else pyarrow.ipc.new_file
        with opened(str(path), table.schema) as writer:
            writer.write_table(table)


def read(text: str, columns: Sequence[str] = ("x", "id"), rows: int = 2) -> list[tuple[str, list[dict[str, object]]]]:
    found: list[tuple[str, list[dict[str, object]]]] = []
    for part in open_input(text).open_files():
        batches = list(part.batches(columns, rows))
        assert all(0 < batch.num_rows <= rows for batch in batches)
        assert all(batch.schema.names == list(columns) for batch in batches)
        found.append((part.name, [row for batch in batches for row in batch.to_pylist()]))
    return found


@pytest.mark.parametrize("name", ["a.parquet", "a.pq", "a.arrow", "a.arrows", "a.feather", "a.ipc", "A.PARQUET"])
def test_every_binary_kind_is_the_same_rows(place: Path, name: str) -> None:
    write(place / name if name != "A.PARQUET" else place / "a.parquet")
    if name == "A.PARQUET":
        (place / "a.parquet").rename(place / name)
    rows = [{"x": 1.5, "id": "007"}, {"x": 2.5, "id": "8"}, {"x": None, "id": "9"}]
    assert read(name) == [(name, rows)]
    [part] = open_input(name).open_files()
    assert (part.columns, part.is_text) == (("id", "x", "name"), False)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv"])
def test_text_stays_text(place: Path, name: str) -> None:
    write(place / name)
    rows = [{"x": "1.5", "name": "a"}, {"x": "2.5", "name": "it,s"}, {"x": None, "name": 'q"'}]
    assert read(name, ("x", "name")) == [(name, rows)]
    assert read(name, ("id",))[0][1][0] == {"id": "007"}


def test_a_csv_file_is_read_as_it_is(place: Path) -> None:
    (place / "a.csv").write_bytes(b'\xef\xbb\xbfx,"name"\r\n1,"two\nlines"\r\n,""\r\n')
    assert read("a.csv", ("x", "name")) == [("a.csv", [{"x": "1", "name": "two\nlines"}, {"x": None, "name": ""}])]
    # Types which only later rows show do not change earlier ones.
    many = "x\n" + "1\n" * 400_000 + "word\n"
    (place / "b.csv").write_text(many)
    [part] = open_input("b.csv").open_files()
    assert [row for batch in part.batches(["x"], 65_536) for row in batch.column(0).to_pylist()][-2:] == ["1", "word"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_labels_of_rows_without_a_name_are_no_column(place: Path, name: str) -> None:
    text = '\ufeff"n\nm",x\n0,1,2.5\n1,3,4.5\n'
    (place / name).write_text(text if name == "a.csv" else text.replace(",", "\t"))
    [part] = open_input(name).open_files()
    assert part.columns == ("n\nm", "x")
    assert read(name, ("x", "n\nm")) == [(name, [{"x": "2.5", "n\nm": "1"}, {"x": "4.5", "n\nm": "3"}])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n\n1\n  \n2\n", ["1", "2"]),
        ('n\n""\n\n \t\n2\n', ["", "2"]),
        ("  \nn\n1\n", ["1"]),
        ("n,x\n1,1\n  \n2,2\n", ["1", "2"]),
        ("n,x\n  , \n", ["  "]),
    ],
)
def test_lines_of_blanks_are_skipped(place: Path, text: str, expected: list[str]) -> None:
    (place / "a.csv").write_text(text)
    assert read("a.csv", ["n"], rows=10) == [("a.csv", [{"n": value} for value in expected])]


def test_a_line_with_too_few_values_is_an_error(place: Path) -> None:
    (place / "a.csv").write_text("n,x\n1,1\n2\n")
    with pytest.raises(ConfigError, match="Expected 2 columns, got 1"):
        read("a.csv", ["n"])


def test_folders_and_globs_are_read_in_order_and_without_what_is_hidden(place: Path) -> None:
    for name in ("d/2.parquet", "d/1.csv", "d/sub/0.arrow", "d/_temporary/0.parquet", "d/.x.parquet"):
        write(place / name)
    (place / "d" / "_SUCCESS").write_text("")
    (place / "d" / "notes.txt").write_text("")
    assert [name for name, _ in read("d")] == ["d/1.csv", "d/2.parquet", "d/sub/0.arrow"]
    assert [name for name, _ in read("d/*.parquet")] == ["d/2.parquet"]
    assert [name for name, _ in read("d/**/*.arrow")] == ["d/sub/0.arrow"]
    assert [name for name, _ in read(str(place / "d" / "2.*"))] == [str(place / "d" / "2.parquet")]
    assert open_input("d").files == 3


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("absent.parquet", "no such file or folder"),
        ("flights/main/departures", "no platform with a lake is configured"),
        ("lakefs://flights/main/departures", "no platform is configured"),
        ("*.pq", "no file matches the pattern"),
        ("empty", "no files that can be scored"),
        ("notes.txt", "use .parquet, "),
        ("broken.parquet", "broken.parquet"),
        ("broken.arrow", "broken.arrow"),
        ("old.feather", "version 1"),
        ("nothing.csv", "Empty CSV"),
        ("twice.csv", "duplicate column 'a'"),
        ("latin.csv", "latin.csv"),
        ("ragged.csv", "ragged.csv"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_name(place: Path, text: str, what: str) -> None:
    (place / "empty").mkdir()
    for name in ("notes.txt", "broken.parquet", "broken.arrow"):
        (place / name).write_text("not that")
    (place / "old.feather").write_bytes(b"FEA1" + bytes(20))
    (place / "nothing.csv").write_text("")
    (place / "twice.csv").write_text("a,b,a\n1,2,3\n")
    (place / "latin.csv").write_bytes(b"x\n" + "Zürich\n".encode("latin-1") * 3)
    (place / "ragged.csv").write_text("x,y\n1,2\n1\n")
    with pytest.raises(TidemillError) as caught:
        for part in open_input(text).open_files():
            list(part.batches(part.columns, 10))
    assert what in str(caught.value)
    assert caught.value.exit_code == 2


def test_files_pass_no_gate(place: Path) -> None:
    write(place / "a.parquet")
    with pytest.raises(ConfigError, match="--validated"):
        open_input("a.parquet", validated=True)


BATCH = pa.record_batch(
    {"id": pa.array([1, 2]), "scores": pa.array([[0.25, 0.75], [1.0, 0.0]], pa.list_(pa.float64(), 2))}
)


def put(text: str, *, overwrite: bool = False) -> None:
    output = open_output(text, overwrite=overwrite)
    with output.work() as work:
        with open_sink(work, output.format, BATCH.schema.with_metadata({"tidemill.model": "m"})) as sink:
            sink.write(BATCH)
            sink.write(BATCH)
        output.publish(work, {})


@pytest.mark.parametrize("name", ["out", "out.parquet", "out.arrow", "out.feather"])
def test_what_is_written_can_be_read_by_others(place: Path, name: str) -> None:
    put(name)
    is_parquet = name in ("out", "out.parquet")
    found = pq.read_table(place / name) if is_parquet else pyarrow.feather.read_table(place / name)
    assert found.to_pydict() == {"id": [1, 2, 1, 2], "scores": [[0.25, 0.75], [1.0, 0.0]] * 2}
    assert found.schema.metadata[b"tidemill.model"] == b"m"


def test_csv_has_a_column_for_each_score(place: Path) -> None:
    put("out.csv")
    rows = "1,0.25,0.75\n2,1,0\n"
    assert (place / "out.csv").read_text() == f'"id","scores_0","scores_1"\n{rows}{rows}'
    nested = pa.schema([("a", pa.list_(pa.int8()))])
    with pytest.raises(ConfigError, match="CSV cannot represent"), open_sink(place / "x", "csv", nested):
        pass


def test_a_result_is_not_overwritten_unless_asked(place: Path) -> None:
    (place / "out.parquet").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        put("out.parquet")
    assert (place / "out.parquet").read_text() == "mine"
    put("out.parquet", overwrite=True)
    assert pq.read_table(place / "out.parquet").num_rows == 4


def test_who_was_first_meanwhile_is_not_overwritten(place: Path) -> None:
    output = open_output("out.parquet")
    with pytest.raises(UserError, match="--overwrite"), output.work() as work:
        work.write_text("ours")
        (place / "out.parquet").write_text("theirs")
        output.publish(work, {})
    assert (place / "out.parquet").read_text() == "theirs"
    assert [path.name for path in place.iterdir()] == ["out.parquet"]


def test_a_run_which_fails_leaves_nothing(place: Path) -> None:
    output = open_output("out.parquet")
    with pytest.raises(ZeroDivisionError), output.work() as work:
        work.write_text("half")
        assert [path.name.startswith(".out.parquet.") for path in place.iterdir()] == [True]
        raise ZeroDivisionError
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "error", "what"),
    [
        ("out.xlsx", ConfigError, "use one of .parquet"),
        ("absent/out.parquet", NotFoundError, "the folder does not exist"),
        (".", UserError, "this is a folder"),
        ("lakefs://flights/main", ConfigError, "add a path"),
    ],
)
def test_a_place_which_takes_no_result_is_refused_at_once(text: str, error: type[TidemillError], what: str) -> None:
    with pytest.raises(error, match=what):
        open_output(text)
