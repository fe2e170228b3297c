"""Reads and writes all rows of MLflow's databases in one format for SQLite and Postgres.

Tables and columns are read from the database itself, so that none is missed. The first line of a table is a JSON list
of its columns; each further line is the JSON list of the values of a row.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, cast

from ...runtime.common.errors import PlatformError, RefusedError
from .manifest import Table
from .schema import MlflowTables

if TYPE_CHECKING:
    import sqlalchemy as sa

_BATCH = 500
_FETCH = 2000
_VERSIONS = "alembic_version"
# Tables into which MLflow's migrations insert rows.
_PRESET = frozenset({"workspaces"})


class Digest:
    """The sum of the hashes of rows, independent of their order, which differs between databases.

    >>> one, two = Digest(), Digest()
    >>> one.add(["a", 1]), one.add(["b", 2]), two.add(["b", 2]), two.add(["a", 1])
    (None, None, None, None)
    >>> one.table() == two.table()
    True
    """

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0

    def add(self, row: Sequence[Any]) -> None:
        """Add a row of encoded values."""
        self._rows += 1
        self._sum += int.from_bytes(hashlib.sha256(_line(row)).digest(), "big")

    def table(self) -> Table:
        """Return the number of rows and their digest."""
        return Table(rows=self._rows, digest=f"{self._sum % 2**256:064x}")


class SourceDatabase:
    """A consistent snapshot of a database; made by `source_database`."""

    def __init__(self, connection: sa.Connection, name: str) -> None:
        self._connection = connection
        self._metadata = _reflect(connection)
        self.revision = _revision(connection, self._metadata, name)

    def tables(self) -> list[str]:
        """Return the names of the tables, each after the tables that it refers to."""
        return [table.name for table in _sorted(self._metadata)]

    def lines(self, table: str) -> Iterator[bytes]:
        """Yield the lines of a table; none if it has no rows."""
        header, columns = False, _columns(self._metadata.tables[table])
        for row in _rows(self._connection, columns):
            if not header:
                yield _line([column.name for column in columns]) + b"\n"
                header = True
            yield _line(row) + b"\n"

    def digest(self, table: str) -> Table:
        """Return the number of rows of a table and their digest."""
        digest = Digest()
        for row in _rows(self._connection, _columns(self._metadata.tables[table])):
            digest.add(row)
        return digest.table()

    def tags(self, wanted: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the tags `wanted` of every run: run -> key -> value."""
        import sqlalchemy as sa

        found = self._metadata.tables["tags"]
        tags: dict[str, dict[str, str]] = {}
        for run, key, value in self._connection.execute(
            sa.select(found.c.run_uuid, found.c.key, found.c.value).where(found.c.key.in_(wanted))
        ):
            tags.setdefault(str(run), {})[str(key)] = str(value)
        return tags


class DestinationDatabase:
    """A database that is filled in one transaction; made by `destination_database`."""

    def __init__(self, connection: sa.Connection, name: str) -> None:
        self._connection = connection
        self._metadata = _reflect(connection)
        self._name = name
        self.revision = _revision(connection, self._metadata, name)
        for table in _sorted(self._metadata):
            if table.name in _PRESET:
                connection.execute(table.delete())

    def fill(self, tables: Mapping[str, Callable[[], Iterable[bytes]]]) -> None:
        """Insert the lines of every table.

        Args:
            tables: name -> function that returns the lines.

        Raises:
            RefusedError: the schema has no such table or column.
            PlatformError: the database refused a row.
        """
        from sqlalchemy.exc import SQLAlchemyError

        known = {table.name for table in _sorted(self._metadata)}
        if unknown := min(set(tables) - known, default=None):
            raise RefusedError("MLflow's schema has no such table", field=self._name, value=unknown)
        for table in _sorted(self._metadata):
            if table.name not in tables:
                continue
            try:
                self._insert(table, tables[table.name]())
            except SQLAlchemyError as error:
                # The error's text would contain the row.
                cause = type(getattr(error, "orig", None) or error).__name__
                raise PlatformError(
                    f"the database refused the rows of {table.name} ({cause})", field=self._name
                ) from None
            self._continue_sequences(table)

    def compare(self, tables: Mapping[str, Table]) -> None:
        """Read everything back and compare it with `tables`.

        Raises:
            PlatformError: a table has other rows.
        """
        for table in _sorted(self._metadata):
            digest = Digest()
            for row in _rows(self._connection, _columns(table)):
                digest.add(row)
            if digest.table() != tables.get(table.name, Digest().table()):
                raise PlatformError(
                    f"the table {table.name} differs from the archive", field=self._name,
                    value=f"{digest.table().rows} rows",
                )  # fmt: skip

    def replace(self, table: str, key: str, old: str, new: str) -> None:
        """Change the value of all tags `key` in `table` from `old` to `new`."""
        found = self._metadata.tables[table]
        changed = found.update().where(found.c.key == key, found.c.value == old).values(value=new)
        self._connection.execute(changed)

    def _insert(self, table: sa.Table, lines: Iterable[bytes]) -> None:
        iterator = iter(lines)
        header = next(iterator, None)
        if header is None:
            return
        names: list[str] = json.loads(header)
        columns = {column.name: column for column in _columns(table)}
        if set(names) != set(columns):
            other = min(set(names) ^ set(columns))
            raise RefusedError(f"MLflow's schema has other columns in {table.name}", field=self._name, value=other)
        decoders = [_decoder(columns[name]) for name in names]
        batch: list[dict[str, Any]] = []
        for line in iterator:
            values = cast("list[Any]", json.loads(line))
            batch.append({name: decode(value) for name, decode, value in zip(names, decoders, values, strict=True)})
            if len(batch) == _BATCH:
                self._connection.execute(table.insert(), batch)
                batch = []
        if batch:
            self._connection.execute(table.insert(), batch)

    def _continue_sequences(self, table: sa.Table) -> None:
        """Set the sequences of Postgres to the largest inserted numbers."""
        import sqlalchemy as sa

        if self._connection.dialect.name != "postgresql":
            return
        for column in table.primary_key.columns:
            named = {"table": f'"{table.name}"', "column": column.name}
            sequence = self._connection.scalar(sa.text("select pg_get_serial_sequence(:table, :column)"), named)
            if sequence is not None:
                most = self._connection.scalar(sa.select(sa.func.max(column)))
                if most is not None:
                    self._connection.execute(sa.select(sa.func.setval(sequence, most)))


