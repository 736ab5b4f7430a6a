"""Customers in stored results: an index of who is stored where, and results without the rows of forgotten customers.

The index has one small Parquet file of keyed hashes and row counts per result; `flows/privacy/index.py` decides which
results are indexed and keeps the files. Results are recognised by their files, so a user's own steps are covered too. A
split is rewritten without forgotten customers, so all other held-out tickets stay held out; the new folder is written
aside and the old one is not touched.
"""

import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import RowCounts
from schemas.errors import StorageError
from tasks.curate.rows import write_removed, write_tickets
from tasks.curate.split import write_assignments
from tasks.privacy.hashes import Forgotten, KeyedHash, any_of, short
from tasks.storage.files import whole_file

TABLES = ("tickets.parquet", "train.parquet", "validation.parquet", "test.parquet", "items.parquet",
    "raw_tickets.parquet")  # fmt: skip
"""Tables with a column customer_id."""
EXAMPLES = "train"
"""Folder of encoded examples; its part of the index says which customers a model learned from."""
ROW_GROUP = 8192
PARTS = ("train", "validation", "test")
ANSWERS = "validation_answers.parquet"
AGGREGATES = ("strata.parquet",)
"""Counts over many tickets: they stay unchanged."""
_POINTERS = ("kept_id", "cluster_id", "shared_run", "score")
"""Columns in which a removed row refers to the ticket that was kept instead."""


@dataclass(frozen=True)
class Held:
    """Rows of one customer in one part of one result."""

    file: str
    """Name of the index file, `STEP/KEY.DIGEST.parquet`."""
    part: str
    n_rows: int


def parts_of(folder: Path) -> tuple[str, ...]:
    """The parts of a result that can be indexed; empty if it has no customers' rows."""
    tables = [name for name in TABLES if (folder / name).is_file()]
    return (*tables, *((EXAMPLES,) if _example_files(folder) else ()))


def index_rows(folder: Path, hashes: KeyedHash, out: Path, *, splits: Path | None = None) -> None:
    """Write an index of the customers in the folder to `out`, ordered by hash.

    Args:
        splits: The tickets that the encoded examples were made from: examples have ticket ids only.

    Raises:
        StorageError: TG0510, a table cannot be read, so that its customers are not known.
    """
    counts: dict[str, list[tuple[str, int]]] = {}
    for part in parts_of(folder):
        try:
            customers = _customers(folder, part, splits)
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            raise StorageError(
                f"the stored result {folder.parent.name}/{folder.name} cannot be read: {part}",
                code="TG0510",
                where=str(folder),
                hint="remove the folder: the next run that needs it makes it again",
            ) from None
        if customers is not None:
            counted = customers.drop_null().value_counts()
            counts[part] = list(zip(*(counted.field(name).to_pylist() for name in ("values", "counts")), strict=True))
    index_customers(counts, hashes, out)


def index_customers(counts: Mapping[str, Iterable[tuple[str, int]]], hashes: KeyedHash, out: Path) -> None:
    """Write an index file of (customer, number of rows) per part."""
    tables = []
    for part, rows in counts.items():
        listed = list(rows)
        owners = [short(hashes.of("customer", customer)) for customer, _ in listed]
        tables.append(
            pa.table(
                {"owner": owners, "part": [part] * len(listed), "n_rows": [n for _, n in listed]}, schema=_schema()
            )
        )
    table = pa.concat_tables([_schema().empty_table(), *tables]).sort_by("owner")
    with whole_file(out, mode=0o600) as aside:
        pq.write_table(table, aside, compression="zstd", row_group_size=ROW_GROUP)


def look_up(index: Path, owners: Sequence[str]) -> list[Held]:
    """Where the index lists any of these customers (hashes), by file and part."""
    wanted = sorted({short(owner) for owner in owners})
    found: dict[tuple[str, str], int] = {}
    for file in sorted(index.glob("*/*.parquet")) if wanted else ():
        name = file.relative_to(index).as_posix()
        for row in _rows_of(file, wanted):
            found[name, row["part"]] = found.get((name, row["part"]), 0) + row["n_rows"]
    return [Held(name, part, n_rows) for (name, part), n_rows in sorted(found.items())]


def _rows_of(file: Path, wanted: list[int]) -> Iterator[dict[str, Any]]:
    """The rows of these owners; since the file is ordered by owner, only row groups that may match are read."""
    with pq.ParquetFile(file) as table:
        for group in range(table.num_row_groups):
            bounds = table.metadata.row_group(group).column(0).statistics
            if bounds is None or not bounds.has_min_max:
                continue  # an empty group: the result has no customers' rows
            first = bisect_left(wanted, bounds.min)
            if first < len(wanted) and wanted[first] <= bounds.max:
                rows = table.read_row_group(group)
                yield from rows.filter(any_of(rows.column("owner"), wanted)).to_pylist()


def places_of(tickets: Path, forgotten: Forgotten) -> list[Mapping[str, object]]:
    """ticket_id, source and source_line of the rows of these customers, in order."""
    found = []
    with pq.ParquetFile(tickets) as file:
        for group in range(file.num_row_groups):
            mask = forgotten.mask("customer", file.read_row_group(group, columns=["customer_id"]).column(0))
            if pc.any(mask).as_py():
                found.append(file.read_row_group(group, columns=["ticket_id", "source", "source_line"]).filter(mask))
    if not found:
        return []
    order = [("source", "ascending"), ("source_line", "ascending")]
    rows: list[Mapping[str, object]] = pa.concat_tables(found).sort_by(order).to_pylist()
    return rows


