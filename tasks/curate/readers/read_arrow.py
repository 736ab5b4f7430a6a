"""Arrow tables as batches of rows; Parquet files and directories saved by `datasets` on the way there.

It knows nothing of tickets. Called by `tasks/curate/extract.py` and the other readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError, DataError, ServiceError
from schemas.source import HuggingFaceSource
from tasks.curate.readers.headers import check_header, did_you_mean, listing
from tasks.curate.readers.records import BATCH_ROWS, Batch, Fault, Record
from tasks.curate.row_faults import find_faulty

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

_COMMIT = re.compile(r"[0-9a-f]{40}")
NOT_UTF8 = Fault("TG0241", "A text of the row is not UTF-8.")


def read_parquet(path: Path) -> Iterator[Batch]:
    """Every row of the file, numbered from 1; columns go by the footer's names.

    Raises:
        DataError: TG0202, the file is no Parquet or is damaged; TG0204, a column stands twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            check_header(file.schema_arrow.names, where=str(path))
            yield from arrow_batches(file.iter_batches(batch_size=BATCH_ROWS))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"not readable as Parquet: {str(error).partition(chr(10))[0][:200]}",
            code="TG0202",
            where=str(path),
            hint="write the file again; nothing was read from it",
        ) from None


def read_saved_dataset(source: HuggingFaceSource, *, root: Path) -> Iterator[Batch]:
    """Every row of the split, numbered from 1. Nothing is fetched unless the source allows it.

    Raises:
        ConfigError: TG0130, a hub dataset without permission or commit, or no such split.
        DataError: TG0202, the directory is neither one that `datasets` saved nor a dataset of Parquet files.
        ServiceError: TG0720, the hub does not answer, or offline mode forbids asking.
    """
    folder = local_dataset(source, root=root)
    files = _parquet_files(source, folder) if folder else []
    if files:
        yield from arrow_batches(_batches_of(files))
        return
    dataset = _from_disk(source, folder) if folder else _from_hub(source)
    check_header(dataset.column_names, where=source.path)
    yield from arrow_batches(
        batch
        for table in dataset.with_format("arrow").iter(batch_size=BATCH_ROWS)
        for batch in table.to_batches(max_chunksize=BATCH_ROWS)
    )


def local_dataset(source: HuggingFaceSource, *, root: Path) -> Path | None:
    """The directory the source names, or None for a dataset of the hub that may be fetched.

    Raises:
        ConfigError: TG0130, it is neither a directory nor a hub dataset with permission and commit.
    """
    folder = root / Path(source.path).expanduser()
    if folder.is_dir():
        return folder
    if not source.allow_download:
        raise ConfigError(
            f"no directory {source.path!r}, and nothing is fetched from the hub unless `allow_download` is true",
            code="TG0130",
            where=str(folder),
            hint="name a directory saved by `datasets`, or set `allow_download: true` and `revision`",
        )
    if source.revision is None or not _COMMIT.fullmatch(source.revision):
        raise ConfigError(
            f"a hub dataset needs `revision`, a commit sha of 40 hex digits; got {source.revision!r}",
            code="TG0130",
            where=source.path,
            hint="a branch or tag can move, a commit cannot; the dataset's page lists its commits",
        )
    return None


def arrow_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[Batch]:
    """The same rows numbered from 1; times are UTC in microseconds. A row with a text that is not UTF-8 is faulty.

    Raises:
        pyarrow.ArrowInvalid: offsets inside the batch point outside it.
    """
    import numpy as np
    import pyarrow as pa

    from tasks.curate.readers.rows_read import ArrowRows

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
        yield Batch(ArrowRows(_plain_times(batch)), lines, None, faulty)


def _readable(batch: pa.RecordBatch, error: pa.ArrowInvalid) -> tuple[NDArray[np.bool_], pa.RecordBatch]:
    """Which rows have no text but UTF-8, and these alone.

    Raises:
        pyarrow.ArrowInvalid: `error`, where more is wrong with the batch than its texts.
    """
    import numpy as np
    import pyarrow as pa

    schema = batch.schema
    as_bytes = pa.schema([field.with_type(_as_bytes(field.type)) for field in schema])
    try:
        raw = batch.cast(as_bytes)
        raw.validate(full=True)  # only now may single rows be taken out: no offset leads out of the batch
    except pa.ArrowException:
        raise error from None

    def decode(start: int, stop: int) -> None:
        raw.take(pa.array(range(start, stop), pa.int64())).cast(schema)

    sound = np.ones(batch.num_rows, bool)
    sound[[row for row, _ in find_faulty(decode, 0, batch.num_rows)]] = False
    return sound, raw.filter(pa.array(sound)).cast(schema)


def _as_bytes(type_: pa.DataType) -> pa.DataType:
    """The type with bytes in place of texts, at any depth of lists and structs."""
    import pyarrow as pa

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
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        if pa.types.is_timestamp(column.type):
            zone = "UTC" if column.type.tz else None
            column = column.cast(pa.timestamp("us", tz=zone), safe=False)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _parquet_files(source: HuggingFaceSource, folder: Path) -> list[Path]:
    """Files of the split in a folder as the hub keeps datasets: `train-00000-of-00002.parquet`, `train/0.parquet`."""
    files = sorted(folder.rglob("*.parquet"))
    split = source.split
    found = [
        file
        for file in files
        if re.fullmatch(rf"{re.escape(split)}([-_.].*)?", file.stem) or split in file.relative_to(folder).parts[:-1]
    ]
    if files and not found:
        names = sorted({re.split(r"-\d", file.stem)[0] for file in files})
        raise ConfigError(
            f"no Parquet file of split {split!r}; there are: {listing(names)}",
            code="TG0130",
            where=str(folder),
            hint=did_you_mean(split, names) or "for files that are no split use `kind: files` with a glob",
        )
    return found


def _batches_of(files: Iterable[Path]) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                check_header(file.schema_arrow.names, where=str(path))
                yield from file.iter_batches(batch_size=BATCH_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"not readable as Parquet: {str(error).partition(chr(10))[0][:200]}", code="TG0202", where=str(path)
            ) from None


def _from_disk(source: HuggingFaceSource, folder: Path) -> Any:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(
            f"not a directory saved by `datasets`: {type(error).__name__}",
            code="TG0202",
            where=str(folder),
            hint="for a folder of CSV or JSONL files use `kind: files` with a glob",
        ) from None
    if isinstance(loaded, datasets.DatasetDict):
        if source.split not in loaded:
            raise ConfigError(
                f"no split {source.split!r}; there are: {listing(loaded)}",
                code="TG0130",
                where=str(folder),
                hint=did_you_mean(source.split, loaded),
            )
        loaded = loaded[source.split]
    return loaded


def _from_hub(source: HuggingFaceSource) -> Any:
    import datasets

    try:
        return datasets.load_dataset(source.path, revision=source.revision, split=source.split)
    except (OSError, ValueError, RuntimeError) as error:
        raise ServiceError(
            f"the hub dataset {source.path!r} was not fetched: {type(error).__name__}: {str(error)[:200]}",
            code="TG0720",
            where=source.path,
            hint="check the name, the network and HF_HUB_OFFLINE",
        ) from None
