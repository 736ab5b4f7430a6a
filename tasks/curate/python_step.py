"""Run a user's function over the tickets, batch by batch: rows it leaves out are dropped under the step's name.

`tasks/curate/user_code.py` loads it.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import TicketTable
from schemas.curation_steps import PythonStep
from schemas.errors import DataError
from tasks.curate.drop import write_step
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import TICKETS_ARROW, read_batches, read_rows
from tasks.curate.step import curation_step
from tasks.curate.user_code import fingerprint_code, function_of, place_in
from tasks.step import as_step
from tasks.tickets.row_fault import find_faulty

RAISED = "TG0259"
"""The function raised."""
BATCH_ROWS = 8_192
"""Maximum rows of a batch. The function must not depend on which rows share a batch."""


@curation_step(
    PythonStep,
    reads=lambda step, root: {"source": fingerprint_python(step, root)},
    check=lambda step, root, _where, _tables: fingerprint_python(step, root),
)
@as_step("python", libraries=("duckdb", "pyarrow"), context=("root",))
def run_python(
    out: Path, *, tickets: TicketTable, step: PythonStep, root: Path, limit: FaultLimit | None = None
) -> TicketTable:
    """Keep the rows that the function returns, as it returns them.

    It is called with `pyarrow.RecordBatch`es of at most 8,192 tickets in the order of ticket_id, and returns a
    RecordBatch or Table with the same columns and types, each ticket of the batch at most once, in any order.
    Tickets on which it raises are quarantined: it is called again with fewer tickets until they are found.
    Notes: `dropped_<name>`, `changed_rows` (rows kept with another value in some column).

    Args:
        root: Folder of pipelines.yaml, the only one that the module is taken from.

    Raises:
        ConfigError: TG0128, there is no such function in the folder, or its module cannot be imported.
        DataError: TG0259, the function raised on every ticket, or only on several together; TG0220, on more than
            `limit` allows; TG0260, it returned something else, unknown tickets, or a ticket twice.
    """
    return keep_sound_rows(
        lambda rows, folder: _run_python(rows, step, root, folder),
        tickets,
        step=step.name,
        out=out,
        codes=(RAISED,),
        limit=limit,
        search=lambda rows: _faulty_rows(rows.tickets, step, root),
    )


def _run_python(tickets: TicketTable, step: PythonStep, root: Path, out: Path) -> TicketTable:
    where = _where(step)
    table = read_rows(tickets.tickets)
    kept: list[pa.Table] = [TICKETS_ARROW.empty_table()]
    n_changed = 0
    with function_of(step.entry_point, root=root, where=where) as function:
        for batch in table.to_batches(max_chunksize=BATCH_ROWS):
            returned = _call(function, batch, where=where, root=root)
            n_changed += _changed(batch, returned)
            kept.append(returned)
    result = pa.concat_tables(kept)
    gone = pc.invert(pc.is_in(table["ticket_id"], value_set=result["ticket_id"].combine_chunks()))
    places = table.select(["ticket_id", "source", "source_line"]).filter(gone)
    removed = places
    for name, value in (("outcome", "dropped"), ("code", step.name), ("reason", "the step's function leaves it out")):
        removed = removed.append_column(name, pa.repeat(pa.scalar(value), places.num_rows))
    return write_step(result, removed, out=out, notes={"changed_rows": n_changed}, possible=(step.name,))


def fingerprint_python(step: PythonStep, root: Path) -> str:
    """Return the digest of the step's source, as `fingerprint_code`."""
    return fingerprint_code(step.entry_point, root=root, where=_where(step))


def _where(step: PythonStep) -> str:
    return f"curate.python.{step.name}: {step.entry_point}"


def _faulty_rows(path: Path, step: PythonStep, root: Path) -> Iterator[tuple[int, Exception]]:
    """The tickets on which the function raises."""
    where = _where(step)
    start = 0
    with function_of(step.entry_point, root=root, where=where) as function:
        for group in read_batches(path):
            for batch in group.to_batches(max_chunksize=BATCH_ROWS):

                def work(low: int, high: int, batch: pa.RecordBatch = batch) -> None:
                    _call(function, batch.slice(low, high - low), where=where, root=root)

                for row, error in find_faulty(work, 0, batch.num_rows, (RAISED,)):
                    yield start + row, error
                start += batch.num_rows


def _call(function: Callable[[Any], Any], batch: pa.RecordBatch, *, where: str, root: Path) -> pa.Table:
    try:
        returned = function(batch)
    except (Exception, SystemExit) as error:
        # The message may quote a ticket, so it is only in the chained exception, which `--debug` shows.
        raise DataError(
            f"the function raised {type(error).__name__} at {place_in(root, error)}",
            code="TG0259",
            where=where,
            hint="`tunegate --debug run ...` shows the traceback, which may quote tickets",
        ) from error
    if not isinstance(returned, pa.RecordBatch | pa.Table):
        raise _not_a_batch(f"the function returned {type(returned).__name__}", where)
    if isinstance(returned, pa.RecordBatch):
        returned = pa.Table.from_batches([returned])
    faults = _schema_faults(returned.schema, batch.schema)
    if faults:
        raise _not_a_batch(f"the function changed the columns: {'; '.join(faults)}", where)
    returned = returned.select(batch.schema.names)
    for field in batch.schema:
        if not field.nullable and returned[field.name].null_count:
            raise _not_a_batch(f"the function returned nulls in {field.name}, which allows none", where)
    _check_ids(returned["ticket_id"], batch["ticket_id"], where)
    return returned.cast(batch.schema)


def _schema_faults(got: pa.Schema, wanted: pa.Schema) -> list[str]:
    faults = [f"{name} is missing" for name in wanted.names if name not in got.names]
    faults += [f"{name} is new" for name in dict.fromkeys(got.names) if name not in wanted.names]
    faults += [f"{name} appears twice" for name in wanted.names if got.names.count(name) > 1]
    return faults or [
        f"{field.name} is {got.field(field.name).type}, must be {field.type}"
        for field in wanted
        if got.field(field.name).type != field.type
    ]


def _check_ids(got: pa.ChunkedArray, given: pa.Array, where: str) -> None:
    n_new = pc.sum(pc.invert(pc.is_in(got, value_set=given)), min_count=0).as_py()
    n_twice = len(got) - pc.count_distinct(got).as_py()
    faults = [(n_new, "not in its batch"), (n_twice, "returned already")]
    messages = [f"{number} {what}" for number, what in faults if number]
    if messages:
        raise DataError(
            f"the function returned tickets that were {', '.join(messages)}",
            code="TG0260",
            where=where,
            hint="return each ticket of the batch at most once, with its own ticket_id",
        )


def _changed(before: pa.RecordBatch, after: pa.Table) -> int:
    """Count the rows that were returned with another value."""
    places = pc.index_in(after["ticket_id"], value_set=before["ticket_id"])
    same_rows = pa.Table.from_batches([before]).take(places)
    differs = pa.chunked_array([pa.repeat(pa.scalar(False), after.num_rows)])
    for name in before.schema.names:
        one, two = same_rows[name], after[name]
        unequal = pc.fill_null(pc.not_equal(one, two), pc.xor(pc.is_null(one), pc.is_null(two)))
        differs = pc.or_(differs, unequal)
    return int(pc.sum(differs, min_count=0).as_py())


def _not_a_batch(message: str, where: str) -> DataError:
    return DataError(
        message,
        code="TG0260",
        where=where,
        hint="return a pyarrow RecordBatch or Table with the columns of the given one; `.cast(batch.schema)` helps",
    )