def _schema() -> pa.Schema:
    return pa.schema([("owner", pa.int64()), ("part", pa.string()), ("n_rows", pa.int64())])


def _customers(folder: Path, part: str, splits: Path | None) -> pa.ChunkedArray | None:
    if part != EXAMPLES:
        path = folder / part
        return pq.read_table(path, columns=["customer_id"]).column(0) if _has_customers(path) else None
    if splits is None or not (splits / "train.parquet").is_file() or not _has_customers(splits / "train.parquet"):
        return None
    known = pq.read_table(splits / "train.parquet", columns=["ticket_id", "customer_id"])
    ids = pa.chunked_array([batch for file in _example_files(folder) for batch in _ticket_ids(file)], pa.string())
    places = pc.index_in(ids, value_set=known.column("ticket_id").combine_chunks())
    return known.column("customer_id").take(places.drop_null())


def _has_customers(path: Path) -> bool:
    return "customer_id" in pq.read_schema(path).names


def _example_files(folder: Path) -> list[Path]:
    return sorted((folder / EXAMPLES).glob("*.arrow"))


def _ticket_ids(file: Path) -> Iterator[pa.Array]:
    with pa.memory_map(str(file)) as stream:
        for batch in pa.ipc.open_stream(stream):
            if "ticket_id" in batch.schema.names:
                yield batch.column("ticket_id").cast(pa.string())


def is_split(folder: Path) -> bool:
    """Whether this is a result with train, validation and test tickets."""
    return all((folder / f"{part}.parquet").is_file() for part in (*PARTS, "removed"))


def rewrite_split(folder: Path, out: Path, forgotten: Forgotten) -> dict[str, Any]:
    """Write the split to `out` without the rows of forgotten customers; returns the fields that changed.

    Another customer's row that was removed in favour of a forgotten ticket stays, but no longer names that ticket.
    """
    tables = {part: pq.read_table(folder / f"{part}.parquet") for part in PARTS}
    removed = pq.read_table(folder / "removed.parquet")
    gone = gone_tickets((*tables.values(), removed), forgotten)
    counts = {
        part: write_tickets(_without(table, gone, forgotten), out, name=f"{part}.parquet")
        for part, table in tables.items()
    }
    left = _clear_pointers(_without(removed, gone, forgotten), gone)
    write_removed(left, out)
    if (folder / "assignments.parquet").is_file():
        _rewrite_assignments(folder, out, gone, forgotten)
    for name in AGGREGATES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    outcomes = Counter(left.column("outcome").to_pylist())
    n_out = sum(counts.values())
    rows = RowCounts(
        n_in=n_out + outcomes.total(),
        n_out=n_out,
        n_quarantined=outcomes["quarantined"],
        n_dropped=outcomes["dropped"],
        n_merged=outcomes["merged"],
    )
    return {"rows": rows.model_dump(), **{f"n_{part}": n_rows for part, n_rows in counts.items()}}


def gone_tickets(tables: Iterable[pa.Table], forgotten: Forgotten) -> pa.Array:
    """Ids of forgotten customers' tickets, found by customer id or ticket id."""
    ids: list[str] = []
    for table in tables:
        if "customer_id" in table.column_names:
            mine = table.column("ticket_id").filter(forgotten.mask("customer", table.column("customer_id")))
            ids += pc.unique(mine).to_pylist()
        ids += forgotten.gone("ticket", table.column("ticket_id"))
    return pa.array(sorted(set(ids)), pa.string())


def has_answers(folder: Path) -> bool:
    """Whether the training has kept its answers to validation tickets."""
    file = folder / ANSWERS
    return file.is_file() and pq.read_metadata(file).num_rows > 0


def empty_answers(folder: Path, out: Path) -> None:
    """Copy the training to `out` without those answers; the weights are the same bytes."""
    for path in sorted(folder.rglob("*")):
        target = out / path.relative_to(folder)
        if path.is_dir():
            target.mkdir()
        elif path.name == ANSWERS:
            pq.write_table(pq.read_schema(path).empty_table(), target)
        else:
            shutil.copyfile(path, target)


def _without(table: pa.Table, gone: pa.Array, forgotten: Forgotten) -> pa.Table:
    leaves = pc.is_in(table.column("ticket_id"), value_set=gone, skip_nulls=True)
    if "customer_id" in table.column_names:
        leaves = pc.or_(leaves, forgotten.mask("customer", table.column("customer_id")))
    return table.filter(pc.invert(leaves))


def _clear_pointers(removed: pa.Table, gone: pa.Array) -> pa.Table:
    points = pc.or_(
        pc.is_in(removed.column("kept_id"), value_set=gone, skip_nulls=True),
        pc.is_in(removed.column("cluster_id"), value_set=gone, skip_nulls=True),
    )
    for name in _POINTERS:
        place = removed.schema.get_field_index(name)
        field = removed.schema.field(place)
        values = pc.if_else(points, pa.scalar(None, field.type), removed.column(name))
        removed = removed.set_column(place, field, values)
    return removed


def _rewrite_assignments(folder: Path, out: Path, gone: pa.Array, forgotten: Forgotten) -> None:
    table = pq.read_table(folder / "assignments.parquet")
    groups = pc.unique(table.column("group")).to_pylist()
    mine = [group for group in groups if forgotten.is_gone("customer", group.removeprefix("customer_id="))]
    leaves = pc.or_(
        pc.is_in(table.column("ticket_id"), value_set=gone),
        pc.is_in(table.column("group"), value_set=pa.array(mine, pa.string())),
    )
    write_assignments(table.filter(pc.invert(leaves)), out)
