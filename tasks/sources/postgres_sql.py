"""The statements by which a table or SELECT of Postgres is read in pages; names quoted, values bound.

It opens no connection. Called by `tasks/sources/postgres.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.errors import ConfigError, SecurityError
from schemas.remote_source import PostgresSource
from tasks.warehouse import quote_identifier

_TIMES = (1082, 1114, 1184)
"""Postgres' numbers of the types date, timestamp and timestamptz."""
Statement = tuple[str, list[object]]


class Statements:
    """The statements of one source.

    Args:
        columns: Column -> number of its type, in the order of the table.
    """

    def __init__(self, source: PostgresSource, columns: Mapping[str, int]) -> None:
        self.key = source.key
        self.columns = tuple(columns)
        self._cursor = f"source.{_name(source.cursor)}"
        self._keys = [f"source.{_name(name)}" for name in source.key]
        self._from = _relation(source)
        self._page_size = source.page_size
        self._is_time = columns[source.cursor] in _TIMES

    @staticmethod
    def probe(source: PostgresSource) -> str:
        """Gives the columns and no row."""
        return f"SELECT * FROM {_relation(source)} LIMIT 0"

    def page(self, place: Sequence[str] | None) -> Statement:
        """Cursor and key as text, then the row; what comes after the place, at most a page of it.

        A place is cursor and key of the last row, or a cursor alone, which is then read again itself.
        """
        where = " AND ".join(f"{name} IS NOT NULL" for name in (self._cursor, *self._keys))
        values: list[object] = []
        if place is not None and len(place) == 1:
            where += f" AND {self._cursor} >= %s"
            values = [*place]
        elif place is not None:
            names = ", ".join((self._cursor, *self._keys))
            where += f" AND ({names}) > ({', '.join('%s' for _ in place)})"
            values = [*place]
        order = ", ".join((self._cursor, *self._keys))
        return f"{self._select()} WHERE {where} ORDER BY {order} LIMIT {self._page_size}", values

    def by_keys(self, keys: Sequence[Sequence[str]]) -> Statement:
        """The rows of these keys; those without a cursor are left out."""
        row = f"({', '.join('%s' for _ in self._keys)})"
        where = f"{self._cursor} IS NOT NULL AND ({', '.join(self._keys)}) IN ({', '.join(row for _ in keys)})"
        return f"{self._select()} WHERE {where}", [value for key in keys for value in key]

    def keys(self) -> str:
        """The keys of all rows that can be followed."""
        where = " AND ".join(f"{name} IS NOT NULL" for name in (self._cursor, *self._keys))
        return f"SELECT {', '.join(f'{name}::text' for name in self._keys)} FROM {self._from} WHERE {where}"

    def count_unplaced(self) -> str:
        """How many rows cannot be followed."""
        where = " OR ".join(f"{name} IS NULL" for name in (self._cursor, *self._keys))
        return f"SELECT count(*) FROM {self._from} WHERE {where}"

    def double(self) -> str:
        """A row whose key occurs twice, else none."""
        keys = ", ".join(self._keys)
        where = " AND ".join(f"{name} IS NOT NULL" for name in self._keys)
        return f"SELECT 1 FROM {self._from} WHERE {where} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"

    def earlier(self, highest: str, began: str, seconds: int) -> Statement:
        """The highest cursor; where it is a time, the earlier of the two, and so many seconds before it."""
        if not self._is_time:
            return "SELECT %s::text", [highest]
        earlier = "least(%s::timestamptz, %s::timestamptz) - make_interval(secs => %s)"
        return f"SELECT ({earlier})::text", [highest, began, seconds]

    def _select(self) -> str:
        first = ", ".join(f"{name}::text" for name in (self._cursor, *self._keys))
        return f"SELECT {first}, {', '.join(f'source.{_name(name)}' for name in self.columns)} FROM {self._from}"


def check_query(source: PostgresSource) -> None:
    """Refuse what is not one SELECT before a server sees it; the transaction is read-only besides.

    Raises:
        ConfigError: TG0125, it does not parse.
        SecurityError: TG0811, it is something else than one SELECT.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if source.query is None:
        return
    try:
        found = [statement for statement in sqlglot.parse(source.query, read="postgres") if statement is not None]
    except SqlglotError as error:
        reason = str(error).partition("\n")[0][:200]
        raise ConfigError(f"the source's query does not parse: {reason}", code="TG0125", where="source.query") from None
    writes = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock)
    reads = len(found) == 1 and isinstance(found[0], exp.Query)
    if not reads or any(not isinstance(node, exp.Query) for node in found[0].find_all(*writes)):
        raise SecurityError("the source's query must be exactly one SELECT", code="TG0811", where="source.query")


def _relation(source: PostgresSource) -> str:
    if source.table is not None:
        return f"{'.'.join(_name(part) for part in source.table.split('.'))} AS source"
    query = (source.query or "").strip().removesuffix(";").replace("%", "%%")
    return f"({query}\n) AS source"


def _name(name: str) -> str:
    """Quoted; the driver takes `%%` for `%`."""
    return quote_identifier(name).replace("%", "%%")
