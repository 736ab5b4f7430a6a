"""The tables between curation steps as Parquet: exact columns, exact types, rows in one order, equal bytes.

A process that reads what it has just written gets the table it wrote. This module knows nothing of what a step does
with rows. Called by every step of tasks/curate, always inside functions: importing pyarrow takes a while.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.tables import REMOVED, TICKETS, Column

ARROW_TYPES = {
    "VARCHAR": pa.string(),
    "TIMESTAMP": pa.timestamp("us"),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
}
"""DuckDB type -> Arrow type. TIMESTAMP is UTC without saying so, as in DuckDB."""
GROUP_ROWS = 65_536
"""Rows of one Parquet row group."""
GROUP_BYTES = 1 << 26
"""Text of one row group; fewer rows where they are long."""
REPEATED = frozenset({"customer_id", "thread_id", "product", "channel", "category", "priority", "source", "language",
    "outcome", "code", "reason", "field", "cluster_id", "kept_id"})  # fmt: skip
"""Text columns whose values repeat: a dictionary of them pays, and their least and greatest value are short."""
HANDED_BYTES = 1 << 28
"""Of tables that are held from the step that wrote them to the step that reads them."""
_handed: dict[tuple[int, ...], pa.Table] = {}  # a file -> what was written to it, the oldest first
TICKET_ORDER = ("ticket_id", "source", "source_line")
REMOVED_ORDER = ("source", "source_line", "byte_offset", "ticket_id", "code", "field", "reason", "kept_id")


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """The declared columns as an Arrow schema, nullability included."""
    return pa.schema([pa.field(column.name, ARROW_TYPES[column.sql_type], column.nullable) for column in columns])


TICKETS_ARROW = arrow_schema(TICKETS)
REMOVED_ARROW = arrow_schema(REMOVED)


def write_tickets(table: pa.Table, out: Path, *, name: str = "tickets.parquet", is_read_next: bool = True) -> int:
    """Write `out/tickets.parquet`, ordered by ticket_id, source and source_line; return the number of rows.

    Args:
        is_read_next: Whether the next step is to read it, so that the table is worth holding.

    Raises:
        ValueError: a column is missing, has another type, or holds a null where none is allowed.
    """
    return _write(table, TICKETS_ARROW, TICKET_ORDER, out / name, hand=is_read_next)


def write_removed(rows: Iterable[Mapping[str, object]] | pa.Table, out: Path, *, name: str = "removed.parquet") -> int:
    """Write `out/removed.parquet` in one fixed order; return the number of rows. Nullable columns may be left out.

    Raises:
        ValueError: a column is unknown, has another type, or holds a null where none is allowed.
    """
    table = rows if isinstance(rows, pa.Table) else removed_table(rows)
    return _write(_with_missing(table, REMOVED_ARROW), REMOVED_ARROW, REMOVED_ORDER, out / name)


def write_rows(table: pa.Table, columns: Iterable[Column], path: Path) -> int:
    """Write a table of these columns in the order it has; return the number of rows.

    Raises:
        ValueError: a column is missing, has another type, or holds a null where none is allowed.
    """
    schema = arrow_schema(columns)
    pq.write_table(_conform(table, schema, path.name), path, compression="zstd", row_group_size=GROUP_ROWS)
    return int(table.num_rows)


def removed_table(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Rows for `removed.parquet` as an Arrow table."""
    listed = list(rows)
    for row in listed:
        unknown = row.keys() - set(REMOVED_ARROW.names)
        if unknown:
            raise ValueError(f"no columns of removed rows: {', '.join(sorted(unknown))}")
    columns = {name: [row.get(name) for row in listed] for name in REMOVED_ARROW.names}
    return pa.table(columns, schema=REMOVED_ARROW)


