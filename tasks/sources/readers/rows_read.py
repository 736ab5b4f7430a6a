"""Rows of a batch as columns, for rows read as objects or as Arrow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from tasks.sources.readers.paths import MISSING, Path, walk

Values: TypeAlias = "list[object] | pa.Array"


class Layout(NamedTuple):
    """Rows with the same names in the same order."""

    names: tuple[str, ...]
    n_rows: int


class RowsRead(Protocol):
    """The rows of a batch."""

    def __len__(self) -> int: ...

    def layouts(self) -> list[Layout]:
        """Each layout once, ordered by its first row."""
        ...

    def names(self, index: int) -> tuple[str, ...]:
        """The layout of one row."""
        ...

    def first(self, names: tuple[str, ...]) -> int:
        """Index of the first row of that layout."""
        ...

    def values(self, name: str) -> Values:
        """The column of that name; null where a row lacks it."""
        ...

    def reach(self, name: str, path: Path) -> list[object]:
        """Per row the column of that name, else the value at the path, or MISSING."""
        ...

    def pick(self, index: int, names: Sequence[str]) -> dict[str, object]:
        """Values of one row, which has all these names."""
        ...

    def take(self, indices: Sequence[int]) -> RowsRead:
        """Only these rows."""
        ...


class DictRows:
    """Rows read as objects, each with its own names."""

    def __init__(self, rows: list[Mapping[str, object]]) -> None:
        self._rows = rows
        self._columns: dict[str, list[object]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def layouts(self) -> list[Layout]:
        counts = Counter(map(tuple, self._rows))
        found = [Layout(names, n_rows) for names, n_rows in counts.items()]
        if found:
            rest = [set(layout.names) for layout in found[1:]]
            self._transpose([name for name in found[0].names if all(name in names for names in rest)])
        return found

    def names(self, index: int) -> tuple[str, ...]:
        return tuple(self._rows[index])

    def first(self, names: tuple[str, ...]) -> int:
        return next(index for index, row in enumerate(self._rows) if tuple(row) == names)

    def values(self, name: str) -> Values:
        return self._columns.get(name) or [row.get(name) for row in self._rows]

    def _transpose(self, everywhere: list[str]) -> None:
        """Transpose the columns that every row has together, which is twice as fast as one by one."""
        if len(everywhere) > 1:
            columns = zip(*map(itemgetter(*everywhere), self._rows), strict=True)
            self._columns = dict(zip(everywhere, map(list, columns), strict=True))

    def reach(self, name: str, path: Path) -> list[object]:
        return [row[name] if name in row else walk(row, path) for row in self._rows]

    def pick(self, index: int, names: Sequence[str]) -> dict[str, object]:
        row = self._rows[index]
        return {name: row[name] for name in names}

    def take(self, indices: Sequence[int]) -> DictRows:
        return DictRows([self._rows[index] for index in indices])


class ArrowRows:
    """Rows read as Arrow, which have one layout."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self._batch = batch
        self._names = tuple(batch.schema.names)
        self._lists: dict[str, list[object]] = {}

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def layouts(self) -> list[Layout]:
        return [Layout(self._names, len(self))] if len(self) else []

    def names(self, index: int) -> tuple[str, ...]:
        return self._names

    def first(self, names: tuple[str, ...]) -> int:
        return 0

    def values(self, name: str) -> Values:
        return self._batch.column(self._names.index(name)) if name in self._names else [None] * len(self)

    def reach(self, name: str, path: Path) -> list[object]:
        if name in self._names:
            return self._list(name)
        root, steps = str(path[0]), path[1:]
        return [walk(value, steps) for value in self._list(root)] if root in self._names else [MISSING] * len(self)

    def pick(self, index: int, names: Sequence[str]) -> dict[str, object]:
        return {name: self._list(name)[index] for name in names}

    def take(self, indices: Sequence[int]) -> ArrowRows:
        return ArrowRows(self._batch.take(pa.array(indices, pa.int64())))

    def _list(self, name: str) -> list[object]:
        if name not in self._lists:
            # A map is an object; one that has a key twice raises, and its row is quarantined.
            self._lists[name] = self._batch.column(self._names.index(name)).to_pylist(maps_as_pydicts="strict")
        return self._lists[name]
