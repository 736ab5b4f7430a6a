"""Find equal or nearly equal questions whose tickets contradict each other in category, priority or answer.

Which questions are alike is computed in `tasks/curate/similarity/`. Called by `flows/curate.py`, before dedup, which
leaves one ticket of each question; heavy imports are inside functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schemas.artifacts import TicketTable
from schemas.curation_steps import LabelCheckStep
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.similarity.words import QUESTION, normal_form
from tasks.curate.step import curation_step
from tasks.step import as_step

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from tasks.curate.drop import Judged

WHERE = "curate.label_check"
CODE = "label_conflict"
SHINGLE_WORDS = 3
"""Words of a shingle, as in dedup's default."""


@curation_step(LabelCheckStep)
@as_step("label_check", libraries=("duckdb", "pyarrow", "numba", "numpy"))
def check_labels(
    out: Path, *, tickets: TicketTable, step: LabelCheckStep, limit: FaultLimit | None = None
) -> TicketTable:
    """Fill `label_conflict`, write `conflicts.parquet`, and drop what `action` says as `label_conflict`.

    A family are the tickets of one question: equal in normal form and, with a threshold under 1, connected by pairs
    with J >= threshold. `label_conflict` is the number of tickets of the family with another value of `field`; 0
    where all agree, where the ticket has no value, and where it asks nothing. Answers are compared in normal form.
    `drop_minority` keeps the value of most tickets of a contradicting family, or none when two lead; `drop_all` keeps
    none. A ticket without a value contradicts nobody and stays.

    `conflicts.parquet`: family_id (smallest ticket_id of the family), ticket_id, field, value (of an answer the
    sha256 of its normal form: no text), n_family (tickets of the family with a value), for every ticket of a
    contradicting family that has a value.
    Notes: `conflicting_families`, `conflicting_tickets`, and `dropped_label_conflict` unless `action` is `flag`.

    Raises:
        DataError: TG0250, too many nearly repeated questions to compare; TG0220, more rows raise than `limit` allows.
    """
    return keep_sound_rows(
        lambda rows, folder: _check_labels(rows, step, folder), tickets, step="label_check", out=out, limit=limit
    )


def _check_labels(tickets: TicketTable, step: LabelCheckStep, out: Path) -> TicketTable:
    from tasks.curate.drop import drop_rows
    from tasks.curate.rows import read_beside
    from tasks.warehouse import connect, quote_text

    with connect(readable=(tickets.tickets,)) as connection:
        source = f"read_parquet({quote_text(str(tickets.tickets))}, file_row_number = true)"
        connection.execute(f"CREATE TEMP VIEW tickets AS SELECT * FROM {source}").fetchall()
        _find_families(connection, step)
        _compare(connection, step)
        judged = connection.sql(
            "SELECT family_id, label_conflict, goes, n_family FROM judged ORDER BY file_row_number"
        ).to_arrow_table()
        _write_conflicts(connection, step, out)
        n_families, n_tickets = connection.execute(
            "SELECT count(DISTINCT family_id), count(*) FROM judged WHERE label_conflict > 0"
        ).fetchall()[0]
    return drop_rows(
        (_judge(batch, rows, step) for batch, rows in read_beside(tickets.tickets, judged)),
        out=out,
        notes={"conflicting_families": n_families, "conflicting_tickets": n_tickets},
        possible=() if step.action == "flag" else (CODE,),
    )


def _judge(batch: pa.Table, judged: pa.Table, step: LabelCheckStep) -> Judged:
    import pyarrow as pa
    import pyarrow.compute as pc

    from tasks.curate.drop import Judged

    place = batch.schema.get_field_index("label_conflict")
    batch = batch.set_column(place, batch.schema.field(place), judged["label_conflict"])
    nothing = pa.scalar(None, pa.string())
    told = pc.binary_join_element_wise(
        pa.scalar(f"tickets of this question with another {step.field}: "),
        judged["label_conflict"].cast(pa.string()),
        pa.scalar(" of "),
        judged["n_family"].cast(pa.string()),
        "",
    )
    codes = pc.if_else(judged["goes"], pa.scalar(CODE), nothing)
    return Judged(batch, codes, pc.if_else(judged["goes"], told, nothing), cluster_ids=judged["family_id"])


