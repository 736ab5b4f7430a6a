"""Learn from feedback: an agent's edited text replaces the ticket's reply; accepted suggestions may be dropped.

Runs after redaction, so that texts and ids match the feedback, which was redacted when it was ingested.
"""

from pathlib import Path

import pyarrow as pa

from schemas.artifacts import RowCounts, TicketTable
from schemas.feedback import FeedbackSpec
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_rows, write_removed, write_tickets
from tasks.monitor.feedback import latest_decisions
from tasks.step import as_step

OWN_ANSWER = "own_answer"


@as_step("feedback", libraries=("duckdb", "pyarrow"), context=("database",))
def learn_from_feedback(
    out: Path, *, tickets: TicketTable, spec: FeedbackSpec, upto: int, database: Path, limit: FaultLimit | None = None
) -> TicketTable:
    """Insert the edited replies. Notes: `edited` counts them, `own_answers` the accepted suggestions.

    Args:
        upto: The last row of the feedback to use; later rows belong to a later run.
        database: `feedback.duckdb`.

    Raises:
        DataError: TG0220, more rows fail than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _learn(rows, spec, upto, database, folder), tickets, step="feedback", out=out, limit=limit
    )


def _learn(tickets: TicketTable, spec: FeedbackSpec, upto: int, database: Path, out: Path) -> TicketTable:
    table = read_rows(tickets.tickets)
    decisions = latest_decisions(database, upto=upto)
    ids, replies = table.column("ticket_id").to_pylist(), table.column("reply").to_pylist()
    edited = {
        id_: decisions[id_][1]
        for id_ in ids
        if id_ in decisions and decisions[id_][0] == "edited" and decisions[id_][1]
    }
    own = {id_ for id_ in ids if id_ in decisions and decisions[id_][0] == "accepted"}
    if spec.learn and edited:
        place = table.schema.get_field_index("reply")
        values = [edited.get(id_, reply) for id_, reply in zip(ids, replies, strict=True)]
        table = table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
    gone = own if spec.own_answers == "drop" else set()
    removed = [
        {
            "ticket_id": row["ticket_id"], "outcome": "dropped", "code": OWN_ANSWER, "source": row["source"],
            "source_line": row["source_line"], "reason": "Its reply is a suggestion that was accepted unchanged.",
        }
        for row in table.select(["ticket_id", "source", "source_line"]).to_pylist()
        if row["ticket_id"] in gone
    ]  # fmt: skip
    kept = table.filter(pa.array([id_ not in gone for id_ in ids], pa.bool_()))
    n_out = write_tickets(kept, out)
    write_removed(removed, out)
    notes = {"edited": len(edited) if spec.learn else 0, "own_answers": len(own)}
    return TicketTable(root=out, rows=RowCounts(n_in=len(ids), n_out=n_out, n_dropped=len(removed)), notes=notes)
