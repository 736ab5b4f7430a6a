"""Rows of any shape become tickets: columns mapped by name, shapes told apart, values typed, strangers counted.

It knows nothing of files or formats. Called by `tasks/curate/extract.py`, one `TicketMaker` per source.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import get_args

from schemas.errors import ConfigError, DataError
from schemas.source import DuckDBSource, FilesSource, HuggingFaceSource, TicketColumn
from tasks.curate.readers.headers import did_you_mean, listing, shown
from tasks.curate.readers.records import Fault, Record
from tasks.curate.readers.shapes import RowShape, detect_shape, fill_ticket, shape_keys
from tasks.curate.readers.values import TIMES, to_text, to_time

CANONICAL: tuple[str, ...] = get_args(TicketColumn)
TabularSource = FilesSource | DuckDBSource | HuggingFaceSource
_NAMED_STRANGERS = 20


class TicketMaker:
    """Turns the records of one source into tickets and remembers what it met on the way."""

    def __init__(self, source: TabularSource) -> None:
        self._source = source
        self._mapped = {name: column for column, name in source.columns.items()}
        self._met: set[str] = set()
        self._keys: Counter[str] = Counter()
        self._strangers: Counter[str] = Counter()
        self._shapes: Counter[str] = Counter()
        self._first: tuple[RowShape, int] | None = None
        self._file = ""
        if len(self._mapped) < len(source.columns):
            raise ConfigError("two ticket columns are mapped to one column of the source", code="TG0134")

    def begin_file(self, name: str) -> None:
        """Forget the shape of the file before; shapes may differ between files, not inside one."""
        self._first = None
        self._file = name

    def make(self, record: Record) -> dict[str, object] | Fault:
        """The record as a ticket (columns absent from it are left out), or why it is none.

        Raises:
            DataError: TG0205, its shape is not that of the rows before; TG0216, a column is neither canonical nor
                mapped and `extra_columns` is `error`.
        """
        if isinstance(record.content, Fault):
            return record.content
        ticket, rest = self._split(record.content)
        shape = self._shape({**rest, **ticket}, record.line)
        keys = shape_keys(shape)
        self._count_strangers([name for name in rest if name not in keys], record.line)
        if shape != "ticket" and not any(key in rest or key in ticket for key in keys):
            return Fault("TG0246", f"The row has none of the keys of shape {shape}: {', '.join(keys)}.")
        if shape == "ticket" and not ticket:
            return Fault("TG0246", "The row has no ticket column.")
        self._shapes[shape] += 1
        row: dict[str, object] = {**{key: rest[key] for key in keys if key in rest}, **ticket}
        return fill_ticket(shape, row) or _typed(row)

    def identify(self, record: Record) -> str | None:
        """The record's ticket_id, where it could be read that far."""
        if isinstance(record.content, Fault):
            return None
        name = self._source.columns.get("ticket_id", "ticket_id")
        value = to_text("ticket_id", record.content.get(name))
        return value if isinstance(value, str) else None

    def finish(self) -> dict[str, int]:
        """Counts for the step's notes.

        Raises:
            DataError: TG0206, a mapped column occurred in no row; TG0207, no row of the source had a ticket column.
        """
        if not self._keys:
            return {}
        for name, column in self._mapped.items():
            if name not in self._met:
                raise DataError(
                    f"column {name!r}, mapped to {column}, is in no row; columns met: {listing(self._keys)}",
                    code="TG0206",
                    where=self._file,
                    hint=did_you_mean(name, self._keys),
                )
        if not self._shapes:
            near = [f"{shown(name)}: {hint}" for name in self._keys if (hint := did_you_mean(name, CANONICAL))]
            raise DataError(
                f"no row has a ticket column; columns met: {listing(self._keys)}",
                code="TG0207",
                where=self._file,
                hint=near[0] if near else "map them: `columns: {body: THEIR_NAME, reply: THEIR_NAME}`",
            )
        strangers = self._strangers.most_common(_NAMED_STRANGERS)
        return {
            **{f"shape_{shape}": n_rows for shape, n_rows in sorted(self._shapes.items())},
            **({"ignored_columns": len(self._strangers)} if self._strangers else {}),
            **{f"ignored_column:{name}": n_rows for name, n_rows in strangers if shown(name) == name},
        }

    def _split(self, content: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        """Ticket columns by their canonical names, and the rest."""
        ticket: dict[str, object] = {}
        rest: dict[str, object] = {}
        for name, value in content.items():
            self._keys[name] += 1
            column = self._mapped.get(name)
            if column is not None:
                self._met.add(name)
                ticket[column] = value
            elif name in CANONICAL and name not in self._source.columns:
                ticket[name] = value
            else:
                rest[name] = value
        return ticket, rest

    def _shape(self, row: Mapping[str, object], line: int) -> RowShape:
        if self._source.shape != "auto":
            return self._source.shape
        shape = detect_shape(row)
        if shape == "ticket" and not any(name in CANONICAL for name in row):
            return shape  # a row of no shape at all: it is quarantined and speaks for none
        if self._first is None:
            self._first = (shape, line)
        elif shape != self._first[0]:
            raise DataError(
                f"the file mixes shapes: line {self._first[1]} is {self._first[0]}, line {line} is {shape}",
                code="TG0205",
                where=f"{self._file}:{line}",
                hint="split the file by shape, or set `shape` to quarantine the rows of any other",
            )
        return shape

    def _count_strangers(self, names: list[str], line: int) -> None:
        if names and self._source.extra_columns == "error":
            raise DataError(
                f"column {shown(names[0])} is neither a ticket column nor mapped",
                code="TG0216",
                where=f"{self._file}:{line}",
                hint=did_you_mean(names[0], CANONICAL) or "map it under `columns`, or set `extra_columns: ignore`",
            )
        self._strangers.update(names)


def _typed(row: Mapping[str, object]) -> dict[str, object] | Fault:
    ticket: dict[str, object] = {}
    for column in CANONICAL:
        value = row.get(column)
        if value is None:
            continue
        typed = to_time(column, value) if column in TIMES else to_text(column, value)
        if isinstance(typed, Fault):
            return typed
        ticket[column] = typed
    return ticket
