"""Rows of a batch as columns, whether they were read as objects or as Arrow.

It knows nothing of tickets: names go in, values come out. Made by the readers, used by
`tasks/curate/readers/columns.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from tasks.curate.readers.paths import MISSING, Path, walk

Values: TypeAlias = "list[object] | pa.Array"


class Layout(NamedTuple):
    """Rows with the same names in the same order."""

    names: tuple[str, ...]
    n_rows: int
    first: int
    """Index of the first of them."""


class RowsRead(Protocol):
    """What is asked of the rows of a batch."""

    def __len__(self) -> int: ...

    def layouts(self) -> list[Layout]:
        """Each layout once, ordered by its first row."""
        ...

    def names(self, index: int) -> tuple[str, ...]:
        """The layout of one row."""
        ...

    def values(self, name: str) -> Values:
        """The column of that name; null where a row lacks it."""
        ...

    def reach(self, name: str, path: Path) -> list[object]:
        """The column of that name where a row has it, else what the path leads to there, or MISSING."""
        ...

    def pick(self, index: int, names: Sequence[str]) -> dict[str, object]:
        """Some values of one row, all of which it has."""
        ...


class DictRows:
    """Rows read as objects, each with names of its own."""

    def __init__(self, rows: list[Mapping[str, object]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def layouts(self) -> list[Layout]:
        counts = Counter(map(tuple, self._rows))
        if len(counts) == 1:
            return [Layout(names, n_rows, 0) for names, n_rows in counts.items()]
        first: dict[tuple[str, ...], int] = {}
        for index, row in enumerate(self._rows):
            first.setdefault(tuple(row), index)
        return [Layout(names, counts[names], index) for names, index in first.items()]

    def names(self, index: int) -> tuple[str, ...]:
        return tuple(self._rows[index])

    def values(self, name: str) -> Values:
        return [row.get(name) for row in self._rows]

    def reach(self, name: str, path: Path) -> list[object]:
        return [row[name] if name in row else walk(row, path) for row in self._rows]

    def pick(self, index: int, names: Sequence[str]) -> dict[str, object]:
        row = self._rows[index]
        return {name: row[name] for name in names}


class ArrowRows:
    """Rows read as Arrow: one layout for all."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._names = tuple(batch.schema.names)
        self._lists: dict[str, list[object]] = {}

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def layouts(self) -> list[Layout]:
        return [Layout(self._names, len(self), 0)] if len(self) else []

    def names(self, index: int) -> tuple[str, ...]:
        return self._names

    def values(self, name: str) -> Values:
        return self._batch.column(self._names.index(name)) if name in self._names else [None] * len(self)

    def reach(self, name: str, path: Path) -> list[object]:
        if name in self._names:
            return self._list(name)
        root, steps = str(path[0]), path[1:]
        return [walk(value, steps) for value in self._list(root)] if root in self._names else [MISSING] * len(self)

    def pick(self, index: int, names: Sequence[str]) -> dict[str, object]:
        return {name: self._list(name)[index] for name in names}

    def _list(self, name: str) -> list[object]:
        if name not in self._lists:
            self._lists[name] = self._batch.column(self._names.index(name)).to_pylist()
        return self._lists[name]
