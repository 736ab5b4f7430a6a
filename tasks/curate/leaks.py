"""Find the rows of a pool that leak held-out questions, with rule and score.

A plain function over Parquet files of tickets, which removes leaks in curation, and verifies that there are none in
tests and benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.curation import DecontaminateSpec
from tasks.compute.threads import n_threads
from tasks.curate.rows import read_batches

if TYPE_CHECKING:
    from tasks.curate.similarity.containment import GramIndex, Ints, NumberLists, RarePrefix

LeakCode = Literal["leak_exact", "leak_near", "leak_quote", "leak_paraphrase"]
LEAK_CODES: tuple[LeakCode, ...] = ("leak_exact", "leak_near", "leak_quote", "leak_paraphrase")
"""The rules, in order; a row is listed under the first that applies."""
SHINGLE_WORDS = 3
"""Words of a shingle for `near_threshold`, as in dedup's default."""
PARAPHRASE_PIECES = 4
"""Fewest separate pieces of the held-out question that a paraphrase shares with it."""
GAPPED_WORDS, GAP, GAPPED_PIECES = 5, 2, 2
"""Words of a gapped run, the place of the word that may differ, and how many separate pieces a paraphrase shares. If
every third word of a question is replaced, no three words in a row are left, but every third of these runs is.
"""
GAPPED_THRESHOLD = 0.25
"""Least share of them. On banking77 it costs 0.7 % of the rows, 0.2 would cost 0.9 % and 0.3 0.5 %; of 60 held-out
questions with every third word replaced it finds 40, against 45 and 34."""
SHORT_WORDS = 11
"""Questions of so many words share long n-grams by nature. Texts of about their length are no quotes of them; they may
reword them."""
REWORDED = DecontaminateSpec().short_threshold
"""`short_threshold` by which rewordings are judged as described; a higher one judges them more strictly."""
LEAST_FREQUENCY = 5
"""n-grams in at most so many pool rows are never boilerplate by their share."""
BATCH_ROWS = 16_384
WHERE = "curate.decontaminate"

T = TypeVar("T")
R = TypeVar("R")
Found = dict[int, tuple[LeakCode, int, float]]
"""Row of a batch -> code, number of the held-out text, score."""
Shape = tuple[int, int]
"""Words of an n-gram, and the place of one that may differ; 0 for none."""
_SHINGLE: Shape = (SHINGLE_WORDS, 0)


@dataclass(frozen=True)
class Leak:
    """One pool row that leaks a held-out question."""

    ticket_id: str
    code: LeakCode
    kept_id: str
    """The held-out ticket; of several the one with the highest score, then the smallest id."""
    score: float
    """1 when equal, the Jaccard similarity when near, else the weighted share of the held-out question's n-grams."""
    shared_run: str
    """The longest run of words that both questions have, in normal form. Ticket text: personal."""


@dataclass(frozen=True)
class LeakReport:
    """The leaks, ordered by ticket_id, and how much was compared."""

    leaks: tuple[Leak, ...]
    n_held_out: int
    n_unprotected: int
    """Held-out questions without an n-gram that is rare enough to count: only equal and nearly equal rows are found."""


@dataclass(frozen=True)
class Questions:
    """Some rows of a file of tickets, to be compared. Ticket text: personal."""

    ids: pa.Array
    questions: pa.Array
    """Subject and body, as read."""
    folded: pa.Array
    """The same in folded form."""

    def __len__(self) -> int:
        return len(self.ids)

    def without(self, names: pa.Array) -> Questions:
        """The rows that do not have these ids."""
        kept = pc.invert(pc.is_in(self.ids, value_set=names))
        return Questions(*(column.filter(kept) for column in (self.ids, self.questions, self.folded)))


@dataclass(frozen=True)
class _Batch:
    rows: Questions
    equal: dict[int, int]
    grams: dict[Shape, NumberLists]
    """The held-out n-grams in each text, by their shape."""
    n_words: Ints
    """Per text."""
    short: NumberLists
    """The words of the texts that may reword a held-out question; none of the others."""


def find_leaks(
    *, pool: Sequence[Path], held_out: Path, spec: DecontaminateSpec, codes: Sequence[LeakCode] = LEAK_CODES
) -> LeakReport:
    """Read the files, and return the leaks as `compare_questions`.

    Args:
        pool: Parquet files with ticket columns, of rows that may leak.
        held_out: Parquet file with the rows that must stay unseen.
        spec: Thresholds.
        codes: The rules to apply.

    Raises:
        DataError: too many nearly repeated questions to compare.
    """
    rows = [batch for path in pool for batch in fold_questions(path)]
    return compare_questions(pool=rows, held_out=fold_questions(held_out), spec=spec, codes=codes)


