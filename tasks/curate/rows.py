"""Read and write the tables between curation steps as Parquet: exact columns and types, one row order, equal bytes.

A process that reads a file it has just written gets the table from memory. Import this module inside functions:
importing pyarrow takes a while.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.tables import REMOVED, TICKETS, Column
from tasks.curate.row_groups import GROUP_ROWS, RowGroups, cut_groups, texts_of
from tasks.curate.table_cache import CACHED_BYTES, cache_table, peek_cached, take_cached

ARROW_TYPES = {
    "VARCHAR": pa.string(),
    "TIMESTAMP": pa.timestamp("us"),
    "BIGINT": pa.int64(),
    "DOUBLE": pa.float64(),
    "BOOLEAN": pa.bool_(),
}
"""DuckDB type -> Arrow type. TIMESTAMP is UTC without a time zone, as in DuckDB."""
REPEATED = frozenset({"customer_id", "thread_id", "product", "channel", "category", "priority", "source", "language",
    "outcome", "code", "reason", "field", "cluster_id", "kept_id"})  # fmt: skip
"""Text columns with repeated values: a dictionary saves space, and their statistics are short."""
TICKET_ORDER = ("ticket_id", "source", "source_line")
REMOVED_ORDER = ("source", "source_line", "byte_offset", "ticket_id", "code", "field", "reason", "kept_id")


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the declared columns as an Arrow schema, including nullability."""
    return pa.schema([pa.field(column.name, ARROW_TYPES[column.sql_type], column.nullable) for column in columns])


TICKETS_ARROW = arrow_schema(TICKETS)
REMOVED_ARROW = arrow_schema(REMOVED)


def write_tickets(table: pa.Table, out: Path, *, name: str = "tickets.parquet", is_read_next: bool = True) -> int:
    """Write `out/tickets.parquet`, ordered by ticket_id, source and source_line; return the number of rows.

    Args:
        is_read_next: Whether the next step reads it, so that the table should stay in memory.

    Raises:
        ValueError: a column is missing, has another type, or has a null where none is allowed.
    """
    return _write(table, TICKETS_ARROW, TICKET_ORDER, out / name, is_read_next=is_read_next)


def write_ordered_tickets(
    batches: Iterable[pa.Table], out: Path, *, name: str = "tickets.parquet", is_read_next: bool = True
) -> int:
    """Write the same file as `write_tickets` from batches in its order; see `TicketWriter`.

    Raises:
        ValueError: as `TicketWriter`.
    """
    with TicketWriter(out, name=name, is_read_next=is_read_next) as writer:
        for batch in batches:
            writer.add(batch)
    return writer.n_rows


class TicketWriter:
    """Write such a file from batches in its order; memory holds one row group, or all rows while they are few.

    Raises:
        ValueError: as `write_tickets`, or a batch begins before the end of the previous one.
    """

    def __init__(self, out: Path, *, name: str = "tickets.parquet", is_read_next: bool = True) -> None:
        self.n_rows = 0
        self._path = out / name
        self._file = _open(self._path, TICKETS_ARROW)
        self._groups = RowGroups()
        self._last: str | None = None
        self._cached: list[pa.Table] | None = [TICKETS_ARROW.empty_table()] if is_read_next else None
        self._n_cached = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._write(self._groups.rest())
        finally:
            self._file.close()
        if kind is None and self._cached is not None:
            cache_table(pa.concat_tables(self._cached), self._path)

    def add(self, batch: pa.Table) -> None:
        """Append these rows."""
        batch = _conform(batch, TICKETS_ARROW, self._path.name)
        if not batch.num_rows:
            return
        self._check_order(batch.column("ticket_id"))
        self.n_rows += batch.num_rows
        if self._cached is not None:
            self._n_cached += batch.nbytes
            self._cached = [*self._cached, batch] if self._n_cached <= CACHED_BYTES else None
        self._write(self._groups.add(batch))

    def _write(self, groups: Iterator[pa.Table]) -> None:
        for group in groups:
            self._file.write_table(group.combine_chunks(), row_group_size=GROUP_ROWS)

    def _check_order(self, ids: pa.ChunkedArray) -> None:
        """Check the order of ids; the order of rows with equal ids is up to the caller."""
        falls = pc.any(pc.greater(ids.slice(0, len(ids) - 1), ids.slice(1)), min_count=0).as_py()
        if falls or (self._last is not None and ids[0].as_py() < self._last):
            raise ValueError(f"{self._path.name}: rows are not in the order of ticket_id")
        self._last = ids[-1].as_py()


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
    """Return rows for `removed.parquet` as an Arrow table."""
    listed = list(rows)
    for row in listed:
        unknown = row.keys() - set(REMOVED_ARROW.names)
        if unknown:
            raise ValueError(f"no columns of removed rows: {', '.join(sorted(unknown))}")
    columns = {name: [row.get(name) for row in listed] for name in REMOVED_ARROW.names}
    return pa.table(columns, schema=REMOVED_ARROW)


