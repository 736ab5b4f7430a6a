"""Turns rows of any shape into tickets: maps columns by name, detects shapes, types values, counts unknown columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from schemas.errors import DataError
from schemas.file_reading import RowReading
from tasks.sources.formats import forms_of
from tasks.sources.readers.headers import did_you_mean, is_plain, listing, shown
from tasks.sources.readers.layouts import CANONICAL, LayoutReading, Mapping
from tasks.sources.readers.paths import MISSING
from tasks.sources.readers.records import Fault, RowBatch
from tasks.sources.readers.row_kinds import preference_pair
from tasks.sources.readers.rows_read import Layout, RowsRead, Values
from tasks.sources.readers.shapes import RowShape, fill_ticket
from tasks.sources.readers.turns import join_turns
from tasks.sources.readers.typed import typed_column
from tasks.sources.readers.values import to_text
from tasks.tickets.row_fault import find_faulty, is_row_fault, row_fault

_MAX_NOTED = 20
_MAX_LAYOUTS = 1000
_CONVERSATION = ("body", "reply", "messages")


class Made(NamedTuple):
    """The rows of a batch as ticket columns, and the faults of rows that are no tickets."""

    columns: dict[str, pa.Array]
    """Column -> values of all rows, null in rows with a fault; columns without any value are left out."""
    faults: dict[int, Fault]
    """Index of the row -> its first fault."""
    ids: dict[int, str | None]
    """Index of a row with a fault -> its ticket_id, if that could be read."""
    customers: dict[int, str | None]
    """Index of a row with a fault -> its customer_id, likewise."""


class TicketMaker:
    """Turns the rows of one source into tickets, and counts their columns and shapes."""

    def __init__(self, source: RowReading) -> None:
        self._source = source
        self._mapping = Mapping(source)
        self._forms = forms_of(source)
        self._readings: dict[tuple[str, ...], LayoutReading] = {}
        self._found: set[str] = set()
        self._keys: Counter[str] = Counter()
        self._extra: Counter[str] = Counter()
        self._shapes: Counter[str] = Counter()
        self._first: tuple[RowShape, int] | None = None
        self._file = ""

    def begin_file(self, name: str) -> None:
        """Start a file: shapes may differ between files, but not inside one."""
        self._first = None
        self._file = name

    def make(self, batch: RowBatch) -> Made:
        """The rows as ticket columns, and the faults of those that are no tickets.

        Raises:
            DataError: TG0204, a row has another shape than the rows before it, or a column is neither canonical nor
                mapped and `extra_columns` is `error`.
        """
        rows = batch.rows
        faults: dict[int, Fault] = {}
        shape: RowShape = "ticket"
        present: set[str] = set()
        for layout in rows.layouts():
            reading = self._survey(layout, batch)
            if reading.fault:
                same = [index for index in range(len(rows)) if rows.names(index) == layout.names]
                faults |= dict.fromkeys(same, reading.fault)
            else:
                shape = reading.shape
                present |= reading.columns
        try:
            columns, faults = self._columns(shape, rows, present, faults)
        except Exception as error:
            columns, faults = self._sound_columns(shape, rows, present, faults, error)
        return Made(columns, faults, self._ids(rows, faults, "ticket_id"), self._ids(rows, faults, "customer_id"))

    def finish(self) -> dict[str, int]:
        """Counts for the step's notes.

        Raises:
            DataError: TG0204, a mapped column occurred in no row, or no row of the source had a ticket column.
        """
        if not self._keys:
            return {}
        for column, name in self._mapping.declared.items():
            if name not in self._found:
                raise DataError(
                    f"column {name!r}, mapped to {column}, is in no row; columns are: {listing(self._keys)}",
                    code="TG0204",
                    where=self._file,
                    hint=did_you_mean(name, self._keys),
                )
        if not self._shapes:
            near = [f"{shown(name)}: {hint}" for name in self._keys if (hint := did_you_mean(name, CANONICAL))]
            if pair := preference_pair(self._keys):
                near = [f"the rows are preferences; map them: `columns: {{body: THEIR_NAME, reply: {pair[0]}}}`"]
            raise DataError(
                f"no row has a ticket column; columns are: {listing(self._keys)}",
                code="TG0204",
                where=self._file,
                hint=near[0] if near else "map them: `columns: {body: THEIR_NAME, reply: THEIR_NAME}`",
            )
        extra = self._extra.most_common(_MAX_NOTED)
        return {
            **{f"shape_{shape}": n_rows for shape, n_rows in sorted(self._shapes.items())},
            **({"ignored_columns": len(self._extra)} if self._extra else {}),
            **{f"ignored_column:{name}": n_rows for name, n_rows in extra if is_plain(name)},
        }

    def _columns(
        self, shape: RowShape, rows: RowsRead, present: set[str], known: dict[int, Fault]
    ) -> tuple[dict[str, pa.Array], dict[int, Fault]]:
        """The ticket columns of the rows, and the known faults with those found here."""
        faults = dict(known)
        values = {column: self._values(rows, column) for column in CANONICAL if column in present}
        self._fill(shape, rows, values, faults)
        columns: dict[str, pa.Array] = {}
        for column in CANONICAL:
            if column in values:
                columns[column], wrong = typed_column(column, values[column], self._forms)
                for index, fault in wrong.items():
                    faults.setdefault(index, fault)
        return columns, faults

    def _sound_columns(
        self, shape: RowShape, rows: RowsRead, present: set[str], known: dict[int, Fault], error: Exception
    ) -> tuple[dict[str, pa.Array], dict[int, Fault]]:
        """The same if a row raises: it gets a fault, and the others are unaffected.

        Raises:
            Exception: `error`, if no single row causes it.
        """
        if not is_row_fault(error):
            raise error

        def of(indices: Sequence[int]) -> tuple[dict[str, pa.Array], dict[int, Fault]]:
            places = {index: place for place, index in enumerate(indices)}
            faults = {places[index]: fault for index, fault in known.items() if index in places}
            return self._columns(shape, rows.take(indices), present, faults)

        found = find_faulty(lambda start, stop: of(range(start, stop)), 0, len(rows))
        raised = {index: Fault(*row_fault(each, "extract")) for index, each in found}
        if not raised:
            raise error
        sound = [index for index in range(len(rows)) if index not in raised]
        columns, faults = of(sound)
        places = dict(zip(sound, range(len(sound)), strict=True))
        spread = pa.array([places.get(index) for index in range(len(rows))], pa.int64())
        faults = {sound[place]: fault for place, fault in faults.items()}
        return {name: column.take(spread) for name, column in columns.items()}, {**faults, **raised}

    def _survey(self, layout: Layout, batch: RowBatch) -> LayoutReading:
        """Count the columns of these rows, and check that the file may have them."""
        reading = self._reading(layout.names)
        for name in layout.names:
            self._keys[name] += layout.n_rows
            if name in self._mapping.column_of:
                self._found.add(name)
        if reading.decides and (self._first is None or self._first[0] != reading.shape):
            self._check_shape(reading.shape, int(batch.lines[batch.rows.first(layout.names)]))
        if reading.extra and self._source.extra_columns == "error":
            line = int(batch.lines[batch.rows.first(layout.names)])
            raise DataError(
                f"column {shown(reading.extra[0])} is neither a ticket column nor mapped",
                code="TG0204",
                where=f"{self._file}:{line}",
                hint=did_you_mean(reading.extra[0], CANONICAL)
                or "map it under `columns`, or set `extra_columns: ignore`",
            )
        for name in reading.extra:
            self._extra[name] += layout.n_rows
        if not reading.fault:
            self._shapes[reading.shape] += layout.n_rows
        return reading

    def _reading(self, names: tuple[str, ...]) -> LayoutReading:
        if names not in self._readings:
            if len(self._readings) >= _MAX_LAYOUTS:  # the keys of such a file are data
                self._readings.clear()
            self._readings[names] = self._mapping.read(names)
        return self._readings[names]

    def _check_shape(self, shape: RowShape, line: int) -> None:
        if self._first is not None:
            raise DataError(
                f"the file mixes shapes: line {self._first[1]} is {self._first[0]}, line {line} is {shape}",
                code="TG0204",
                where=f"{self._file}:{line}",
                hint="split the file by shape, or set `shape` to quarantine the rows of any other",
            )
        self._first = (shape, line)

    def _values(self, rows: RowsRead, column: str) -> Values:
        name = self._mapping.name_of(column)
        path = self._mapping.paths.get(column)
        if name is None:
            return [None] * len(rows)
        if path is None:
            return rows.values(name)
        reached = rows.reach(name, path)
        if any(value is not MISSING for value in reached):
            self._found.add(name)
        return [None if value is MISSING else value for value in reached]

    def _fill(self, shape: RowShape, rows: RowsRead, values: dict[str, Values], faults: dict[int, Fault]) -> None:
        """Set body, reply and messages of rows with a conversation; adds faults."""
        todo = [index for index in range(len(rows)) if index not in faults]
        if shape == "ticket":
            messages = _as_list(values.get("messages"), len(rows))
            todo = [index for index in todo if messages[index] not in (None, "")]
        if not todo:
            return
        conversation = {column: _as_list(values.get(column), len(rows)) for column in _CONVERSATION}
        for index in todo:
            reading = self._reading(rows.names(index))
            row = rows.pick(index, reading.shape_names)
            row |= {column: conversation[column][index] for column in _CONVERSATION if column in reading.columns}
            if self._source.turns is not None and "messages" in row:
                row["messages"] = join_turns(row["messages"], self._source.turns)
            fault = fill_ticket(shape, row)
            if fault:
                faults[index] = fault
            for column in _CONVERSATION:
                conversation[column][index] = None if fault else row.get(column)
        values |= conversation

    def _ids(self, rows: RowsRead, faults: dict[int, Fault], column: str) -> dict[int, str | None]:
        if not faults:
            return {}
        name = self._mapping.declared.get(column, column)
        path = self._mapping.paths.get(column)
        try:
            ids = _as_list(rows.reach(name, path) if path else rows.values(name), len(rows))
        except Exception as error:
            if not is_row_fault(error):
                raise
            return dict.fromkeys(faults)
        return {index: None if ids[index] is MISSING else _text_or_none(column, ids[index]) for index in faults}


def _text_or_none(column: str, value: object) -> str | None:
    """The id of a row with a fault; None if the id itself is the fault."""
    try:
        text = to_text(column, value)
    except Exception as error:
        if is_row_fault(error):
            return None
        raise
    return text if isinstance(text, str) else None


def _as_list(values: Values | None, n_rows: int) -> list[object]:
    if values is None:
        return [None] * n_rows
    return list(values) if isinstance(values, list) else list(values.to_pylist(maps_as_pydicts="strict"))