@contextmanager
def source_database(url: str, name: str) -> Generator[SourceDatabase]:
    """Open a consistent snapshot of the database at `url`.

    Raises:
        RefusedError: it is not a database of MLflow.
    """
    with _engine(url, name) as engine:
        level = "REPEATABLE READ" if engine.dialect.name == "postgresql" else "SERIALIZABLE"
        with engine.connect().execution_options(isolation_level=level) as connection, connection.begin():
            yield SourceDatabase(connection, name)


@contextmanager
def destination_database(url: str, name: str, tables: MlflowTables) -> Generator[DestinationDatabase]:
    """Create MLflow's tables in the empty database at `url` and open it for filling; an error rolls back all rows.

    Raises:
        RefusedError: it is not empty.
    """
    with _engine(url, name) as engine:
        with engine.connect() as connection:
            _require_empty(connection, name)
        tables.make(url, name)
        with engine.begin() as connection:
            yield DestinationDatabase(connection, name)


@contextmanager
def _engine(url: str, name: str) -> Generator[sa.Engine]:
    import sqlalchemy as sa
    from sqlalchemy.exc import OperationalError

    engine = sa.create_engine(url)
    try:
        yield engine
    except OperationalError as error:
        raise PlatformError(f"the database cannot be used ({type(error.orig).__name__})", field=name) from None
    finally:
        engine.dispose()


def _require_empty(connection: sa.Connection, name: str) -> None:
    """Raise RefusedError if the database has a row; drop the empty tables of an interrupted import."""
    import sqlalchemy as sa

    metadata = _reflect(connection)
    for table in _sorted(metadata):
        if table.name in _PRESET:
            continue
        if connection.scalar(sa.select(sa.func.count()).select_from(table)):
            raise RefusedError(
                "the database is not empty", field=name, value=table.name, hint="import into a new stack"
            )
    metadata.drop_all(connection)
    connection.commit()


def _reflect(connection: sa.Connection) -> sa.MetaData:
    import sqlalchemy as sa

    metadata = sa.MetaData()
    metadata.reflect(connection)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, sa.JSON):
                column.type.none_as_null = True
    return metadata


def _sorted(metadata: sa.MetaData) -> list[sa.Table]:
    """Return all tables except the migrations', each after the tables that it refers to."""
    return [table for table in metadata.sorted_tables if not table.name.startswith(_VERSIONS)]


def _revision(connection: sa.Connection, metadata: sa.MetaData, name: str) -> str:
    import sqlalchemy as sa

    tables = [table for table in metadata.tables.values() if table.name.startswith(_VERSIONS)]
    found = [str(row[0]) for table in tables for row in connection.execute(sa.select(table.c.version_num))]
    if len(found) != 1:
        raise RefusedError("is not a database of MLflow", field=name)
    return found[0]


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    """Return the columns that are not computed."""
    return sorted((column for column in table.columns if column.computed is None), key=lambda column: column.name)


def _rows(connection: sa.Connection, columns: Sequence[sa.Column[Any]]) -> Iterator[list[Any]]:
    import sqlalchemy as sa

    encoders = [_encoder(column) for column in columns]
    result = connection.execution_options(yield_per=_FETCH).execute(sa.select(*columns))
    for row in result:
        yield [None if value is None else encode(value) for encode, value in zip(encoders, row, strict=True)]


def _encoder(column: sa.Column[Any]) -> Callable[[Any], Any]:
    """Return the function that turns a value of the column into JSON, the same for every database."""
    import sqlalchemy as sa

    match column.type:
        case sa.LargeBinary():
            return lambda value: base64.b64encode(bytes(value)).decode()
        case sa.DateTime() | sa.Date():
            return lambda value: value.isoformat()
        case sa.Float():
            return float
        case sa.Boolean():
            return int  # SQLite returns some as numbers
        case _:
            return lambda value: value


def _decoder(column: sa.Column[Any]) -> Callable[[Any], Any]:
    """Return the inverse of `_encoder`."""
    import sqlalchemy as sa

    def decode(value: Any) -> Any:
        match column.type:
            case _ if value is None:
                return None
            case sa.LargeBinary():
                return base64.b64decode(value)
            case sa.DateTime():
                return datetime.fromisoformat(value)
            case sa.Date():
                return date.fromisoformat(value)
            case sa.Boolean():
                return bool(value)
            case _:
                return value

    return decode


def _line(row: Sequence[Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
