"""SQL statements that read a table or SELECT of Postgres in pages; names are quoted, values bound.

It opens no connection.
"""

from collections.abc import Mapping, Sequence

from schemas.errors import ConfigError, SecurityError
from schemas.remote_source import PostgresSource
from tasks.storage.warehouse import quote_identifier

_TIMES = (1082, 1114, 1184)
"""Postgres' type numbers of date, timestamp and timestamptz."""
Statement = tuple[str, list[object]]


class Statements:
    """The statements of one source.

    Args:
        columns: Column -> its type number, in the order of the table.
    """

    def __init__(self, source: PostgresSource, columns: Mapping[str, int]) -> None:
        self.key = source.key
        self.columns = tuple(columns)
        self._cursor = f"source.{_name(source.cursor)}"
        self._keys = [f"source.{_name(name)}" for name in source.key]
        self._place = [self._cursor, *self._keys]
        self._is_whole = " AND ".join(f"{name} IS NOT NULL" for name in self._place)
        self._from = _relation(source)
        self._page_size = source.page_size
        self._is_time = columns[source.cursor] in _TIMES

    @staticmethod
    def probe(source: PostgresSource) -> str:
        """Returns the columns and no row."""
        return f"SELECT * FROM {_relation(source)} LIMIT 0"

    def page(self, position: Sequence[str] | None) -> Statement:
        """Cursor and key as text, then the row: at most one page after the position.

        A position is cursor and key of the last row, or a cursor alone, whose own rows are read again.
        """
        where, order = self._is_whole, ", ".join(self._place)
        values: list[object] = []
        if position is not None and len(position) == 1:
            where += f" AND {self._cursor} >= %s"
            values = [*position]
        elif position is not None:
            where += f" AND ({order}) > ({', '.join('%s' for _ in position)})"
            values = [*position]
        return f"{self._select()} WHERE {where} ORDER BY {order} LIMIT {self._page_size}", values

    def by_keys(self, keys: Sequence[Sequence[str]]) -> Statement:
        """The rows with these keys, without those whose cursor is null."""
        row = f"({', '.join('%s' for _ in self._keys)})"
        where = f"{self._cursor} IS NOT NULL AND ({', '.join(self._keys)}) IN ({', '.join(row for _ in keys)})"
        return f"{self._select()} WHERE {where}", [value for key in keys for value in key]

    def keys(self) -> str:
        """The keys of all rows without a null in cursor or key."""
        keys = ", ".join(f"{name}::text" for name in self._keys)
        return f"SELECT {keys} FROM {self._from} WHERE {self._is_whole}"

    def count_nulls(self) -> str:
        """How many rows have a null in cursor or key."""
        return f"SELECT count(*) FROM {self._from} WHERE NOT ({self._is_whole})"

    def repeated_key(self) -> str:
        """Returns one row if any key occurs twice."""
        keys = ", ".join(self._keys)
        where = " AND ".join(f"{name} IS NOT NULL" for name in self._keys)
        return f"SELECT 1 FROM {self._from} WHERE {where} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1"

    def resume_at(self, highest: str, began: str, seconds: int) -> Statement:
        """The highest cursor; if it is a time, the earlier of the two minus so many seconds."""
        if not self._is_time:
            return "SELECT %s::text", [highest]
        earlier = "least(%s::timestamptz, %s::timestamptz) - make_interval(secs => %s)"
        return f"SELECT ({earlier})::text", [highest, began, seconds]

    def _select(self) -> str:
        first = ", ".join(f"{name}::text" for name in self._place)
        return f"SELECT {first}, {', '.join(f'source.{_name(name)}' for name in self.columns)} FROM {self._from}"


def check_query(source: PostgresSource) -> None:
    """Check that the query is a single SELECT before a server sees it; the transaction is read-only as well.

    Raises:
        ConfigError: TG0125, it does not parse.
        SecurityError: TG0811, it is not a single SELECT.
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
        raise SecurityError("the source's query must be a single SELECT", code="TG0811", where="source.query")


def _relation(source: PostgresSource) -> str:
    if source.table is not None:
        return f"{'.'.join(_name(part) for part in source.table.split('.'))} AS source"
    query = (source.query or "").strip().removesuffix(";").replace("%", "%%")
    return f"({query}\n) AS source"


def _name(name: str) -> str:
    """The quoted name; the driver reads `%%` as `%`."""
    return quote_identifier(name).replace("%", "%%")
