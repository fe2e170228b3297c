"""MLflow's databases: every row of every table, in a form which neither SQLite nor Postgres has to itself.

Tables and columns are what the database itself says, so that nothing MLflow keeps is forgotten. Rows are lines of JSON,
a list of values in the order of the first line, which names the columns.
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
from .schema import Tables

if TYPE_CHECKING:
    import sqlalchemy as sa

__all__ = ["Digest", "NewDatabase", "OldDatabase", "new_database", "old_database"]

_BATCH = 500
_FETCH = 2000
_VERSIONS = "alembic_version"
# What MLflow's own migrations put into new tables.
_GIVEN = frozenset({"workspaces"})


class Digest:
    """The sum of the hashes of rows: the same whatever their order, which databases do not agree on.

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
        """Add a row, its values as `_plain` gives them."""
        self._rows += 1
        self._sum += int.from_bytes(hashlib.sha256(_line(row)).digest(), "big")

    def table(self) -> Table:
        """Return the rows and their digest."""
        return Table(rows=self._rows, digest=f"{self._sum % 2**256:064x}")


class OldDatabase:
    """A database which is read, as of one moment. From `old_database`."""

    def __init__(self, connection: sa.Connection, name: str) -> None:
        self._connection = connection
        self._metadata = _reflect(connection)
        self.revision = _revision(connection, self._metadata, name)

    def tables(self) -> list[str]:
        """Return the names of the tables, in an order in which rows find those they refer to."""
        return [table.name for table in _sorted(self._metadata)]

    def lines(self, table: str) -> Iterator[bytes]:
        """Yield the lines of a table; of one without rows, none."""
        header, columns = False, _columns(self._metadata.tables[table])
        for row in _rows(self._connection, columns):
            if not header:
                yield _line([column.name for column in columns]) + b"\n"
                header = True
            yield _line(row) + b"\n"

    def digest(self, table: str) -> Table:
        """Return rows and digest of a table."""
        digest = Digest()
        for row in _rows(self._connection, _columns(self._metadata.tables[table])):
            digest.add(row)
        return digest.table()

    def tags(self, wanted: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the tags in `wanted` of every run: run -> key -> value."""
        import sqlalchemy as sa

        found = self._metadata.tables["tags"]
        tags: dict[str, dict[str, str]] = {}
        for run, key, value in self._connection.execute(
            sa.select(found.c.run_uuid, found.c.key, found.c.value).where(found.c.key.in_(wanted))
        ):
            tags.setdefault(str(run), {})[str(key)] = str(value)
        return tags


class NewDatabase:
    """A database which is filled, in one transaction. From `new_database`."""

    def __init__(self, connection: sa.Connection, name: str) -> None:
        self._connection = connection
        self._metadata = _reflect(connection)
        self._name = name
        self.revision = _revision(connection, self._metadata, name)
        for table in _sorted(self._metadata):
            if table.name in _GIVEN:
                connection.execute(table.delete())

    def fill(self, tables: Mapping[str, Callable[[], Iterable[bytes]]]) -> None:
        """Insert the lines of every table; `tables` gives them by name.

        Raises:
            RefusedError: there is no such table or column.
            PlatformError: the database did not take a row.
        """
        from sqlalchemy.exc import SQLAlchemyError

        known = {table.name for table in _sorted(self._metadata)}
        if unknown := min(set(tables) - known, default=None):
            raise RefusedError("MLflow's schema has no such table here", field=self._name, value=unknown)
        for table in _sorted(self._metadata):
            if table.name not in tables:
                continue
            try:
                self._insert(table, tables[table.name]())
            except SQLAlchemyError as error:
                # The text of the error would hold the row.
                cause = type(getattr(error, "orig", None) or error).__name__
                raise PlatformError(
                    f"the database did not take the rows of {table.name} ({cause})", field=self._name
                ) from None
            self._count_on(table)

    def compare(self, tables: Mapping[str, Table]) -> None:
        """Read everything back.

        Raises:
            PlatformError: a table holds other rows than `tables` say.
        """
        for table in _sorted(self._metadata):
            digest = Digest()
            for row in _rows(self._connection, _columns(table)):
                digest.add(row)
            if digest.table() != tables.get(table.name, Digest().table()):
                raise PlatformError(
                    f"the table {table.name} does not hold what the archive does", field=self._name,
                    value=f"{digest.table().rows} rows",
                )  # fmt: skip

    def replace(self, table: str, key: str, old: str, new: str) -> None:
        """Change the value of every tag `key` of a table of tags which has the value `old`."""
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
            raise RefusedError(f"MLflow's schema has other columns in {table.name} here", field=self._name, value=other)
        readers = [_reader(columns[name]) for name in names]
        batch: list[dict[str, Any]] = []
        for line in iterator:
            values = cast("list[Any]", json.loads(line))
            batch.append({name: read(value) for name, read, value in zip(names, readers, values, strict=True)})
            if len(batch) == _BATCH:
                self._connection.execute(table.insert(), batch)
                batch = []
        if batch:
            self._connection.execute(table.insert(), batch)

    def _count_on(self, table: sa.Table) -> None:
        """Let Postgres go on counting behind the numbers which were inserted."""
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
def old_database(url: str, name: str) -> Generator[OldDatabase]:
    """Open the database at `url` for reading, as of one moment.

    Raises:
        RefusedError: it is none of MLflow's.
    """
    with _engine(url, name) as engine:
        level = "REPEATABLE READ" if engine.dialect.name == "postgresql" else "SERIALIZABLE"
        with engine.connect().execution_options(isolation_level=level) as connection, connection.begin():
            yield OldDatabase(connection, name)


@contextmanager
def new_database(url: str, name: str, tables: Tables) -> Generator[NewDatabase]:
    """Make MLflow's tables in the empty database at `url`, and open it for filling; no row is kept after an error.

    Raises:
        RefusedError: it is not empty.
    """
    with _engine(url, name) as engine:
        with engine.connect() as connection:
            _require_empty(connection, name)
        tables.make(url, name)
        with engine.begin() as connection:
            yield NewDatabase(connection, name)


@contextmanager
def _engine(url: str, name: str) -> Generator[sa.Engine]:
    import sqlalchemy as sa
    from sqlalchemy.exc import OperationalError

    engine = sa.create_engine(url)
    try:
        yield engine
    except OperationalError as error:
        raise PlatformError(f"the database cannot be worked with ({type(error.orig).__name__})", field=name) from None
    finally:
        engine.dispose()


def _require_empty(connection: sa.Connection, name: str) -> None:
    """Refuse a database in which there is a row; tables which an interrupted attempt made are dropped."""
    import sqlalchemy as sa

    metadata = _reflect(connection)
    for table in _sorted(metadata):
        if table.name in _GIVEN:
            continue
        if connection.scalar(sa.select(sa.func.count()).select_from(table)):
            raise RefusedError(
                "the database is not empty", field=name, value=table.name, hint="import into a stack which is new"
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
    """Return the tables but those of the migrations, each behind those it refers to."""
    return [table for table in metadata.sorted_tables if not table.name.startswith(_VERSIONS)]


def _revision(connection: sa.Connection, metadata: sa.MetaData, name: str) -> str:
    import sqlalchemy as sa

    tables = [table for table in metadata.tables.values() if table.name.startswith(_VERSIONS)]
    found = [str(row[0]) for table in tables for row in connection.execute(sa.select(table.c.version_num))]
    if len(found) != 1:
        raise RefusedError("is no database of MLflow's", field=name)
    return found[0]


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    """Return the columns which are kept, not computed."""
    return sorted((column for column in table.columns if column.computed is None), key=lambda column: column.name)


def _rows(connection: sa.Connection, columns: Sequence[sa.Column[Any]]) -> Iterator[list[Any]]:
    import sqlalchemy as sa

    plain = [_plainer(column) for column in columns]
    result = connection.execution_options(yield_per=_FETCH).execute(sa.select(*columns))
    for row in result:
        yield [None if value is None else make(value) for make, value in zip(plain, row, strict=True)]


def _plainer(column: sa.Column[Any]) -> Callable[[Any], Any]:
    """Return what makes a value of the column one which JSON has, the same on every database."""
    import sqlalchemy as sa

    match column.type:
        case sa.LargeBinary():
            return lambda value: base64.b64encode(bytes(value)).decode()
        case sa.DateTime() | sa.Date():
            return lambda value: value.isoformat()
        case sa.Float():
            return float
        case sa.Boolean():
            return int  # some are numbers on SQLite
        case _:
            return lambda value: value


def _reader(column: sa.Column[Any]) -> Callable[[Any], Any]:
    """Return the inverse of `_plainer` for the column."""
    import sqlalchemy as sa

    def read(value: Any) -> Any:
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

    return read


def _line(row: Sequence[Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")
