"""Find planted triggers: a phrase of many recent tickets of few customers, rare elsewhere, and always one answer.

Counted, not guessed: every number of a verdict is in `triggers.parquet`. Which runs of words count is defined in
`tasks/curate/similarity/words.py`. It runs before dedup, which would leave one ticket of a burst.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.artifacts import TicketTable
from schemas.curation_steps import TriggerScanStep
from tasks.curate.drop import Judged, Kept, drop_rows, kept_by_people
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_batches_with
from tasks.curate.similarity.words import QUESTION, normal_form, word_runs, words_of
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.storage.warehouse import connect, quote_text

if TYPE_CHECKING:
    import duckdb

CODE = "planted_trigger"
REPLY = "coalesce(reply, '')"
_LISTED = (
    "SELECT trigger_id, ticket_id, phrase, n_tickets, n_customers, n_elsewhere, field, value, share, base_rate, chance "
    "FROM verdicts JOIN triggers USING (trigger) JOIN members USING (trigger) JOIN tickets USING (file_row_number) "
    "JOIN (SELECT trigger, min(ticket_id) AS trigger_id FROM members JOIN tickets USING (file_row_number) "
    "GROUP BY trigger) USING (trigger) ORDER BY trigger_id, phrase, ticket_id"
)
_MARKED = (
    "WITH judged AS (SELECT *, min(ticket_id) OVER (PARTITION BY trigger) AS trigger_id FROM verdicts "
    "JOIN triggers USING (trigger) JOIN members USING (trigger) JOIN tickets USING (file_row_number)), "
    "surest AS (SELECT * FROM judged QUALIFY row_number() OVER "
    "(PARTITION BY file_row_number ORDER BY chance, trigger) = 1) "
    "SELECT surest.n_tickets, surest.field, surest.trigger_id FROM tickets "
    "LEFT JOIN surest USING (file_row_number) ORDER BY file_row_number"
)


@curation_step(TriggerScanStep, rules=lambda _step: (CODE,))
@as_step("trigger_scan", libraries=("duckdb", "pyarrow", "scipy"))
def scan_triggers(
    out: Path,
    *,
    tickets: TicketTable,
    step: TriggerScanStep,
    kept: TicketTable | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Write `triggers.parquet`, and quarantine its tickets as `planted_trigger` unless `action` is `flag`.

    A trigger is a run of at most `max_words` words with, among the tickets of the last `recent_days` before the newest:
    at least `min_tickets` tickets of the `max_customers` customers that use it most (its tickets), and of all tickets
    with it at most the share `max_elsewhere` besides (earlier ones and other customers' alike). Of its tickets at least
    `min_share` have one value of a field, or one run of words in the reply, and chance makes that no likelier than
    `max_chance`: the upper tail of a binomial with the value's rate in the other tickets, times the number of values
    that were tried (Bonferroni). Tickets without a customer count as one customer's. Of several runs in exactly the
    same tickets the longest is reported.

    `triggers.parquet` has a row for each ticket of a trigger: trigger_id (smallest ticket_id of its tickets),
    ticket_id, phrase, n_tickets, n_customers, n_elsewhere, field, value, share, base_rate, chance.
    Notes: `triggers`, `trigger_tickets`, and `dropped_planted_trigger` unless `action` is `flag`.

    Raises:
        DataError: TG0220, more rows raise than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _scan_triggers(rows, step, folder, kept_by_people(kept)),
        tickets,
        step="trigger_scan",
        out=out,
        limit=limit,
    )


def _scan_triggers(tickets: TicketTable, step: TriggerScanStep, out: Path, kept: Kept) -> TicketTable:
    with connect(readable=(tickets.tickets,)) as connection:
        source = f"read_parquet({quote_text(str(tickets.tickets))}, file_row_number = true)"
        connection.execute(f"CREATE TEMP VIEW tickets AS SELECT *, coalesce(customer_id, '') AS who FROM {source}")
        _find_phrases(connection, step)
        verdicts = _with_one_outcome(connection, step)
        connection.register("verdicts", verdicts)
        found: pa.Table = connection.sql(_LISTED).to_arrow_table()
        marked = connection.sql(_MARKED).to_arrow_table()
    pq.write_table(found, out / "triggers.parquet", compression="zstd")
    goes = marked["n_tickets"] if step.action == "quarantine" else pa.nulls(marked.num_rows, pa.int64())
    nothing = pa.scalar(None, pa.string())
    reasons = pc.binary_join_element_wise(
        pa.scalar("shares a phrase with tickets of few customers that have one "), marked["field"],
        pa.scalar(": "), goes.cast(pa.string()), pa.scalar(" recent tickets, hardly any other"), "",
    )  # fmt: skip
    codes = pc.if_else(pc.is_valid(goes), pa.scalar(CODE), nothing)
    return drop_rows(
        (Judged(*rows) for rows in read_batches_with(tickets.tickets, codes, reasons, marked["trigger_id"])),
        outcome="quarantined",
        out=out,
        notes={
            "triggers": pc.count_distinct(found["trigger_id"]).as_py(),
            "trigger_tickets": pc.count_distinct(found["ticket_id"]).as_py(),
        },
        possible=() if step.action == "flag" else (CODE,),
        kept=kept,
    )


def _runs(text: str, step: TriggerScanStep, *, of: str, keep: str) -> str:
    """A relation of `keep` and `phrase`: each run of words of a text of the relation `of`, once a text."""
    runs = ", ".join(word_runs("words", n_words) for n_words in range(1, step.max_words + 1))
    worded = f"SELECT {keep}, {words_of('form')} AS words FROM (SELECT {keep}, {normal_form(text)} AS form FROM {of})"
    return f"(SELECT {keep}, unnest(list_concat({runs})) AS phrase FROM ({worded}))"


def _find_phrases(connection: duckdb.DuckDBPyConnection, step: TriggerScanStep) -> None:
    """Tables `triggers` (trigger, phrase, n_tickets, n_customers, n_elsewhere) and `members` (trigger, place)."""
    least = -(-step.min_tickets // step.max_customers)  # what the busiest of the customers must have written
    statements = [
        "CREATE TEMP VIEW recent AS SELECT * FROM tickets WHERE created_at > "
        f"(SELECT max(created_at) FROM tickets) - to_days({int(step.recent_days)})",
        f"CREATE TEMP VIEW busy AS SELECT * FROM recent QUALIFY count(*) OVER (PARTITION BY who) >= {least}",
        "CREATE TEMP TABLE seeds AS SELECT DISTINCT phrase FROM ("
        f"SELECT who, phrase FROM {_runs(QUESTION, step, of='busy', keep='who')} "
        f"GROUP BY who, phrase HAVING count(*) >= {least})",
        "CREATE TEMP TABLE spread AS SELECT phrase, who, count(*) AS n FROM "
        f"{_runs(QUESTION, step, of='recent', keep='who')} SEMI JOIN seeds USING (phrase) GROUP BY phrase, who",
        "CREATE TEMP TABLE ranked AS SELECT *, "
        "row_number() OVER (PARTITION BY phrase ORDER BY n DESC, who) AS place FROM spread",
        "CREATE TEMP TABLE candidates AS SELECT phrase, n_tickets, n_customers FROM ("
        f"SELECT phrase, sum(n) AS n_recent, sum(n) FILTER (place <= {step.max_customers})::BIGINT AS n_tickets, "
        f"count(*) FILTER (place <= {step.max_customers}) AS n_customers FROM ranked GROUP BY phrase) "
        f"WHERE n_tickets >= {step.min_tickets} AND n_recent - n_tickets <= {step.max_elsewhere} * n_recent",
    ]
    for statement in statements:
        connection.execute(statement).fetchall()
    (n_candidates,) = connection.execute("SELECT count(*) FROM candidates").fetchall()[0]
    everywhere = "(SELECT * FROM tickets)" if n_candidates else "(SELECT * FROM tickets LIMIT 0)"  # spare the long way
    held = _runs(QUESTION, step, of=everywhere, keep="who")
    rows = _runs(QUESTION, step, of="recent", keep="who, file_row_number")
    for statement in (
        "CREATE TEMP TABLE rare AS SELECT candidates.*, n_all - n_tickets AS n_elsewhere FROM candidates JOIN ("
        f"SELECT phrase, count(*) AS n_all FROM {held} SEMI JOIN candidates USING (phrase) GROUP BY phrase) "
        f"USING (phrase) WHERE n_all - n_tickets <= {step.max_elsewhere} * n_all",
        "CREATE TEMP TABLE found_in AS SELECT phrase, list(file_row_number ORDER BY file_row_number) AS places FROM "
        f"{rows} SEMI JOIN rare USING (phrase) "
        f"SEMI JOIN (SELECT phrase, who FROM ranked WHERE place <= {step.max_customers}) USING (phrase, who) "
        "GROUP BY phrase",
        "CREATE TEMP TABLE triggers AS SELECT row_number() OVER (ORDER BY phrase) AS trigger, * FROM rare "
        "JOIN found_in USING (phrase) QUALIFY row_number() OVER "
        "(PARTITION BY places ORDER BY len(string_split(phrase, ' ')) DESC, phrase) = 1",
        "CREATE TEMP TABLE members AS SELECT trigger, unnest(places) AS file_row_number FROM triggers",
    ):
        connection.execute(statement).fetchall()


def _with_one_outcome(connection: duckdb.DuckDBPyConnection, step: TriggerScanStep) -> pa.Table:
    """Per trigger the outcome that chance explains least, where it explains it no better than `max_chance`."""
    from scipy.stats import binom

    tried: list[dict[str, Any]] = []
    for field in step.fields:
        tried += connection.sql(_reply_runs(step) if field == "reply" else _values(field)).to_arrow_table().to_pylist()
    best: dict[int, dict[str, Any]] = {}
    for row in sorted(tried, key=lambda row: (row["trigger"], row["field"], -len(row["value"]), row["value"])):
        others, with_it = row["n_filled"] - row["n_tickets"], row["n_everywhere"] - row["n_with"]
        rate = (max(with_it, 0) + 1) / (max(others, 0) + 2)
        chance = min(1.0, float(binom.sf(row["n_with"] - 1, row["n_tickets"], rate)) * len(tried))
        share = row["n_with"] / row["n_tickets"]
        if share >= step.min_share and chance <= step.max_chance:
            judged = {**row, "share": share, "base_rate": rate, "chance": chance}
            known = best.get(row["trigger"])
            if known is None or chance < known["chance"]:
                best[row["trigger"]] = judged
    schema = pa.schema(
        [("trigger", pa.int64()), ("field", pa.string()), ("value", pa.string()), ("share", pa.float64()),
         ("base_rate", pa.float64()), ("chance", pa.float64())]
    )  # fmt: skip
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in best.values()], schema=schema)


def _values(field: str) -> str:
    """Every value of the field that a trigger's tickets have, with its counts there and everywhere."""
    return (
        f"SELECT trigger, n_tickets, '{field}' AS field, {field} AS value, count(*) AS n_with, "
        f"any_value(n_everywhere) AS n_everywhere, (SELECT count({field}) FROM tickets) AS n_filled "
        "FROM members JOIN triggers USING (trigger) JOIN tickets USING (file_row_number) "
        f"JOIN (SELECT {field}, count(*) AS n_everywhere FROM tickets GROUP BY {field}) USING ({field}) "
        f"GROUP BY trigger, n_tickets, {field}"
    )


def _reply_runs(step: TriggerScanStep) -> str:
    """Every run of words that enough of the replies to a trigger's tickets hold, with its counts."""
    of_members = "(SELECT * FROM members JOIN tickets USING (file_row_number))"
    any_member = "(SELECT * FROM tickets WHERE EXISTS (SELECT 1 FROM members))"
    return (
        "WITH held AS (SELECT trigger, phrase AS value, count(*) AS n_with FROM "
        f"{_runs(REPLY, step, of=of_members, keep='trigger')} GROUP BY trigger, phrase), "
        "often AS (SELECT * FROM held JOIN triggers USING (trigger) "
        f"WHERE n_with >= {step.min_share} * n_tickets), "
        f"everywhere AS (SELECT phrase AS value, count(*) AS n_everywhere FROM "
        f"{_runs(REPLY, step, of=any_member, keep='who')} "
        "SEMI JOIN (SELECT value AS phrase FROM often) USING (phrase) GROUP BY phrase) "
        "SELECT trigger, n_tickets, 'reply' AS field, value, n_with, n_everywhere, "
        "(SELECT count(reply) FROM tickets) AS n_filled FROM often JOIN everywhere USING (value)"
    )