def _find_families(connection: duckdb.DuckDBPyConnection, step: LabelCheckStep) -> None:
    """Table `families`: file_row_number, family (a number; null where the ticket asks nothing)."""
    import numpy as np
    import pyarrow as pa
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from tasks.curate.similarity.join import similar_pairs

    connection.execute(
        f"CREATE TEMP TABLE asked AS SELECT file_row_number, {normal_form(QUESTION)} AS form FROM tickets"
    ).fetchall()
    connection.execute(
        "CREATE TEMP TABLE forms AS SELECT form, row_number() OVER (ORDER BY form) - 1 AS number "
        "FROM (SELECT DISTINCT form FROM asked WHERE form <> '')"
    ).fetchall()
    forms = connection.sql("SELECT form FROM forms ORDER BY number").to_arrow_table()["form"]
    family = np.arange(len(forms))
    if step.threshold < 1 and len(forms):
        pairs = similar_pairs(forms, n_words=SHINGLE_WORDS, threshold=step.threshold, where=WHERE)
        edges = coo_array((np.ones(len(pairs.left), np.int8), (pairs.left, pairs.right)), shape=(len(forms),) * 2)
        family = connected_components(edges, directed=False)[1]
    connection.register("found", pa.table({"number": np.arange(len(forms)), "family": family.astype(np.int64)}))
    connection.execute(
        "CREATE TEMP TABLE families AS SELECT file_row_number, family "
        "FROM asked LEFT JOIN forms USING (form) LEFT JOIN found USING (number)"
    ).fetchall()
    connection.unregister("found")


def _compare(connection: duckdb.DuckDBPyConnection, step: LabelCheckStep) -> None:
    """Table `judged`: per ticket its family, value, how many of the family say otherwise, and whether it goes."""
    value = f"sha256(nullif({normal_form('reply')}, ''))" if step.field == "reply" else step.field
    goes = {
        "flag": "false",
        "drop_minority": "NOT (n_same = n_most AND n_leading = 1)",
        "drop_all": "true",
    }[step.action]
    connection.execute(
        "CREATE TEMP TABLE judged AS WITH members AS ("
        f"SELECT file_row_number, ticket_id, family, {value} AS value "
        "FROM tickets JOIN families USING (file_row_number)), "
        "named AS (SELECT *, min(ticket_id) OVER (PARTITION BY family) AS smallest FROM members), "
        "labels AS (SELECT family, value, count(*) AS n_same FROM members "
        "WHERE family IS NOT NULL AND value IS NOT NULL GROUP BY ALL), "
        "totals AS (SELECT family, sum(n_same) AS n_family, max(n_same) AS n_most FROM labels GROUP BY family), "
        "leads AS (SELECT family, count(*) AS n_leading FROM labels JOIN totals USING (family) "
        "WHERE n_same = n_most GROUP BY family) "
        "SELECT file_row_number, ticket_id, value, if(family IS NULL, NULL, smallest) AS family_id, "
        "coalesce(n_family - n_same, 0)::BIGINT AS label_conflict, n_family::BIGINT AS n_family, "
        f"coalesce(n_family - n_same, 0) > 0 AND {goes} AS goes "
        "FROM named LEFT JOIN labels USING (family, value) LEFT JOIN totals USING (family) "
        "LEFT JOIN leads USING (family)"
    ).fetchall()


def _write_conflicts(connection: duckdb.DuckDBPyConnection, step: LabelCheckStep, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.warehouse import quote_text

    schema = pa.schema(
        [
            pa.field("family_id", pa.string(), nullable=False),
            pa.field("ticket_id", pa.string(), nullable=False),
            pa.field("field", pa.string(), nullable=False),
            pa.field("value", pa.string(), nullable=False),
            pa.field("n_family", pa.int64(), nullable=False),
        ]
    )
    table: pa.Table = connection.sql(
        f"SELECT family_id, ticket_id, {quote_text(step.field)} AS field, value, n_family FROM judged "
        "WHERE label_conflict > 0 ORDER BY family_id, ticket_id"
    ).to_arrow_table()
    pq.write_table(table.cast(schema), out / "conflicts.parquet", compression="zstd")