def compare_questions(
    *,
    pool: Sequence[Questions],
    held_out: Sequence[Questions],
    spec: DecontaminateSpec,
    codes: Sequence[LeakCode] = LEAK_CODES,
) -> LeakReport:
    """Compare every pool question with every held-out question; questions are subject and body, as in dedup.

    A row is listed under the first of these rules that applies, with the best matching held-out ticket:

    * `leak_exact`: both have the same words (normal form).
    * `leak_near`: Jaccard similarity of their 3-word shingles >= `near_threshold`.
    * `leak_quote`: the row holds >= `long_threshold` of the held-out question's distinct n-grams of
      `long_ngram_words` words, each weighted by ln(1 + N/df): N pool rows, df those that hold it. What the row holds
      counts 1/k if k held-out questions hold it: word frames of many questions identify none of them. n-grams in more
      than `max_document_frequency` pool rows, or `max_document_share` of them, do not count: without that, boilerplate
      decides (see the source). Of a question of at most `SHORT_WORDS` words only a row that is much longer is a quote.
    * `leak_paraphrase`: the same with `short_ngram_words` and `short_threshold`, in at least `PARAPHRASE_PIECES`
      separate pieces of the held-out question. One piece is a quote, long enough or not: in short questions three words
      in a row are soon a fifth of the weight, and the share alone would drop two thirds of them. Or, for short
      questions, the same with runs of `GAPPED_WORDS` words whose middle one may differ, in at least `GAPPED_PIECES`
      pieces: every third word was replaced. Or it rewords a short question (`find_reworded`): most words are the same
      in the same order, and hardly another question shares as many.

    Replies are not compared: one template answers train and test tickets, and learning it reveals no question.

    Every comparison is exact, and the result does not depend on the order of rows or the number of threads.
    Source: rarity-weighted overlap as in allenai/decon. "Any shared 13-gram" (GPT-3) finds no edits and drops half of
    a help desk's tickets for their boilerplate.

    Raises:
        DataError: too many nearly repeated questions to compare.
    """
    from tasks.curate.similarity.containment import EqualTexts, GramIndex, Vocabulary
    from tasks.curate.similarity.reworded import comparable_texts, short_texts

    held_ids, held_texts = _by_id(held_out)
    vocabulary = Vocabulary(held_texts)
    equal = EqualTexts(vocabulary.held_out)
    short = short_texts(vocabulary.held_out)
    indices = {
        (n_words, gap): GramIndex(short if gap else vocabulary.held_out, n_words=n_words, gap=gap)
        for n_words, gap in _shapes(spec, codes)
    }

    def compare(rows: Questions) -> _Batch:
        words = vocabulary.number(rows.folded)
        comparable = comparable_texts(words, short)
        grams = {shape: index.find(comparable if shape[1] else words) for shape, index in indices.items()}
        return _Batch(rows, equal.find(words), grams, words.sizes, comparable)

    batches = _in_threads(compare, pool)
    found, n_unprotected = _apply_rules(batches, indices, vocabulary.held_out, spec=spec, codes=codes)
    leaks = [
        Leak(
            ticket_id=batch.rows.ids[row].as_py(),
            code=code,
            kept_id=held_ids[other].as_py(),
            score=score,
            shared_run=longest_shared_run(batch.rows.folded[row].as_py(), held_texts[other].as_py()),
        )
        for batch, rows in zip(batches, found, strict=True)
        for row, (code, other, score) in rows.items()
    ]
    ordered = tuple(sorted(leaks, key=lambda leak: (leak.ticket_id, leak.kept_id)))
    return LeakReport(ordered, n_held_out=len(held_ids), n_unprotected=n_unprotected)


def fold_questions(path: Path) -> list[Questions]:
    """The questions of a ticket file, in order and in batches."""
    return _in_threads(lambda batch: Questions(*batch, _folded(batch[1])), read_questions(path))


