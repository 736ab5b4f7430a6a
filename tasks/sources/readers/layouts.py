"""What the names of a row alone say: which ticket columns it has, what its shape is, which names are strangers.

It knows nothing of values. Called by `tasks/sources/readers/columns.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from schemas.columns import TicketColumn
from schemas.errors import ConfigError
from tasks.sources.kind import RowReading
from tasks.sources.readers.paths import Path, parse_path
from tasks.sources.readers.records import Fault
from tasks.sources.readers.shapes import RowShape, detect_shape, shape_keys

CANONICAL: tuple[str, ...] = get_args(TicketColumn)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row of one layout is read as."""

    shape: RowShape
    speaks: bool
    """Its shape counts as its file's; a row of no shape at all is quarantined and speaks for none."""
    columns: frozenset[str]
    """Ticket columns it has."""
    shape_names: tuple[str, ...]
    """Names it has that its shape reads and no ticket column takes."""
    strangers: tuple[str, ...]
    fault: Fault | None


class Mapping:
    """Which column of the source each ticket column is read from, by the `columns` of the source."""

    def __init__(self, source: RowReading) -> None:
        self.declared: dict[str, str] = {str(column): name for column, name in source.columns.items()}
        self.column_of = {name: column for column, name in self.declared.items()}
        if len(self.column_of) < len(self.declared):
            raise ConfigError("two ticket columns are mapped to one column of the source", code="TG0111")
        self.paths: dict[str, Path] = {
            column: path for column, name in self.declared.items() if (path := parse_path(name))
        }
        self._roots = {str(path[0]) for path in self.paths.values()}
        # A conversation that a path takes apart is not read a second time as one. Other columns may look into it.
        into = {str(path[0]) for column, path in self.paths.items() if column in ("body", "reply")}
        self._taken_apart = {root for root in self._roots if root != "messages"} | into
        self._declared_shape = source.shape

    def name_of(self, column: str) -> str | None:
        """The name the ticket column is read by; None where nothing can fill it."""
        if column in self.declared:
            return self.declared[column]
        return None if column in self.column_of or column in self._taken_apart else column

    def read(self, names: tuple[str, ...]) -> Reading:
        """What a row with these names is."""
        columns, rest = self._split(names)
        shape, speaks = self._shape(columns, rest)
        keys = shape_keys(shape)
        fault = None
        if shape != "ticket" and not any(key in rest or key in columns for key in keys):
            fault = Fault("TG0246", f"The row has none of the keys of shape {shape}: {', '.join(keys)}.")
        elif shape == "ticket" and not columns:
            fault = Fault("TG0246", "The row has no ticket column.")
        return Reading(
            shape=shape,
            speaks=speaks,
            columns=frozenset(columns),
            shape_names=tuple(key for key in keys if key in rest and key not in columns),
            strangers=tuple(name for name in rest if name not in keys and name not in self._roots),
            fault=fault,
        )

    def _split(self, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Ticket columns by their canonical names, and the other names; a path counts where its first key stands."""
        columns, rest = [], []
        for name in names:
            if name in self.column_of:
                columns.append(self.column_of[name])
            elif name in CANONICAL and self.name_of(name) == name:
                columns.append(name)
            else:
                rest.append(name)
        columns += [column for column, path in self.paths.items() if column not in columns and str(path[0]) in names]
        return columns, rest

    def _shape(self, columns: list[str], rest: list[str]) -> tuple[RowShape, bool]:
        if self._declared_shape != "auto":
            return self._declared_shape, False
        names = {*columns, *rest}
        shape = detect_shape(names)
        return shape, shape != "ticket" or any(name in CANONICAL for name in names)
