"""All pairs of texts whose word shingles have a Jaccard similarity over a threshold: exact, in SQL.

Prefix filter: order the shingles of all texts by rarity. Two texts with J >= t share at least one shingle among the
rarest n - ceil(t n) + 1 of each (n: shingles of the text), so only texts that meet there are compared, and each
comparison is exact. Nothing is hashed or sampled: the result equals comparing every pair.
Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006.

Limit: the number of pairs is quadratic in the size of a family of similar texts. Equal texts must be collapsed by the
caller; families that only nearly repeat (an auto-reply with a changing number) are counted before they are compared,
and more than `MAX_PAIRS` is refused with the number.

It knows nothing of tickets. Called by dedup and decontaminate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.errors import DataError
from tasks.curate.words import word_runs

if TYPE_CHECKING:
    import duckdb

MAX_PAIRS = 30_000_000
"""Meetings of two texts in one shingle, over which comparing would take minutes and gigabytes."""

_SLACK = 1e-9  # products such as 0.7 * 10 may exceed the integer they stand for by a rounding error


def find_similar(
    connection: duckdb.DuckDBPyConnection,
    *,
    documents: str,
    n_words: int,
    threshold: float,
    across: bool,
    where: str,
    max_pairs: int = MAX_PAIRS,
) -> None:
    """Create the table `similar(a INTEGER, b INTEGER, score DOUBLE)`: every pair with a < b and J >= threshold.

    Texts with fewer than `n_words` words have no shingle and are in no pair.

    Args:
        documents: Table with doc (INTEGER, unique) and words (VARCHAR[]); with `across` also held_out (BOOLEAN).
        across: Only pairs of which exactly one is held out.
        where: Step named in the error.

    Raises:
        DataError: more than `max_pairs` meetings to compare.
    """
    least = f"'{threshold!r}'::DOUBLE"  # a bare 0.8 would be a DECIMAL
    side = "held_out" if across else "NULL::BOOLEAN"
    meets = "a.held_out <> b.held_out" if across else "TRUE"
    for statement in (
        f"CREATE OR REPLACE TEMP TABLE runs AS "
        f"SELECT doc, {side} AS held_out, {word_runs('words', n_words)} AS runs FROM {documents}",
        # A shingle's number is its place in the order of rarity; ties by text keep the order total and repeatable.
        "CREATE OR REPLACE TEMP TABLE vocabulary AS "
        "SELECT run, count(*) AS n_docs, (row_number() OVER (ORDER BY count(*), run))::INTEGER AS rank "
        "FROM (SELECT unnest(runs) AS run FROM runs) GROUP BY run",
        "CREATE OR REPLACE TEMP TABLE shingles AS "
        "SELECT doc, held_out, list(rank ORDER BY rank) AS ranks, count(*)::INTEGER AS n "
        "FROM (SELECT doc, held_out, unnest(runs) AS run FROM runs) JOIN vocabulary USING (run) GROUP BY doc, held_out",
        f"CREATE OR REPLACE TEMP TABLE prefixes AS SELECT doc, held_out, n, "
        f"unnest(ranks[1:n - ceil({least} * n - {_SLACK})::INTEGER + 1]) AS rank FROM shingles",
        # A shingle of one text alone finds nobody.
        "CREATE OR REPLACE TEMP TABLE meeting AS SELECT p.* FROM prefixes p JOIN vocabulary USING (rank) "
        "WHERE n_docs > 1",
    ):
        connection.execute(statement).fetchall()
    count = "count(*) FILTER (held_out) * count(*) FILTER (NOT held_out)" if across else "count(*) * (count(*) - 1) / 2"
    n_pairs = connection.execute(
        f"SELECT coalesce(sum(n), 0)::BIGINT FROM (SELECT {count} AS n FROM meeting GROUP BY rank)"
    ).fetchall()[0][0]
    if n_pairs > max_pairs:
        raise DataError(
            f"{n_pairs} pairs of nearly repeated texts to compare; at most {max_pairs} are",
            code="TG0230",
            where=where,
            hint="drop the template (an auto-reply, an alarm) with a filter rule first, or raise the threshold",
        )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE candidates AS SELECT DISTINCT a.doc AS a, b.doc AS b "
        f"FROM meeting a JOIN meeting b ON a.rank = b.rank AND a.doc < b.doc "
        f"WHERE {meets} AND b.n >= {least} * a.n - {_SLACK} AND a.n >= {least} * b.n - {_SLACK}"
    ).fetchall()
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE similar AS SELECT a, b, score FROM ("
        f"SELECT c.a, c.b, common::DOUBLE / (m + n - common) AS score FROM ("
        f"SELECT c.a, c.b, len(list_intersect(x.ranks, y.ranks)) AS common, x.n AS m, y.n AS n "
        f"FROM candidates c JOIN shingles x ON x.doc = c.a JOIN shingles y ON y.doc = c.b) c) "
        f"WHERE score >= {least}"
    ).fetchall()
