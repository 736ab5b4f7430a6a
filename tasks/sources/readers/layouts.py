"""What the column names of a row determine: its ticket columns, its shape, and which names are unknown."""

from dataclasses import dataclass
from typing import get_args

from schemas.errors import ConfigError
from schemas.file_reading import RowReading
from schemas.tables import TicketColumn
from tasks.sources.readers.paths import Path, parse_path
from tasks.sources.readers.records import Fault
from tasks.sources.readers.row_kinds import VALUE_KEYS, fault_of_names
from tasks.sources.readers.shapes import RowShape, detect_shape, shape_keys

CANONICAL: tuple[str, ...] = get_args(TicketColumn)


@dataclass(frozen=True, slots=True)
class LayoutReading:
    """How rows of one layout are read."""

    shape: RowShape
    decides: bool
    """Its shape is that of its file; a row without any shape is quarantined and decides nothing."""
    columns: frozenset[str]
    """Ticket columns it has."""
    shape_names: tuple[str, ...]
    """Its names that the shape reads and that are no ticket column."""
    extra: tuple[str, ...]
    """Its unknown names."""
    fault: Fault | None


class Mapping:
    """Which column of the source each ticket column is read from, after the `columns` of the source."""

    def __init__(self, source: RowReading) -> None:
        self.declared: dict[str, str] = {str(column): name for column, name in source.columns.items()}
        self.column_of = {name: column for column, name in self.declared.items()}
        if len(self.column_of) < len(self.declared):
            raise ConfigError("two ticket columns are mapped to the same column of the source", code="TG0111")
        self.paths: dict[str, Path] = {
            column: path for column, name in self.declared.items() if (path := parse_path(name))
        }
        self._roots = {str(path[0]) for path in self.paths.values()}
        # A conversation from which paths take body or reply is not read as a conversation. Other columns may use it.
        into = {str(path[0]) for column, path in self.paths.items() if column in ("body", "reply")}
        self._used_by_paths = {root for root in self._roots if root != "messages"} | into
        self._declared_shape = source.shape

    def name_of(self, column: str) -> str | None:
        """The column from which the ticket column is read; None if nothing can fill it."""
        if column in self.declared:
            return self.declared[column]
        return None if column in self.column_of or column in self._used_by_paths else column

    def read(self, names: tuple[str, ...]) -> LayoutReading:
        """How a row with these names is read."""
        columns, rest = self._split(names)
        shape, decides = self._shape(columns, rest)
        keys = shape_keys(shape)
        fault = fault_of_names([name for name in rest if name not in self._roots])
        if fault:
            decides = False  # other rows of the file may have another shape
        elif shape != "ticket" and not any(key in rest or key in columns for key in keys):
            fault = Fault("TG0246", f"The row has none of the keys of shape {shape}: {', '.join(keys)}.")
        elif shape == "ticket" and not columns:
            fault = Fault("TG0246", "The row has no ticket column.")
        read = keys if shape == "ticket" else (*keys, *VALUE_KEYS)
        return LayoutReading(
            shape=shape,
            decides=decides,
            columns=frozenset(columns),
            shape_names=tuple(key for key in read if key in rest and key not in columns),
            extra=tuple(name for name in rest if name not in keys and name not in self._roots),
            fault=fault,
        )

    def _split(self, names: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Ticket columns by their canonical names, and the other names; a path counts if its first key is there."""
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
