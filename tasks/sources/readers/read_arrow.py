"""Arrow tables and Parquet files as batches of rows."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schemas.errors import DataError
from tasks.sources.readers.headers import check_header
from tasks.sources.readers.records import BATCH_ROWS, Fault, Record, RowBatch
from tasks.sources.readers.rows_read import ArrowRows
from tasks.tickets.row_fault import find_faulty

NOT_UTF8 = Fault("TG0241", "A text of the row is not UTF-8.")


def read_parquet(path: Path) -> Iterator[RowBatch]:
    """Every row of the file, numbered from 1; columns are matched by the footer's names.

    Raises:
        DataError: TG0202, the file is not Parquet or is damaged; TG0204, a column occurs twice.
    """
    yield from arrow_batches(parquet_batches(path))


def parquet_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of the file as Arrow batches; pages are checked against their checksums where the file has them.

    Raises:
        DataError: as `read_parquet`.
    """
    try:
        # Without this a changed byte inside a text is read in silence.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            check_header(file.schema_arrow.names, where=str(path))
            yield from file.iter_batches(batch_size=BATCH_ROWS)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the file as Parquet: {str(error).partition(chr(10))[0][:200]}",
            code="TG0202",
            where=str(path),
            hint="write the file again; nothing was read from it",
        ) from None


def arrow_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[RowBatch]:
    """The rows, numbered from 1, with times in UTC microseconds. A row with text that is not UTF-8 is faulty.

    Raises:
        pyarrow.ArrowInvalid: Offsets inside the batch point outside it.
    """
    number = 1
    for batch in batches:
        lines = np.arange(number, number + batch.num_rows)
        number += batch.num_rows
        faulty: list[Record] = []
        try:
            batch.validate(full=True)
        except pa.ArrowInvalid as error:
            sound, batch = _readable(batch, error)
            faulty = [Record(int(line), None, NOT_UTF8) for line in lines[~sound]]
            lines = lines[sound]
        yield RowBatch(ArrowRows(_plain_times(batch)), lines, None, faulty)


def _readable(batch: pa.RecordBatch, error: pa.ArrowInvalid) -> tuple[NDArray[np.bool_], pa.RecordBatch]:
    """Which rows have only valid UTF-8, and a batch of these rows.

    Raises:
        pyarrow.ArrowInvalid: `error`, if more is wrong with the batch than its texts.
    """
    schema = batch.schema
    as_bytes = pa.schema([field.with_type(_as_bytes(field.type)) for field in schema])
    try:
        raw = batch.cast(as_bytes)
        raw.validate(full=True)  # offsets are valid, so single rows can be taken
    except pa.ArrowException:
        raise error from None

    def decode(start: int, stop: int) -> None:
        raw.take(pa.array(range(start, stop), pa.int64())).cast(schema)

    sound = np.ones(batch.num_rows, bool)
    sound[[row for row, _ in find_faulty(decode, 0, batch.num_rows)]] = False
    return sound, raw.filter(pa.array(sound)).cast(schema)


def _as_bytes(type_: pa.DataType) -> pa.DataType:
    """The type with bytes instead of text, at any depth of lists and structs."""
    if pa.types.is_string(type_):
        return pa.binary()
    if pa.types.is_large_string(type_):
        return pa.large_binary()
    if pa.types.is_list(type_):
        return pa.list_(type_.value_field.with_type(_as_bytes(type_.value_type)))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_as_bytes(field.type)) for field in type_])
    return type_


def _plain_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Cast times to UTC microseconds: Python has no nanoseconds, and other zones need a zone database."""
    columns = []
    for column in batch.columns:
        if pa.types.is_timestamp(column.type):
            zone = "UTC" if column.type.tz else None
            column = column.cast(pa.timestamp("us", tz=zone), safe=False)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