def read_questions(path: Path) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Yield ids and questions of a ticket file, in order and in batches."""
    for group in read_batches(path, ("ticket_id", "subject", "body")):
        for batch in group.to_batches(max_chunksize=BATCH_ROWS):
            ids, *texts = batch.columns
            yield ids, pc.binary_join_element_wise(*texts, " ", null_handling="skip")


def longest_shared_run(one: str, other: str) -> str:
    """Return the longest run of words in both texts; of several the first in `one`, then the first in `other`.

    >>> longest_shared_run("My lamp, it does NOT turn on.", "it does not work")
    'it does not'
    """
    from tasks.curate.similarity.containment import words_in

    words, others = words_in(one), words_in(other)
    match = SequenceMatcher(None, words, others, autojunk=False).find_longest_match()
    return " ".join(words[match.a : match.a + match.size])


def _apply_rules(
    batches: Sequence[_Batch],
    indices: dict[Shape, GramIndex],
    held_out: NumberLists,
    *,
    spec: DecontaminateSpec,
    codes: Sequence[LeakCode],
) -> tuple[list[Found], int]:
    """Return the leaks per batch, and how many held-out texts no containment rule can protect."""
    from tasks.curate.similarity.containment import Lengths, RarePrefix, weigh
    from tasks.curate.similarity.reworded import find_reworded, short_texts

    n_pool = sum(len(batch.rows) for batch in batches)
    found: list[Found] = [
        {row: ("leak_exact", other, 1.0) for row, other in batch.equal.items()} if "leak_exact" in codes else {}
        for batch in batches
    ]
    frequencies = {
        shape: index.frequencies([batch.grams[shape] for batch in batches]) for shape, index in indices.items()
    }
    if "leak_near" in codes:
        prefix = RarePrefix(indices[_SHINGLE], frequencies[_SHINGLE], threshold=spec.near_threshold)
        near = _in_threads(lambda batch: _near(batch, prefix), batches)
        found = [new | old for new, old in zip(near, found, strict=True)]
    protected = np.zeros(len(held_out.ends), bool)
    max_frequency = min(spec.max_document_frequency, max(LEAST_FREQUENCY, round(spec.max_document_share * n_pool)))
    rules: tuple[tuple[LeakCode, Shape, float, int], ...] = (
        ("leak_quote", (spec.long_ngram_words, 0), spec.long_threshold, 1),
        ("leak_paraphrase", (spec.short_ngram_words, 0), spec.short_threshold, PARAPHRASE_PIECES),
        ("leak_paraphrase", (GAPPED_WORDS, GAP), max(spec.short_threshold, GAPPED_THRESHOLD), GAPPED_PIECES),
    )
    for code, shape, threshold, min_pieces in rules:
        if code not in codes:
            continue
        n_short = SHORT_WORDS if code == "leak_quote" else 0
        scale = weigh(indices[shape], frequencies[shape], n_pool=n_pool, max_frequency=max_frequency)
        protected |= scale.can_reach(threshold)
        for batch, rows in zip(batches, found, strict=True):
            best, shared = scale.best(
                batch.grams[shape],
                threshold=threshold,
                min_pieces=min_pieces,
                lengths=Lengths(held_out.sizes, batch.n_words, n_short),
            )
            for row in np.flatnonzero(best >= 0).tolist():
                other = int(best[row])
                rows.setdefault(row, (code, other, int(shared[row]) / int(scale.totals[other])))
    if "leak_paraphrase" in codes:
        margin = max(spec.short_threshold - REWORDED, 0)
        reworded = find_reworded([batch.short for batch in batches], short_texts(held_out), margin=margin)
        protected |= reworded.protected
        first = 0
        for batch, rows in zip(batches, found, strict=True):
            place = slice(first, first + len(batch.rows))
            best, scores = reworded.best[place], reworded.scores[place]
            first = place.stop
            for row in np.flatnonzero(best >= 0).tolist():
                rows.setdefault(row, ("leak_paraphrase", int(best[row]), float(scores[row])))
    return found, int(np.count_nonzero(~protected))


def _near(batch: _Batch, prefix: RarePrefix) -> Found:
    """Return rows above the threshold: first by a lower bound of their size, then, for the few left, by their size."""
    from tasks.curate.similarity.containment import words_in

    rows = batch.grams[_SHINGLE]
    possible, _ = prefix.best(rows, rows.sizes, where=WHERE)
    sizes = np.full(len(batch.rows), -1, np.int64)
    for row in np.flatnonzero(possible >= 0).tolist():
        words = words_in(batch.rows.folded[row].as_py())
        sizes[row] = len({tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)})
    best, common = prefix.best(rows, sizes, where=WHERE)
    leaks: Found = {}
    for row in np.flatnonzero(best >= 0).tolist():
        other, n_common = int(best[row]), int(common[row])
        leaks[row] = ("leak_near", other, n_common / int(sizes[row] + prefix.sizes[other] - n_common))
    return leaks


def _shapes(spec: DecontaminateSpec, codes: Sequence[LeakCode]) -> list[Shape]:
    """Return the n-grams that the rules need."""
    needed: dict[LeakCode, tuple[Shape, ...]] = {
        "leak_exact": (_SHINGLE,),
        "leak_near": (_SHINGLE,),
        "leak_quote": ((spec.long_ngram_words, 0),),
        "leak_paraphrase": ((spec.short_ngram_words, 0), (GAPPED_WORDS, GAP)),
    }
    return sorted({shape for code in codes for shape in needed[code]})


def _folded(questions: pa.Array) -> pa.Array:
    from tasks.curate.similarity.letters import fold_batch

    return fold_batch(questions).cast(pa.string())


def _by_id(batches: Sequence[Questions]) -> tuple[pa.Array, pa.Array]:
    """Ids and folded questions in the order of ids, so that of equal scores the smallest id wins."""
    ids = pa.chunked_array([batch.ids for batch in batches], pa.string()).combine_chunks()
    texts = pa.chunked_array([batch.folded for batch in batches], pa.string()).combine_chunks()
    order = pc.sort_indices(ids)
    return ids.take(order), texts.take(order)


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(n_threads()) as pool:
        return list(pool.map(function, items))
