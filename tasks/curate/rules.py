"""Drop tickets by named rules, each one SQL predicate over the ticket columns.

Rules that stand next to each other in pipelines.yaml are one step: one pass over the rows. What a predicate may hold
is decided in `tasks/curate/sql/predicate.py`. Called by `flows/curate.py`.
"""

from __future__ import annotations

from pathlib import Path

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import RuleStep
from schemas.errors import ConfigError


def apply_rules(*, tickets: TicketTable, rules: tuple[RuleStep, ...], out: Path) -> TicketTable:
    """Keep the rows for which every rule is TRUE; the first rule that is FALSE or NULL takes the row.

    A rule sees only the rows that the rules before it kept, so an earlier rule may guard a later one. Removed rows
    carry the rule's name and its predicate. Notes: `dropped_<rule>` per rule.

    Raises:
        ConfigError: a rule does not parse, names an unknown column, is no condition, or fails on a row.
        SecurityError: a rule reaches beyond its row.
    """
    import duckdb

    from tasks.curate.rows import write_removed, write_tickets
    from tasks.curate.sql.predicate import check_predicate
    from tasks.warehouse import connect, quote_text

    predicates = [check_predicate(rule.keep, where=f"curate.rule.{rule.name}") for rule in rules]
    notes: dict[str, int] = {}
    with connect(readable=(tickets.tickets,)) as connection:
        source = f"read_parquet({quote_text(str(tickets.tickets))})"
        connection.execute(f"CREATE TEMP TABLE tickets AS SELECT *, NULL::INTEGER AS failed FROM {source}").fetchall()
        for place, (rule, predicate) in enumerate(zip(rules, predicates, strict=True)):
            # CASE, and not AND alone: rows that an earlier rule took must not reach this predicate.
            fails = f"CASE WHEN failed IS NULL THEN ({predicate}) IS NOT TRUE ELSE FALSE END"
            try:
                changed = connection.execute(f"UPDATE tickets SET failed = {place} WHERE {fails}").fetchall()
            except duckdb.Error as error:
                # The message itself may quote a ticket.
                raise ConfigError(
                    f"the rule fails on a row: {type(error).__name__} in `{rule.keep}`",
                    code="TG0124",
                    where=f"curate.rule.{rule.name}",
                    hint="use try_cast and coalesce for values that are not always there",
                ) from None
            notes[f"dropped_{rule.name}"] = notes.get(f"dropped_{rule.name}", 0) + int(changed[0][0])
        kept = connection.sql("SELECT * EXCLUDE (failed) FROM tickets WHERE failed IS NULL").to_arrow_table()
        dropped = connection.sql(
            "SELECT ticket_id, source, source_line, failed FROM tickets WHERE failed IS NOT NULL ORDER BY ticket_id"
        ).fetchall()
    n_out = write_tickets(kept, out)
    n_dropped = write_removed(
        [
            {
                "ticket_id": ticket_id,
                "outcome": "dropped",
                "code": rules[place].name,
                "reason": f"not ({rules[place].keep})",
                "source": source_name,
                "source_line": source_line,
            }
            for ticket_id, source_name, source_line, place in dropped
        ],
        out,
    )
    rows = RowCounts(n_in=n_out + n_dropped, n_out=n_out, n_dropped=n_dropped)
    return TicketTable(root=out, rows=rows, notes=notes)
