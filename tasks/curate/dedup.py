"""Remove exact and near duplicates of the customer's question, naming for each the ticket kept in its place.

Tickets are compared by subject and body in normal form (`tasks/curate/similarity/words.py`), never by the reply. Which
pairs are similar is computed in `tasks/curate/similarity/jaccard.py`. Called by `flows/curate.py`, before the split: a
duplicate pair on both sides of a split would leak.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from schemas.artifacts import RowCounts, TicketTable
from schemas.curation_steps import DedupStep
from tasks.curate.similarity.jaccard import Shingles, SimilarityIndex, number_shingles
from tasks.curate.similarity.words import QUESTION, normal_form, words_of

if TYPE_CHECKING:
    import duckdb

WHERE = "curate.dedup"
_PREFERENCE = {
    "newest": "created_at DESC NULLS LAST",
    "oldest": "created_at ASC NULLS LAST",
    "longest_reply": "length(reply) DESC NULLS LAST",
}


class Merge(NamedTuple):
    """One removed text: the text kept in its place and their Jaccard similarity."""

    kept: int
    score: float


def drop_duplicates(*, tickets: TicketTable, step: DedupStep, out: Path) -> TicketTable:
    """Keep of each family of duplicates the preferred tickets; the others are merged into them.

    Of equal questions the first in the order of `prefer` (ties: smallest ticket_id) speaks for all. Going through
    these in that order, one goes when a kept one has J >= threshold; so every removed ticket is similar to the ticket
    it names, not only to a neighbour's neighbour. Among several kept so far it names the most similar, then the
    preferred. cluster_id is the smallest ticket_id of the connected component. Questions shorter than a shingle are
    compared exactly; empty ones are never merged. The result does not depend on the order of rows.
    Notes: `clusters` (components of two or more), `exact_duplicates`, `near_duplicates`, `empty_questions`.

    Raises:
        DataError: too many nearly repeated questions to compare (see `tasks/curate/similarity/jaccard.py`).
    """
    from tasks.curate.rows import write_removed, write_tickets
    from tasks.warehouse import connect, quote_text

    with connect(readable=(tickets.tickets,)) as connection:
        source = f"read_parquet({quote_text(str(tickets.tickets))})"
        connection.execute(f"CREATE TEMP VIEW tickets AS SELECT * FROM {source}").fetchall()
        _collapse_equal(connection, step)
        n_documents = connection.execute("SELECT count(*) FROM documents").fetchall()[0][0]
        merges: dict[int, Merge] = {}
        clusters = list(range(n_documents))
        if step.near:
            shingles = number_shingles(
                connection, documents="documents", n_words=step.shingle_words, threshold=step.threshold
            )
            merges = pick_survivors(shingles)
            clusters = connect_components(shingles, merges)
        _store_decisions(connection, merges=merges, clusters=clusters)
        kept = connection.sql("SELECT t.* FROM tickets t JOIN decisions USING (ticket_id) WHERE kept_id IS NULL")
        kept_table = kept.to_arrow_table()
        removed = connection.sql(
            "SELECT ticket_id, 'merged' AS outcome, "
            "CASE WHEN exact THEN 'exact_duplicate' ELSE 'near_duplicate' END AS code, "
            "CASE WHEN exact THEN 'the question repeats the kept ticket''s' "
            "ELSE 'the question is nearly the kept ticket''s' END AS reason, "
            "source, source_line, cluster_id, kept_id, score "
            "FROM decisions JOIN tickets USING (ticket_id) WHERE kept_id IS NOT NULL"
        ).to_arrow_table()
        notes = connection.sql(
            "SELECT count(DISTINCT cluster_id) FILTER (kept_id IS NOT NULL) AS clusters, "
            "count(*) FILTER (kept_id IS NOT NULL AND exact) AS exact_duplicates, "
            "count(*) FILTER (kept_id IS NOT NULL AND NOT exact) AS near_duplicates, "
            "count(*) FILTER (empty) AS empty_questions FROM decisions"
        ).to_arrow_table()
    n_out = write_tickets(kept_table, out)
    n_merged = write_removed(removed, out)
    return TicketTable(
        root=out,
        rows=RowCounts(n_in=n_out + n_merged, n_out=n_out, n_merged=n_merged),
        notes=notes.to_pylist()[0],
    )


def pick_survivors(shingles: Shingles) -> dict[int, Merge]:
    """Go through the texts by number: one goes when a text that stays is similar to it, else it stays.

    Only texts that stay are compared with, so thousands of copies of one text cost one comparison each.
    """
    index = SimilarityIndex(shingles, where=WHERE)
    merges: dict[int, Merge] = {}
    for doc in range(len(shingles.sets)):
        similar = index.similar_to(doc)
        if similar:
            kept = min(similar, key=lambda other: (-similar[other], other))
            merges[doc] = Merge(kept, similar[kept])
        else:
            index.add(doc)
    return merges


def connect_components(shingles: Shingles, merges: dict[int, Merge]) -> list[int]:
    """The smallest number of each text's connected component in the graph of all pairs with J >= threshold.

    Starts from the merges. What they leave open is whether a removed text also connects its kept text to another
    family, so removed texts are compared with whole families at a time, and only until the first similar member.
    """
    parent = list(range(len(shingles.sets)))

    def root_of(doc: int) -> int:
        while parent[doc] != doc:
            parent[doc] = parent[parent[doc]]
            doc = parent[doc]
        return doc

    def connect(one: int, two: int) -> None:
        low, high = sorted((root_of(one), root_of(two)))
        parent[high] = low

    for doc, merge in merges.items():
        connect(doc, merge.kept)
    families: defaultdict[int, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for doc, prefix in enumerate(shingles.prefixes):
        for shingle in prefix:
            families[shingle][root_of(doc)].append(doc)
    index = SimilarityIndex(shingles, where=WHERE)
    for doc in merges:
        compared: set[int] = set()
        for shingle in shingles.prefixes[doc]:
            for family, members in families[shingle].items():
                if root_of(family) == root_of(doc):
                    continue
                for member in members:
                    if member not in compared and index.score(doc, member) >= shingles.threshold:
                        connect(doc, member)
                        break
                    compared.add(member)
    return [root_of(doc) for doc in range(len(parent))]


def _collapse_equal(connection: duckdb.DuckDBPyConnection, step: DedupStep) -> None:
    """Tables `members` (ticket -> text) and `documents` (one row per distinct text, numbered by preference)."""
    connection.execute(
        f"CREATE TEMP TABLE members AS WITH texts AS ("
        f"SELECT ticket_id, {normal_form(QUESTION)} AS normal, "
        f"row_number() OVER (ORDER BY {_PREFERENCE[step.prefer]}, ticket_id) AS place FROM tickets), "
        # An empty question equals nothing: its ticket stands alone.
        f"keyed AS (SELECT *, CASE WHEN normal = '' THEN ticket_id ELSE sha256(normal) END AS key, "
        f"normal = '' AS empty FROM texts), "
        f"firsts AS (SELECT *, min(place) OVER (PARTITION BY empty, key) AS first FROM keyed) "
        f"SELECT ticket_id, normal, empty, place = first AS is_first, "
        f"(dense_rank() OVER (ORDER BY first) - 1)::INTEGER AS doc FROM firsts"
    ).fetchall()
    connection.execute(
        f"CREATE TEMP TABLE documents AS "
        f"SELECT doc, ticket_id, {words_of('normal')} AS words FROM members WHERE is_first"
    ).fetchall()


def _store_decisions(connection: duckdb.DuckDBPyConnection, *, merges: dict[int, Merge], clusters: list[int]) -> None:
    """Table `decisions`: ticket_id, kept_id (null: stays), score, exact, empty, cluster_id."""
    import pyarrow as pa

    texts = range(len(clusters))
    chosen = [merges.get(doc, Merge(doc, 1.0)) for doc in texts]
    table = pa.table(
        {
            "doc": pa.array(texts, pa.int32()),
            "kept": pa.array([merge.kept for merge in chosen], pa.int32()),
            "score": pa.array([merge.score for merge in chosen], pa.float64()),
            "component": pa.array(clusters, pa.int32()),
        }
    )
    connection.register("choices", table)
    connection.execute(
        "CREATE TEMP TABLE decisions AS SELECT m.ticket_id, "
        "CASE WHEN m.ticket_id <> d.ticket_id THEN d.ticket_id END AS kept_id, c.score, c.kept = c.doc AS exact, "
        "m.empty, min(m.ticket_id) OVER (PARTITION BY c.component) AS cluster_id "
        "FROM members m JOIN choices c USING (doc) JOIN documents d ON d.doc = c.kept"
    ).fetchall()
    connection.unregister("choices")
