"""Validate the table that leaves curation, so that no step hands on what `validate` would have refused.

It is compared with the shipped model of a ticket (`tasks/curate/validate.py`) and with the user's, `schema.curated`.
"""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation import TableSpec
from schemas.tables import TICKET_COLUMNS
from tasks.curate.contract_model import RAISED, Contract, raising_rows
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import TICKETS_ARROW, TicketWriter, count_rows, read_batches, read_columns, write_removed
from tasks.curate.table_cache import cache_table, take_cached
from tasks.curate.validate import RowFault, broken_rows, faults_within, find_faults, quarantined, without
from tasks.step import as_step

REPEATED = "TG0215"


@as_step("contract", libraries=("duckdb", "pyarrow", "pandera", "pandas"), context=("root",))
def check_contract(
    out: Path, *, tickets: TicketTable, table: TableSpec, root: Path, limit: FaultLimit | None = None
) -> TicketTable:
    """Quarantine each ticket that `validate` would refuse, shares its id with another, or breaks `schema.curated`.

    A row is quarantined for its first fault. With `schema.curated` all rows are in memory, else a few row groups.
    Notes: rows per code.

    Args:
        root: Folder of pipelines.yaml.

    Raises:
        ConfigError: TG0128, `schema.curated` cannot be used.
        DataError: TG0220, more rows are faulty than `limit` allows; TG0222, TG0259 as `find_violations`.
    """
    contract = None if table.curated is None else Contract(table.curated, "schema.curated", root)
    return keep_sound_rows(
        lambda rows, folder: _check(rows, table, contract, folder),
        tickets,
        step="contract",
        out=out,
        codes=(RAISED,),
        limit=limit,
        search=None if contract is None else lambda rows: raising_rows(rows.tickets, contract),
    )


def _check(tickets: TicketTable, table: TableSpec, contract: Contract | None, out: Path) -> TicketTable:
    faults = _all_faults(tickets.tickets, table, contract)
    n_rows = count_rows(tickets.tickets)
    kept = out / "tickets.parquet"
    if faults:
        removed, start = [], 0
        with TicketWriter(out) as writer:
            for batch in read_batches(tickets.tickets):
                found = faults_within(faults, start, batch.num_rows)
                start += batch.num_rows
                removed += quarantined(batch, found)
                writer.add(without(batch, found))
    else:  # the usual case, without writing the table again
        removed, held = [], take_cached(tickets.tickets)
        shutil.copyfile(tickets.tickets, kept)
        if held is not None:
            cache_table(held, kept)
    write_removed(removed, out)
    notes = pa.array([row["code"] for row in removed], pa.string()).value_counts().to_pylist()
    return TicketTable(
        root=out,
        rows=RowCounts(n_in=n_rows, n_out=n_rows - len(removed), n_quarantined=len(removed)),
        notes={entry["values"]: entry["counts"] for entry in sorted(notes, key=lambda entry: str(entry["values"]))},
    )


def _all_faults(path: Path, table: TableSpec, contract: Contract | None) -> dict[int, RowFault]:
    """Return the number of each faulty row, with its first fault."""
    found = {} if contract is None else broken_rows(path, contract)
    start = 0
    for batch in read_batches(path, TICKET_COLUMNS):
        found |= {start + index: fault for index, fault in find_faults(batch.cast(TICKETS_ARROW), table).items()}
        start += batch.num_rows
    return dict(sorted({**found, **_repeated_ids(path)}.items()))


def _repeated_ids(path: Path) -> dict[int, RowFault]:
    """The rows that share a ticket_id, which are next to each other."""
    ids = read_columns(path, ("ticket_id",)).column(0).combine_chunks()
    places = pc.indices_nonzero(pc.equal(ids[1:], ids[:-1])).to_pylist() if len(ids) > 1 else []
    fault = RowFault(REPEATED, "ticket_id", "Another ticket has the same ticket_id after the last step.")
    return {number: fault for place in places for number in (place, place + 1)}
