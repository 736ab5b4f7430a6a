"""Drop tickets by named rules, each one SQL predicate over the ticket columns.

Consecutive rules of pipelines.yaml are one step: one pass over the rows. `tasks/curate/sql/predicate.py` decides what
a predicate may contain.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from schemas.artifacts import TicketTable
from schemas.curation_steps import RuleStep
from schemas.errors import ConfigError
from schemas.named_tables import NamedTables
from tasks.curate.drop import Judged, Kept, drop_rows, kept_by_people
from tasks.curate.named_tables import Read, columns_of, read_tables, register_tables
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_batches, read_batches_with
from tasks.curate.sql.predicate import advise_on_predicate, check_predicate
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.storage.warehouse import connect, in_bounds, quote_text
from tasks.tickets.row_fault import find_faulty

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger("tunegate.curate")
FAILS = "TG0124"
"""A rule fails on a row."""


@curation_step(
    RuleStep,
    joined="rules",
    check=lambda step, _root, where, tables: check_predicate(
        step.keep, where=f"{where}.rule.{step.name}", tables=tables
    ),
    sql=lambda step, _root: step.keep,
    rules=lambda step: (step.name,),
    advise=lambda step, _root: _advise_on_rule(step),
)
@as_step("rules", libraries=("duckdb", "pyarrow", "sqlglot"), context=("root",))
def apply_rules(
    out: Path,
    *,
    tickets: TicketTable,
    rules: tuple[RuleStep, ...],
    tables: NamedTables = (),
    root: Path = Path(),
    kept: TicketTable | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Keep the rows for which every rule is TRUE; the first rule that is FALSE or NULL drops the row.

    A rule sees only the rows that the rules before it kept, so an earlier rule may guard a later one. Removed rows
    carry the rule's name and its predicate. A row on which a rule fails (a cast of text that is not a number, say) is
    quarantined. Notes: `dropped_<rule>` per rule.

    Args:
        tables: Named tables that subqueries of the rules may read.
        root: Folder of pipelines.yaml, for their files.
        kept: Result of the step `corrections`, for the tickets that a rule does not drop.

    Raises:
        ConfigError: a rule does not parse, names an unknown column, is not a condition, or fails on every row.
        DataError: TG0220, rules fail on more rows than `limit` allows.
        SecurityError: a rule reaches beyond its row, or TG0837, takes too long or too much memory.
    """
    people = kept_by_people(kept)
    return keep_sound_rows(
        lambda rows, folder: _apply_rules(rows, rules, folder, tables, root, people),
        tickets,
        step="rules",
        out=out,
        codes=(FAILS,),
        limit=limit,
        search=lambda rows: _faulty_rows(rows.tickets, rules, tables, root, people),
    )


def _apply_rules(
    tickets: TicketTable, rules: tuple[RuleStep, ...], out: Path, tables: NamedTables, root: Path, kept: Kept
) -> TicketTable:
    named = read_tables(tables, root)
    predicates = _checked(rules, named, kept)
    for rule in rules:
        for sentence in _advise_on_rule(rule):
            log.warning("curate.rule.%s: %s", rule.name, sentence)
    with connect(readable=(tickets.tickets,)) as connection:
        source = f"read_parquet({quote_text(str(tickets.tickets))})"
        connection.execute(f"CREATE TEMP VIEW tickets AS SELECT * FROM {source}").fetchall()
        register_tables(connection, named)
        failed = _first_failed(connection, rules, predicates)
    names = pa.array([rule.name for rule in rules], pa.string())
    reasons = pa.array([f"not ({rule.keep})" for rule in rules], pa.string())
    judged = (
        Judged(batch, codes=pc.take(names, rules), reasons=pc.take(reasons, rules))
        for batch, rules in read_batches_with(tickets.tickets, failed)
    )
    return drop_rows(judged, out=out, notes={}, possible=names.to_pylist())


def _checked(rules: Sequence[RuleStep], named: Read, kept: Kept) -> list[str]:
    columns, found = columns_of(named), []
    for rule in rules:
        predicate = check_predicate(rule.keep, where=f"curate.rule.{rule.name}", tables=columns)
        ids = ", ".join(map(quote_text, kept[rule.name].to_pylist())) if rule.name in kept else ""
        found.append(f"({predicate}) IS TRUE OR ticket_id IN ({ids})" if ids else predicate)
    return found


def _faulty_rows(
    path: Path, rules: Sequence[RuleStep], tables: NamedTables, root: Path, kept: Kept
) -> Iterator[tuple[int, Exception]]:
    """Yield the rows on which a rule fails, with the error."""
    named = read_tables(tables, root)
    predicates = _checked(rules, named, kept)
    start = 0
    with connect(threads=1) as connection:
        register_tables(connection, named)
        for group in read_batches(path):

            def work(low: int, high: int, group: pa.Table = group) -> None:
                connection.register("tickets", group.slice(low, high - low))
                _first_failed(connection, rules, predicates)

            for row, error in find_faulty(work, 0, group.num_rows, (FAILS,)):
                yield start + row, error
            start += group.num_rows


def _first_failed(
    connection: duckdb.DuckDBPyConnection, rules: Sequence[RuleStep], predicates: Sequence[str]
) -> pa.ChunkedArray:
    """Return for each ticket the index of the first rule that does not hold, or null; one pass in the file's order."""
    import duckdb

    # CASE, not AND: rows that an earlier rule dropped must not reach a later predicate.
    cases = [f"WHEN ({predicate}) IS NOT TRUE THEN {place}" for place, predicate in enumerate(predicates)]

    def run(select: str) -> pa.ChunkedArray:
        return in_bounds(connection, lambda: connection.sql(select).to_arrow_table().column(0), where="curate.rule")

    try:
        return run(f"SELECT CASE {' '.join(cases)} END FROM tickets")
    except duckdb.Error as failure:
        # DuckDB does not say which rule failed: try them with those before them until one fails.
        for place, rule in enumerate(rules):
            try:
                run(f"SELECT count(CASE {' '.join(cases[: place + 1])} END) FROM tickets")
            except duckdb.Error as error:
                # DuckDB's message may quote a ticket.
                raise ConfigError(
                    f"the rule fails on a row: {type(error).__name__} in `{rule.keep}`",
                    code="TG0124",
                    where=f"curate.rule.{rule.name}",
                    hint="use try_cast and coalesce for values that may be missing or malformed",
                ) from None
        raise failure


def _advise_on_rule(step: RuleStep) -> list[str]:
    return advise_on_predicate(step.keep)
