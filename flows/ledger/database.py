"""What the ledger's books need from any database: statements with `?`, rows by column name.

SQLite's own connection fits; `flows/ledger/postgres.py` adapts Postgres'. Nothing else of either is used outside their
files.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

Holds = Callable[[], bool]
"""Is a lock held at this moment? A host that was cut off has lost it, although its process does not know."""
Check = Callable[[], None]
"""Raises when a condition no longer holds."""


class Row(Protocol):
    """A row: by position, by column name, and `dict(row)`."""

    def __getitem__(self, key: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def keys(self) -> Any: ...


class Rows(Protocol):
    """The result of a statement."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...


class Database(Protocol):
    """A connection, inside one of the ledger's transactions."""

    def execute(self, sql: str, values: Any = ..., /) -> Rows:
        """Run one statement; `values` for its `?` or `:name`."""
