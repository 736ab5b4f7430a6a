"""What the ledger's books ask of a database, whichever it is: statements with `?`, rows by column name.

SQLite's own connection is one; `flows/ledger/postgres.py` makes another. Nothing else of either is used outside
their files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

Holds = Callable[[], bool]
"""Is a lock held at this moment? That of a host which was cut off is not, although its process knows nothing of it."""
Check = Callable[[], None]
"""Raises when something does not hold any more."""


class Row(Protocol):
    """A row: by place, by column name, and `dict(row)`."""

    def __getitem__(self, key: Any, /) -> Any:
        """The value at a place or under a name."""

    def __iter__(self) -> Iterator[Any]:
        """The values."""

    def keys(self) -> Any:
        """The column names."""


class Rows(Protocol):
    """What a statement answers with."""

    def fetchone(self) -> Any:
        """The next row; None when there is none."""

    def fetchall(self) -> list[Any]:
        """The rows that are left."""


class Database(Protocol):
    """A connection, inside a transaction of the ledger's."""

    def execute(self, sql: str, values: Any = ..., /) -> Rows:
        """Run one statement; `values` for its `?` or `:name`."""
