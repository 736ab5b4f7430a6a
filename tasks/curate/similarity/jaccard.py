"""Which texts have word shingles with a Jaccard similarity over a threshold: exact, by prefix filter.

Order the shingles of all texts by rarity. Two texts with J >= t share a shingle among the rarest n - ceil(t n) + 1 of
each (n: shingles of the text), so an index over those few finds every partner, and each comparison is exact: the
result equals comparing all pairs. Shingles are numbered in SQL by their text; nothing is hashed or sampled.
Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006.

Limit: a family of texts that are all alike but just below the threshold (alarms with several changing values) is
compared pair by pair. Comparisons are counted, and more than `MAX_COMPARISONS` are refused with a message.

It knows nothing of tickets. Called by dedup and decontaminate.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.errors import DataError
from tasks.curate.similarity.words import word_runs

if TYPE_CHECKING:
    import duckdb

MAX_COMPARISONS = 20_000_000
"""Comparisons of two texts in one step: about a minute of one core."""

_SLACK = 1e-9  # products such as 0.7 * 10 may exceed the integer they stand for by a rounding error


@dataclass(frozen=True)
class Shingles:
    """Per text, by its number: all distinct shingles, and those of its rare prefix that some other text has too."""

    sets: tuple[frozenset[int], ...]
    prefixes: tuple[tuple[int, ...], ...]
    threshold: float


def number_shingles(
    connection: duckdb.DuckDBPyConnection, *, documents: str, n_words: int, threshold: float
) -> Shingles:
    """Read the table `documents(doc INTEGER from 0 without gaps, words VARCHAR[])`.

    A text with fewer than `n_words` words has no shingle and is similar to none.
    """
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE runs AS "
        f"SELECT doc, unnest({word_runs('words', n_words)}) AS run FROM {documents}"
    ).fetchall()
    # A shingle's number is its place in the order of rarity; ties by text make the order total and repeatable.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE vocabulary AS SELECT run, count(*) AS n_docs, "
        "(row_number() OVER (ORDER BY count(*), run))::INTEGER AS shingle FROM runs GROUP BY run"
    ).fetchall()
    n_documents, n_single = connection.execute(
        f"SELECT (SELECT count(*) FROM {documents}), (SELECT count(*) FROM vocabulary WHERE n_docs = 1)"
    ).fetchall()[0]
    table = connection.sql(
        "SELECT doc, list(shingle ORDER BY shingle) AS shingles "
        "FROM runs JOIN vocabulary USING (run) GROUP BY doc ORDER BY doc"
    ).to_arrow_table()
    sets = [frozenset[int]()] * n_documents
    prefixes: list[tuple[int, ...]] = [()] * n_documents
    for doc, shingles in zip(table["doc"].to_pylist(), table["shingles"].to_pylist(), strict=True):
        n_prefix = len(shingles) - _at_least(threshold * len(shingles)) + 1
        sets[doc] = frozenset(shingles)
        # A shingle of one text alone finds nobody; those have the lowest numbers.
        prefixes[doc] = tuple(shingle for shingle in shingles[:n_prefix] if shingle > n_single)
    return Shingles(tuple(sets), tuple(prefixes), threshold)


class SimilarityIndex:
    """Texts added so far, found again by similar ones."""

    def __init__(self, shingles: Shingles, *, where: str, max_comparisons: int = MAX_COMPARISONS) -> None:
        self._shingles = shingles
        self._postings: defaultdict[int, list[int]] = defaultdict(list)
        self._where = where
        self._left = max_comparisons

    def add(self, doc: int) -> None:
        """Let later calls of `similar_to` find the text."""
        for shingle in self._shingles.prefixes[doc]:
            self._postings[shingle].append(doc)

    def similar_to(self, doc: int) -> dict[int, float]:
        """Every text added so far with J >= threshold, and its J.

        Raises:
            DataError: more comparisons over the life of the index than allowed.
        """
        met = {other for shingle in self._shingles.prefixes[doc] for other in self._postings.get(shingle, ())}
        met.discard(doc)
        return {other: score for other in met if (score := self.score(doc, other)) >= self._shingles.threshold}

    def score(self, doc: int, other: int) -> float:
        """The exact Jaccard similarity, or 0.0 where the sizes alone put it under the threshold."""
        one, two = self._shingles.sets[doc], self._shingles.sets[other]
        small, large = sorted((len(one), len(two)))
        if small < self._shingles.threshold * large - _SLACK:
            return 0.0
        self._left -= 1
        if self._left < 0:
            raise DataError(
                "too many texts nearly repeat each other just below the threshold to compare all pairs",
                code="TG0250",
                where=self._where,
                hint="drop the template (an alarm, an auto-reply) with a filter rule first, or lower the threshold",
            )
        common = len(one & two)
        return common / (small + large - common)


def _at_least(value: float) -> int:
    return -int(-(value - _SLACK) // 1)