def ticket_table(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Rows for `tickets.parquet` as an Arrow table; columns a row does not name are null."""
    listed = list(rows)
    columns = {name: [row.get(name) for row in listed] for name in TICKETS_ARROW.names}
    return pa.table(columns, schema=TICKETS_ARROW)


def read_rows(path: Path) -> pa.Table:
    """A table written by this module, in its order."""
    handed = _handed.pop(_identity(path), None)
    return pq.read_table(path, memory_map=False) if handed is None else handed


def read_columns(path: Path, names: tuple[str, ...]) -> pa.Table:
    """These columns of a table written by this module, in its order; the whole may still be read after it."""
    handed = _handed.get(_identity(path))
    return pq.read_table(path, columns=list(names), memory_map=False) if handed is None else handed.select(names)


def _with_missing(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _hand(table: pa.Table, path: Path) -> None:
    """Hold the table for whoever reads the file first; the oldest ones go when it is too much."""
    _handed[_identity(path)] = table
    while sum(held.nbytes for held in _handed.values()) > HANDED_BYTES:
        del _handed[next(iter(_handed))]


def _identity(path: Path) -> tuple[int, ...]:
    """The file itself, wherever it is moved to; another one when it is written anew."""
    told = path.stat()
    return told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns


def _write(table: pa.Table, schema: pa.Schema, order: tuple[str, ...], path: Path, *, hand: bool = False) -> int:
    """Bytes follow from the rows alone: one order, row groups cut by content, each group one chunk."""
    table = _conform(table, schema, path.name)
    keys = table.select(list(order)).combine_chunks()
    places = None if _in_order(keys) else pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in order])
    # Strings of a table may pass the 2 GiB that offsets of `string` count: widen, take group by group, narrow.
    wide = table if places is None else table.cast(_widened(schema)).combine_chunks()
    with _open(path, schema) as writer:
        for start, stop in _groups(table, places):
            n_rows = stop - start
            group = wide.slice(start, n_rows) if places is None else wide.take(places.slice(start, n_rows))
            writer.write_table(group.cast(schema).combine_chunks(), row_group_size=GROUP_ROWS)
    if hand and places is None:
        _hand(table, path)
    return int(table.num_rows)


def write_ordered_tickets(batches: Iterable[pa.Table], out: Path) -> int:
    """The file that `write_tickets` makes of all rows at once, from batches in its order; one row group is held.

    Raises:
        ValueError: as `write_tickets`.
    """
    n_rows = 0
    path = out / "tickets.parquet"
    with _open(path, TICKETS_ARROW) as writer:
        for group in _regrouped(_conform(batch, TICKETS_ARROW, path.name) for batch in batches):
            writer.write_table(group.combine_chunks(), row_group_size=GROUP_ROWS)
            n_rows += group.num_rows
    return n_rows


def sort_tickets(table: pa.Table) -> pa.Table:
    """The rows in the order of a file of tickets; less than 2 GiB of text."""
    keys = table.select(list(TICKET_ORDER)).combine_chunks()
    if _in_order(keys):
        return table
    return table.take(pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in TICKET_ORDER]))


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    texts = _texts(schema)
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[name for name in texts if name in REPEATED],
        write_statistics=[name for name in schema.names if name not in texts or name in REPEATED],
    )


def _texts(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_string(field.type)]


def _in_order(keys: pa.Table) -> bool:
    """True where the first column alone says so: each value is greater than the one before."""
    first = keys.column(0)
    if keys.num_rows < 2:
        return True
    if first.null_count:
        return False
    before, after = (keys.slice(start, keys.num_rows - 1) for start in (0, 1))
    return pc.all(pc.less(before.column(0), after.column(0))).as_py() is True


def _groups(table: pa.Table, places: pa.Array | None) -> Iterator[tuple[int, int]]:
    """Begin and end of each row group: at most GROUP_ROWS rows, and at most GROUP_BYTES of text but for one row."""
    n_rows = table.num_rows
    if table.nbytes <= GROUP_BYTES:
        yield from ((start, min(start + GROUP_ROWS, n_rows)) for start in range(0, n_rows, GROUP_ROWS))
        return
    sizes = _text_bytes(table)
    ends = (sizes if places is None else sizes[places.to_numpy()]).cumsum()
    start = 0
    while start < n_rows:
        stop = _group_end(ends, start)
        yield start, stop
        start = stop


def _regrouped(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows cut as `_groups` cuts them: a group ends when it is known that the next row does not belong to it."""
    held: list[pa.Table] = []
    n_rows = n_bytes = 0
    for batch in batches:
        held.append(batch)
        n_rows, n_bytes = n_rows + batch.num_rows, n_bytes + int(_text_bytes(batch).sum())
        if n_rows <= GROUP_ROWS and n_bytes <= GROUP_BYTES:
            continue
        table = pa.concat_tables(held)
        ends = _text_bytes(table).cumsum()
        start = 0
        while (stop := _group_end(ends, start)) < n_rows:
            yield table.slice(start, stop - start)
            start = stop
        held = [table.slice(start)]
        n_rows, n_bytes = held[0].num_rows, int(ends[-1] - ends[start - 1]) if start else int(ends[-1])
    if n_rows:
        yield pa.concat_tables(held)


def _text_bytes(table: pa.Table) -> Any:
    """Bytes of text of each row."""
    texts = [table.column(name) for name in _texts(table.schema)]
    return sum(pc.fill_null(pc.binary_length(text), 0).to_numpy().astype("int64") for text in texts)


def _group_end(ends: Any, start: int) -> int:
    """Where the group that begins at `start` ends, from the running sum of bytes."""
    before = int(ends[start - 1]) if start else 0
    fits = int(ends.searchsorted(before + GROUP_BYTES, side="right"))
    return min(max(fits, start + 1), start + GROUP_ROWS, len(ends))


def _widened(schema: pa.Schema) -> pa.Schema:
    return pa.schema([f.with_type(pa.large_string()) if pa.types.is_string(f.type) else f for f in schema])


def _conform(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    missing = [column for column in schema.names if column not in table.column_names]
    unknown = [column for column in table.column_names if column not in schema.names]
    if missing or unknown:
        raise ValueError(f"{name}: columns missing: {missing}, unknown: {unknown}")
    table = table.select(schema.names)
    for field in schema:
        column = table.column(field.name)
        if not field.nullable and column.null_count:
            raise ValueError(f"{name}: {column.null_count} nulls in {field.name}, which allows none")
        if not _same_kind(column.type, field.type):
            raise ValueError(f"{name}: {field.name} is {column.type}, must be {field.type}")
    return table.cast(schema)


def _same_kind(got: pa.DataType, wanted: pa.DataType) -> bool:
    """True where a cast keeps every value: widths of text and integers may differ, kinds may not."""
    if pa.types.is_null(got) or got == wanted:
        return True
    if pa.types.is_string(wanted):
        return bool(pa.types.is_large_string(got) or pa.types.is_string_view(got) or pa.types.is_dictionary(got))
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_integer(got))
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_floating(got) or pa.types.is_integer(got))
    return bool(pa.types.is_timestamp(wanted) and pa.types.is_timestamp(got) and got.tz is None)
