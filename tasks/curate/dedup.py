"""Merge exact and near duplicates of the customer's question; each names the ticket that is kept.

`tasks/curate/similarity/words.py` defines which text of a ticket is compared, and in which form; `families.py` and
`join.py` next to it find similar texts. It runs before the split: a duplicate pair on both sides of a split would leak.

No index is kept between runs. For 200,000 tickets of 100 words it would hold 157 MB, and looking up, reading and
writing it took 0.9 CPU-seconds; shingling all texts again takes 0.5.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import DedupStep, SemanticSpec
from schemas.errors import DataError
from tasks.curate.row_faults import FaultLimit, keep_sound_rows
from tasks.curate.rows import read_batches_with, write_ordered_tickets, write_removed
from tasks.curate.similarity.buffers import arrow_table, numpy_column
from tasks.curate.similarity.semantic import check_extra, similar_meanings
from tasks.curate.similarity.words import compared_text
from tasks.curate.step import curation_step
from tasks.step import as_step
from tasks.storage.warehouse import connect, quote_text

if TYPE_CHECKING:
    import duckdb

    from tasks.curate.similarity.families import Decisions

WHERE = "curate.dedup"
_PREFERENCE = {
    "newest": "created_at DESC NULLS LAST",
    "oldest": "created_at ASC NULLS LAST",
    "longest_reply": "length(reply) DESC NULLS LAST",
    "best_rated": "rating DESC NULLS LAST",
}
_COMPARED = {"question": "the question", "question_and_answer": "the question with its answer"}


@curation_step(DedupStep)
@as_step("dedup", libraries=("duckdb", "pyarrow", "numba", "numpy", "scipy"), context=("memory_budget",))
def drop_duplicates(
    out: Path,
    *,
    tickets: TicketTable,
    step: DedupStep,
    memory_budget: int | None = None,
    limit: FaultLimit | None = None,
) -> TicketTable:
    """Keep the preferred tickets of each family of duplicates, and merge the others into them.

    Of equal questions the first in the order of `prefer` (ties: smallest ticket_id) represents all. These are
    visited in that order, and one is removed if a kept one has J >= threshold; so every removed ticket is similar to
    the ticket it names, not only to a neighbour's neighbour. Of several kept ones it names the most similar, then the
    preferred. cluster_id is the smallest ticket_id of the connected component. Questions shorter than a shingle are
    compared exactly; empty ones are never merged. The result does not depend on the order of rows.
    Notes: `clusters` (components of two or more), `exact_duplicates`, `near_duplicates`, `empty_questions`, and
    `semantic_pairs` with `semantic`.

    With `semantic`, pairs of kept tickets with similar meaning are listed in `out/semantic_pairs.parquet` (ticket_id,
    other_id, cosine; most similar first) for people to read; they are not merged.

    Args:
        memory_budget: Bytes of hashes held in memory, the rest in a file next to `out`; None: a quarter of free memory.
        limit: How many rows may raise.

    Raises:
        ConfigError: `semantic` is set and its extra is not installed.
        DataError: more than `max_comparisons` comparisons are needed; it names the family of texts at fault. TG0220,
            more rows raise than `limit` allows.
    """
    if step.semantic is not None:
        check_extra(WHERE)
    return keep_sound_rows(
        lambda rows, folder: _drop_duplicates(rows, step, folder, memory_budget),
        tickets,
        step="dedup",
        out=out,
        limit=limit,
    )


def _drop_duplicates(tickets: TicketTable, step: DedupStep, out: Path, memory_budget: int | None) -> TicketTable:
    from tasks.curate.similarity.join import CrowdedFamilyError

    with connect(readable=(tickets.tickets,)) as connection:
        source = f"read_parquet({quote_text(str(tickets.tickets))}, file_row_number = true)"
        connection.execute(f"CREATE TEMP VIEW tickets AS SELECT * FROM {source}").fetchall()
        ordered = connection.sql(
            f"SELECT file_row_number FROM tickets ORDER BY {_PREFERENCE[step.prefer]}, ticket_id, source, source_line"
        ).to_arrow_table()
        order = numpy_column(ordered["file_row_number"])
        try:
            decisions = _decide(connection, step, order, budget=memory_budget, spill=out.parent)
        except CrowdedFamilyError as error:
            raise _name_family(connection, error.members, step) from None
        _store(connection, decisions)
        what = _COMPARED[step.compare]
        removed = connection.sql(
            f"SELECT t.ticket_id, 'merged' AS outcome, "
            f"CASE WHEN exact THEN 'exact_duplicate' ELSE 'near_duplicate' END AS code, "
            f"CASE WHEN exact THEN '{what} repeats the kept ticket''s' "
            f"ELSE '{what} is nearly the kept ticket''s' END AS reason, "
            f"t.source, t.source_line, cluster_id, k.ticket_id AS kept_id, score "
            f"FROM decisions d JOIN tickets t USING (file_row_number) JOIN tickets k ON k.file_row_number = d.kept"
        ).to_arrow_table()
        notes = connection.sql(
            "SELECT count(DISTINCT component) FILTER (kept IS NOT NULL) AS clusters, "
            "count(*) FILTER (kept IS NOT NULL AND exact) AS exact_duplicates, "
            "count(*) FILTER (kept IS NOT NULL AND NOT exact) AS near_duplicates, "
            "count(*) FILTER (empty) AS empty_questions FROM decisions"
        ).to_arrow_table()
        counts = notes.to_pylist()[0]
        if step.semantic is not None:
            counts["semantic_pairs"] = _list_meanings(connection, step, step.semantic, out)
    stays = decisions.kept == np.arange(len(decisions.kept))
    n_out = write_ordered_tickets(
        (batch.filter(pa.array(rows)) for batch, rows in read_batches_with(tickets.tickets, stays)), out
    )
    n_merged = write_removed(removed, out)
    return TicketTable(
        root=out,
        rows=RowCounts(n_in=n_out + n_merged, n_out=n_out, n_merged=n_merged),
        notes=counts,
    )


def _decide(
    connection: duckdb.DuckDBPyConnection, step: DedupStep, order: Any, *, budget: int | None, spill: Path
) -> Decisions:
    """Decide about the rows of `tickets` in this process."""
    from tasks.curate.similarity.compared import compared_texts, message_batches
    from tasks.curate.similarity.families import decide
    from tasks.curate.similarity.shingles import shingle_sets

    sets = shingle_sets(
        message_batches(connection, relation="tickets", step=step),
        text_of=compared_texts(step),
        n_words=step.shingle_words,
        budget=budget,
        spill=spill,
    )
    return decide(
        sets,
        order=order,
        near=step.near,
        threshold=step.threshold,
        max_comparisons=step.max_comparisons,
        where=WHERE,
    )


def _store(connection: duckdb.DuckDBPyConnection, decisions: Decisions) -> None:
    """Create the table `decisions`: file_row_number, kept (the row that is kept instead; null: stays), score, exact,
    empty, component, cluster_id."""
    choices = {
        "file_row_number": np.arange(len(decisions.kept)),
        "kept": decisions.kept,
        "score": decisions.score,
        "exact": decisions.exact.astype(np.uint8),
        "empty": decisions.empty.astype(np.uint8),
        "component": decisions.component,
    }
    connection.register("choices", arrow_table(choices))
    connection.execute(
        "CREATE TEMP TABLE decisions AS SELECT file_row_number, nullif(kept, file_row_number) AS kept, score, "
        "exact::BOOLEAN AS exact, empty::BOOLEAN AS empty, component, "
        "min(ticket_id) OVER (PARTITION BY component) AS cluster_id FROM choices JOIN tickets USING (file_row_number)"
    ).fetchall()
    connection.unregister("choices")


def _name_family(connection: duckdb.DuckDBPyConnection, members: list[int], step: DedupStep) -> DataError:
    connection.register("family", pa.table({"file_row_number": pa.array(members, pa.int64())}))
    first = connection.execute("SELECT min(ticket_id) FROM tickets JOIN family USING (file_row_number)").fetchall()[0][
        0
    ]
    return DataError(
        f"more than {step.max_comparisons} comparisons: {len(members)} tickets like {first} nearly repeat each other, "
        f"but just below the threshold {step.threshold}, so that all their pairs would have to be compared",
        code="TG0250",
        where=WHERE,
        hint="drop this template (an alarm, an auto-reply) with a filter rule first, lower `threshold` so that it is "
        "merged, or raise `max_comparisons`",
    )


def _list_meanings(connection: duckdb.DuckDBPyConnection, step: DedupStep, spec: SemanticSpec, out: Path) -> int:
    kept = connection.sql(
        f"SELECT ticket_id, {compared_text(step.compare)} AS compared "
        f"FROM tickets JOIN decisions USING (file_row_number) "
        f"WHERE kept IS NULL ORDER BY ticket_id, source, source_line"
    ).to_arrow_table()
    found = similar_meanings(kept["compared"].to_pylist(), threshold=spec.threshold, max_pairs=spec.max_pairs)
    names = kept["ticket_id"]
    pairs = {"ticket_id": names.take(found.left), "other_id": names.take(found.right), "cosine": found.cosine}
    pq.write_table(pa.table(pairs), out / "semantic_pairs.parquet", compression="zstd")
    return len(found.cosine)
