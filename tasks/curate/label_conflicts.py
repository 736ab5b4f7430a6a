"""Find equal or nearly equal questions whose tickets contradict each other in category, priority or answer.

Which questions are alike is computed in `tasks/curate/similarity/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.curation_steps import LabelCheckStep
from tasks.curate.similarity.words import QUESTION, normal_form
from tasks.storage.warehouse import connect, quote_text

if TYPE_CHECKING:
    import duckdb

WHERE = "curate.label_check"
CODE = "label_conflict"
SHINGLE_WORDS = 3
"""Words of a shingle, as in dedup's default."""


class Findings(NamedTuple):
    """What was found, and under which rule tickets are dropped."""

    tickets: pa.Table
    """One row per ticket, in the order of the table: `label_conflict` (int64), `code` and `reason` (null for tickets
    that stay) and `cluster_id` (null where there is none)."""
    code: str
    """The rule."""
    notes: Mapping[str, int]


def find_conflicts(tickets: Path, step: LabelCheckStep, out: Path) -> Findings:
    """Compare the labels of each question's tickets, and write `conflicts.parquet`.

    A family is the tickets of one question: equal in normal form and, with a threshold under 1, connected by pairs
    with J >= threshold. `label_conflict` is the number of tickets of the family with another value of `field`; 0
    where all agree, where the ticket has no value, and where it has no question. Answers are compared in normal form.
    A ticket without a value contradicts no other and stays.

    `conflicts.parquet`: family_id (smallest ticket_id of the family), ticket_id, field, value (of an answer the
    sha256 of its normal form: no text), n_family (tickets of the family with a value), for every ticket of a
    contradicting family that has a value.

    Raises:
        DataError: TG0250, too many nearly repeated questions to compare.
    """
    with connect(readable=(tickets,)) as connection:
        source = f"read_parquet({quote_text(str(tickets))}, file_row_number = true)"
        connection.execute(f"CREATE TEMP VIEW tickets AS SELECT * FROM {source}").fetchall()
        _find_families(connection, step)
        _compare(connection, step)
        reason = quote_text(f"tickets of this question with another {step.field}: ")
        found = connection.sql(
            f"SELECT label_conflict, if(drops, '{CODE}', NULL) AS code, "
            f"if(drops, concat({reason}, label_conflict, ' of ', n_family), NULL) AS reason, "
            "family_id AS cluster_id FROM judged ORDER BY file_row_number"
        ).to_arrow_table()
        _write_conflicts(connection, step, out)
        n_families, n_tickets = connection.execute(
            "SELECT count(DISTINCT family_id), count(*) FROM judged WHERE label_conflict > 0"
        ).fetchall()[0]
    return Findings(found, CODE, {"conflicting_families": n_families, "conflicting_tickets": n_tickets})


def _find_families(connection: duckdb.DuckDBPyConnection, step: LabelCheckStep) -> None:
    """Table `families`: file_row_number, family (a number; null for a ticket without a question)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from tasks.curate.similarity.join import similar_pairs

    connection.execute(
        f"CREATE TEMP TABLE questions AS SELECT file_row_number, {normal_form(QUESTION)} AS form FROM tickets"
    ).fetchall()
    connection.execute(
        "CREATE TEMP TABLE forms AS SELECT form, row_number() OVER (ORDER BY form) - 1 AS number "
        "FROM (SELECT DISTINCT form FROM questions WHERE form <> '')"
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
        "FROM questions LEFT JOIN forms USING (form) LEFT JOIN found USING (number)"
    ).fetchall()
    connection.unregister("found")


def _compare(connection: duckdb.DuckDBPyConnection, step: LabelCheckStep) -> None:
    """Table `judged`: per ticket its family, value, how many of the family have another, and whether it is dropped."""
    value = f"sha256(nullif({normal_form('reply')}, ''))" if step.field == "reply" else step.field
    drops = {
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
        f"coalesce(n_family - n_same, 0) > 0 AND {drops} AS drops "
        "FROM named LEFT JOIN labels USING (family, value) LEFT JOIN totals USING (family) "
        "LEFT JOIN leads USING (family)"
    ).fetchall()


def _write_conflicts(connection: duckdb.DuckDBPyConnection, step: LabelCheckStep, out: Path) -> None:
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