def ticket_table(rows: Iterable[Mapping[str, object]]) -> pa.Table:
    """Return rows for `tickets.parquet` as an Arrow table; columns that a row lacks are null."""
    listed = list(rows)
    columns = {name: [row.get(name) for row in listed] for name in TICKETS_ARROW.names}
    return pa.table(columns, schema=TICKETS_ARROW)


def read_rows(path: Path) -> pa.Table:
    """Read a table written by this module, in its order."""
    cached = take_cached(path)
    return pq.read_table(path, memory_map=False) if cached is None else cached


def read_batches(path: Path, names: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the table, or these columns, by row groups; at least one batch, which may be empty."""
    cached = take_cached(path) if names is None else peek_cached(path)
    if cached is not None:
        wanted = cached if names is None else cached.select(list(names))
        for start in range(0, max(1, cached.num_rows), GROUP_ROWS):
            yield wanted.slice(start, GROUP_ROWS)
        return
    columns = None if names is None else list(names)
    with pq.ParquetFile(path, memory_map=False) as file:
        if not file.num_row_groups:
            yield file.read(columns=columns)
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=columns)


def read_batches_with(path: Path, *values: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the batches of a table, each with its slices of values that all rows have, in the table's order.

    Raises:
        ValueError: there are more or fewer values than rows.
    """
    start = 0
    for batch in read_batches(path):
        stop = start + batch.num_rows
        yield (batch, *(each[start:stop] for each in values))
        start = stop
    if any(len(each) != start for each in values):
        raise ValueError(f"{path.name}: {start} rows, and another number of values")


def count_rows(path: Path) -> int:
    """Return the number of rows of such a table."""
    return int(pq.read_metadata(path).num_rows)


def read_columns(path: Path, names: tuple[str, ...]) -> pa.Table:
    """Read these columns of a table written by this module, in its order; its cached table stays in memory."""
    cached = peek_cached(path)
    return pq.read_table(path, columns=list(names), memory_map=False) if cached is None else cached.select(names)


def _with_missing(table: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.nullable and field.name not in table.column_names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


def _write(
    table: pa.Table, schema: pa.Schema, order: tuple[str, ...], path: Path, *, is_read_next: bool = False
) -> int:
    """Write bytes that depend on the rows only: one order, row groups cut by content, each group one chunk."""
    table = _conform(table, schema, path.name)
    keys = table.select(list(order)).combine_chunks()
    places = None if _in_order(keys) else pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in order])
    # Strings of a table may pass the 2 GiB that offsets of `string` count: widen, take group by group, narrow.
    wide = table if places is None else table.cast(_widened(schema)).combine_chunks()
    with _open(path, schema) as writer:
        for start, stop in cut_groups(table, places):
            n_rows = stop - start
            group = wide.slice(start, n_rows) if places is None else wide.take(places.slice(start, n_rows))
            writer.write_table(group.cast(schema).combine_chunks(), row_group_size=GROUP_ROWS)
    if is_read_next and places is None:
        cache_table(table, path)
    return int(table.num_rows)


def sort_tickets(table: pa.Table) -> pa.Table:
    """Return the rows in the order of a file of tickets; less than 2 GiB of text."""
    keys = table.select(list(TICKET_ORDER)).combine_chunks()
    if _in_order(keys):
        return table
    return table.take(pc.sort_indices(keys, sort_keys=[(key, "ascending") for key in TICKET_ORDER]))


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    texts = texts_of(schema)
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[name for name in texts if name in REPEATED],
        write_statistics=[name for name in schema.names if name not in texts or name in REPEATED],
    )


def _in_order(keys: pa.Table) -> bool:
    """Return True if the values of the first column are strictly ascending."""
    first = keys.column(0)
    if keys.num_rows < 2:
        return True
    if first.null_count:
        return False
    before, after = (keys.slice(start, keys.num_rows - 1) for start in (0, 1))
    return pc.all(pc.less(before.column(0), after.column(0))).as_py() is True


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
    """Return whether a cast keeps every value: widths of text and integers may differ, kinds may not."""
    if pa.types.is_null(got) or got == wanted:
        return True
    if pa.types.is_string(wanted):
        return bool(pa.types.is_large_string(got) or pa.types.is_string_view(got) or pa.types.is_dictionary(got))
    if pa.types.is_integer(wanted):
        return bool(pa.types.is_integer(got))
    if pa.types.is_floating(wanted):
        return bool(pa.types.is_floating(got) or pa.types.is_integer(got))
    return bool(pa.types.is_timestamp(wanted) and pa.types.is_timestamp(got) and got.tz is None)
