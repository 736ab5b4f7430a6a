"""Run a user's SELECT over the tickets: rows it leaves out are dropped under the step's name, changes are kept.

`tasks/curate/sql/select_sql.py` decides what the statement may contain.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import TicketTable
from schemas.curation_steps import SqlStep
from schemas.errors import ConfigError
from schemas.named_tables import NamedTables
from schemas.tables import TICKETS
from tasks.curate.drop import write_step
from tasks.curate.named_tables import columns_of, read_tables, register_tables
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.sql.select_sql import advise_on_select, check_select, read_text
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.storage.warehouse import connect, in_bounds, quote_identifier, quote_text

if TYPE_CHECKING:
    import duckdb

FAILS = "TG0124"
"""The statement fails on a row."""


@curation_step(
    SqlStep,
    arguments=lambda step, root: {"select": _read_select(step, root)},
    check=lambda step, root, where, tables: check_select(
        _read_select(step, root), where=f"{where}.sql.{step.name}: {step.file}", tables=tables
    ),
    sql=lambda step, root: _read_select(step, root),
    advise=lambda step, root: advise_on_select(_read_select(step, root)),
)
@as_step("sql", libraries=("duckdb", "pyarrow", "sqlglot"), context=("root",))
def select_tickets(
    out: Path,
    *,
    tickets: TicketTable,
    step: SqlStep,
    select: str,
    tables: NamedTables = (),
    root: Path = Path(),
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Keep the rows that `select` returns, as it returns them.

    The statement sees the named tables and the relation `tickets` in the order of ticket_id, on one thread, so that
    what SQL leaves open (a LIMIT without an order, `first()`, ties) is the same in each run. Rows on which it fails (a
    cast of text that is not a number, say) are quarantined, and it runs again on the others. Notes: `dropped_<name>`,
    `changed_rows` (rows kept with another value in some column).

    Args:
        select: Text of the step's file.
        tables: Named tables that it may read.
        root: Folder of pipelines.yaml, for their files.

    Raises:
        ConfigError: TG0125, it does not parse, DuckDB rejects it, its columns are not those of a ticket, or it returns
            unknown or repeated ids; TG0124, it fails on every row, or only on several together.
        DataError: TG0220, it fails on more rows than `limit` allows.
        SecurityError: TG0811, it is not exactly one SELECT, or reads something other than `tickets`; TG0837, it takes
            too long or too much memory.
    """
    return keep_sound_rows(
        lambda rows, folder: _select_tickets(rows, step, select, folder, tables, root),
        tickets,
        step=step.name,
        out=out,
        codes=(FAILS,),
        limit=limit,
    )


def _select_tickets(
    tickets: TicketTable, step: SqlStep, select: str, out: Path, tables: NamedTables, root: Path
) -> TicketTable:
    import duckdb

    where = f"curate.sql.{step.name}: {step.file}"
    named = read_tables(tables, root)
    checked = check_select(select, where=where, tables=columns_of(named))
    names = [quote_identifier(column.name) for column in TICKETS]
    with connect(readable=(tickets.tickets,), threads=1) as connection:
        connection.execute(
            f"CREATE TABLE tickets AS SELECT {', '.join(names)} FROM read_parquet("
            f"{quote_text(str(tickets.tickets))}) ORDER BY ticket_id, source, source_line"
        ).fetchall()
        register_tables(connection, named)
        try:
            made = f"CREATE TABLE selected AS SELECT {', '.join(names)} FROM ({checked})"
            in_bounds(connection, lambda: connection.execute(made).fetchall(), where=where)
        except duckdb.Error as error:
            # DuckDB's message may quote a ticket.
            raise ConfigError(
                f"the SELECT fails on a row: {type(error).__name__}",
                code="TG0124",
                where=where,
                hint="use try_cast and coalesce for values that may be missing or malformed",
            ) from None
        _check_ids(connection, where)
        changed = " OR ".join(f"s.{name} IS DISTINCT FROM t.{name}" for name in names)
        n_changed = connection.execute(
            f"SELECT count(*) FROM selected s JOIN tickets t USING (ticket_id) WHERE {changed}"
        ).fetchall()[0][0]
        kept = connection.sql("SELECT * FROM selected").to_arrow_table()
        removed = connection.sql(
            f"SELECT ticket_id, 'dropped' AS outcome, {quote_text(step.name)} AS code, "
            f"'the step''s SELECT leaves it out' AS reason, source, source_line "
            "FROM tickets WHERE ticket_id NOT IN (SELECT ticket_id FROM selected)"
        ).to_arrow_table()
    return write_step(kept, removed, out=out, notes={"changed_rows": n_changed}, possible=(step.name,))


def _check_ids(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """Check that each returned row is an input row, once: a step can drop tickets, not create any."""
    required = " OR ".join(f"{column.name} IS NULL" for column in TICKETS if not column.nullable)
    n_null, n_new, n_twice = connection.execute(
        f"SELECT count(*) FILTER ({required}), "
        "count(*) FILTER (ticket_id IS NOT NULL AND ticket_id NOT IN (SELECT ticket_id FROM tickets)), "
        "count(ticket_id) - count(DISTINCT ticket_id) FROM selected"
    ).fetchall()[0]
    faults = [
        (n_null, "rows without ticket_id, source or source_line"),
        (n_new, "rows with an unknown ticket_id"),
        (n_twice, "rows with a repeated ticket_id"),
    ]
    messages = [f"{number} {what}" for number, what in faults if number]
    if messages:
        raise ConfigError(
            f"the SELECT returns {', '.join(messages)}",
            code="TG0125",
            where=where,
            hint="return each ticket at most once, with its own ticket_id; a join may have multiplied rows",
        )


def _read_select(step: SqlStep, root: Path) -> str:
    return read_text(step.file, root, where=f"curate.sql.{step.name}")
