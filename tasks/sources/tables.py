"""The tables of a database: names, rows, columns and keys, and small questions about them, for `tunegate init`.

It knows no kind of database. Each kind's file opens one (`SourceKind.database`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tasks.storage.warehouse import is_identifier, quote_identifier


@dataclass(frozen=True)
class ForeignKey:
    """A column whose values are those of a column of another table, as the database declares it."""

    column: str
    table: str
    """As `SourceTable.name`."""
    to: str


@dataclass(frozen=True, eq=False)
class SourceTable:
    """A table or view. Each is equal to itself alone."""

    name: str
    """As `source.table` takes it."""
    sql: str
    """The quoted name."""
    types: Mapping[str, str]
    """Column -> its type, as the database names it; empty where any values can be compared."""
    n_rows: int
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.types)

    @property
    def stem(self) -> str:
        """The name without its schema."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class SourceDatabase:
    """An open database."""

    tables: tuple[SourceTable, ...]
    """Ordered by name."""
    select: Callable[[str], list[dict[str, object]]]
    """The rows of a SELECT. All of them are in memory, so it should have a LIMIT, or aggregate."""

    def number(self, sql: str) -> int:
        """The one number that a SELECT returns."""
        ((value,),) = (row.values() for row in self.select(sql))
        return int(str(value))


def make_tables(
    columns: Mapping[tuple[str, str], Mapping[str, str]],
    *,
    main: str,
    count: Callable[[str], int],
    primary_keys: Mapping[tuple[str, str], Sequence[str]],
    foreign_keys: Mapping[tuple[str, str], Sequence[tuple[str, tuple[str, str], str]]],
) -> tuple[SourceTable, ...]:
    """The tables of a database by what its catalog says; a table is a pair of schema and name.

    Those that have a name with control characters, or a column with one, are left out: a query could not be shown.

    Args:
        columns: Table -> column -> type.
        main: The schema of tables that need no prefix.
        count: Rows of a table, by its quoted name.
        primary_keys: Table -> columns.
        foreign_keys: Table -> column, other table, its column; keys of several columns are left out.
    """

    def name_of(table: tuple[str, str]) -> str:
        return table[1] if table[0] == main else ".".join(table)

    def sql_of(table: tuple[str, str]) -> str:
        return quote_identifier(table[1]) if table[0] == main else ".".join(map(quote_identifier, table))

    made = (
        SourceTable(
            name=name_of(table),
            sql=sql_of(table),
            types=types,
            n_rows=count(sql_of(table)),
            primary_key=tuple(primary_keys.get(table, ())),
            foreign_keys=tuple(ForeignKey(c, name_of(other), to) for c, other, to in foreign_keys.get(table, ())),
        )
        for table, types in columns.items()
        if all(map(is_identifier, (*table, *types)))
    )
    return tuple(sorted(made, key=lambda each: each.name))
