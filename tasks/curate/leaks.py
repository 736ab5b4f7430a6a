"""Which rows of a pool give held-out questions away, by which rule, and how surely.

A plain function over Parquet files of tickets: it knows nothing of steps, splits or gates. Called by
`tasks/curate/decontaminate.py` to remove leaks, and by whoever must be sure that there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from schemas.curation import DecontaminateSpec

if TYPE_CHECKING:
    import pyarrow as pa

    from tasks.curate.similarity.containment import GramIndex, RarePrefix, Rows

LeakCode = Literal["leak_exact", "leak_near", "leak_quote", "leak_paraphrase"]
LEAK_CODES: tuple[LeakCode, ...] = ("leak_exact", "leak_near", "leak_quote", "leak_paraphrase")
"""In the order in which a row's leaks are looked for; it is listed under the first."""
NEAR_CODES: tuple[LeakCode, ...] = ("leak_exact", "leak_near")
SHINGLE_WORDS = 3
"""Words of a shingle for `near_threshold`, as in dedup's default."""
PARAPHRASE_PIECES = 4
"""Pieces of the held-out question, apart from one another, that a paraphrase shares with it."""
BATCH_ROWS = 16_384
WHERE = "curate.decontaminate"

T = TypeVar("T")
R = TypeVar("R")
Found = dict[int, tuple[LeakCode, int, float]]
"""Row of a batch -> code, number of the held-out text, score."""


@dataclass(frozen=True)
class Leak:
    """One pool row that gives a held-out question away."""

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
    n_pool: int
    n_held_out: int
    n_unprotected: int
    """Held-out questions without one n-gram that is rare enough to count: found only when equal or nearly equal."""


@dataclass(frozen=True)
class Compared:
    """What was compared, and what came of it."""

    report: LeakReport
    ids: pa.ChunkedArray
    """Of the pool, in the order of its files."""
    questions: pa.ChunkedArray
    """Of the pool, as they were read. Ticket text: personal."""


@dataclass(frozen=True)
class _Batch:
    ids: pa.Array
    questions: pa.Array
    texts: pa.Array
    """The questions in folded form."""
    equal: dict[int, int]
    grams: dict[int, Rows]
    """n -> the held-out n-grams in each text."""


def find_leaks(
    *, pool: Sequence[Path], held_out: Path, spec: DecontaminateSpec, codes: Sequence[LeakCode] = LEAK_CODES
) -> LeakReport:
    """The report of `compare_with_held_out`."""
    return compare_with_held_out(pool=pool, held_out=held_out, spec=spec, codes=codes).report


def compare_with_held_out(
    *, pool: Sequence[Path], held_out: Path, spec: DecontaminateSpec, codes: Sequence[LeakCode] = LEAK_CODES
) -> Compared:
    """Compare every pool question with every held-out question; questions are subject and body, as in dedup.

    A row is listed under the first of these rules that holds, with the held-out ticket it fits best:

    * `leak_exact`: both have the same words (normal form).
    * `leak_near`: Jaccard similarity of their 3-word shingles >= `near_threshold`.
    * `leak_quote`: the row holds >= `long_threshold` of the held-out question's distinct n-grams of
      `long_ngram_words` words, each weighted by ln(1 + N/df): N pool rows, df those that hold it. n-grams in more than
      `max_document_frequency` pool rows do not count: without that, boilerplate decides (see the source).
    * `leak_paraphrase`: the same with `short_ngram_words` and `short_threshold`, in at least `PARAPHRASE_PIECES`
      pieces of the held-out question apart from one another. One piece is a quote, long enough or not: in short
      questions three words in a row are soon a fifth of the weight, and the share alone would drop two thirds of them.

    Replies are not compared: the same template answers a train and a test ticket every day, and whoever learns it
    has not seen the question.

    Every comparison is exact, and the result does not depend on the order of rows or the number of threads.
    Source: rarity-weighted overlap as in allenai/decon. "Any shared 13-gram" (GPT-3) finds no edits and drops half of
    a help desk's tickets for their boilerplate.

    Args:
        pool: Parquet files with ticket columns whose rows may leak.
        held_out: Parquet file with the rows that must stay unseen.
        codes: The rules to apply.

    Raises:
        DataError: too many nearly repeated questions to compare.
    """
    from tasks.curate.similarity.containment import EqualTexts, GramIndex, Vocabulary

    held_ids, held_texts = _held_out(held_out)
    vocabulary = Vocabulary(held_texts)
    equal = EqualTexts(vocabulary.held_out)
    indices = {n: GramIndex(vocabulary.held_out, n_words=n) for n in _lengths(spec, codes)}

    def compare(batch: tuple[pa.Array, pa.Array]) -> _Batch:
        texts = _folded(batch[1])
        words = vocabulary.number(texts)
        grams = {n: index.find(words) for n, index in indices.items()}
        return _Batch(*batch, texts, equal.find(words), grams)

    batches = _in_threads(compare, read_questions(pool))
    n_pool = sum(len(batch.ids) for batch in batches)
    found, n_unprotected = _apply_rules(batches, indices, spec=spec, codes=codes, n_pool=n_pool)
    leaks = [
        Leak(
            ticket_id=batch.ids[row].as_py(),
            code=code,
            kept_id=held_ids[other].as_py(),
            score=score,
            shared_run=longest_shared_run(batch.texts[row].as_py(), held_texts[other].as_py()),
        )
        for batch, rows in zip(batches, found, strict=True)
        for row, (code, other, score) in rows.items()
    ]
    ordered = tuple(sorted(leaks, key=lambda leak: (leak.ticket_id, leak.kept_id)))
    report = LeakReport(ordered, n_pool=n_pool, n_held_out=len(held_ids), n_unprotected=n_unprotected)
    return Compared(report, *_columns((batch.ids, batch.questions) for batch in batches))


def read_questions(paths: Sequence[Path]) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Ids and questions of files of tickets, in their order and in batches, as `Compared` has them."""
    for path in paths:
        yield from _questions(path)


def longest_shared_run(one: str, other: str) -> str:
    """The longest run of words in both texts; the first in `one` of several, then the first in `other`.

    >>> longest_shared_run("My lamp, it does NOT turn on.", "it does not work")
    'it does not'
    """
    from tasks.curate.similarity.containment import words_in

    words, others = words_in(one), words_in(other)
    match = SequenceMatcher(None, words, others, autojunk=False).find_longest_match()
    return " ".join(words[match.a : match.a + match.size])


def _apply_rules(
    batches: Sequence[_Batch],
    indices: dict[int, GramIndex],
    *,
    spec: DecontaminateSpec,
    codes: Sequence[LeakCode],
    n_pool: int,
) -> tuple[list[Found], int]:
    """Leaks per batch, and how many held-out texts no containment rule can protect."""
    import numpy as np

    from tasks.curate.similarity.containment import RarePrefix, weigh

    found: list[Found] = [
        {row: ("leak_exact", other, 1.0) for row, other in batch.equal.items()} if "leak_exact" in codes else {}
        for batch in batches
    ]
    frequencies = {n: index.frequencies([batch.grams[n] for batch in batches]) for n, index in indices.items()}
    if "leak_near" in codes:
        prefix = RarePrefix(indices[SHINGLE_WORDS], frequencies[SHINGLE_WORDS], threshold=spec.near_threshold)
        near = _in_threads(lambda batch: _near(batch, prefix), batches)
        found = [new | old for new, old in zip(near, found, strict=True)]
    n_held_out = next(iter(indices.values())).held_out.ends.shape[0]
    protected = np.zeros(n_held_out, bool)
    rules: tuple[tuple[LeakCode, int, float, int], ...] = (
        ("leak_quote", spec.long_ngram_words, spec.long_threshold, 1),
        ("leak_paraphrase", spec.short_ngram_words, spec.short_threshold, PARAPHRASE_PIECES),
    )
    for code, n, threshold, min_pieces in rules:
        if code not in codes:
            continue
        scale = weigh(indices[n], frequencies[n], n_pool=n_pool, max_frequency=spec.max_document_frequency)
        protected |= scale.totals > 0
        for batch, rows in zip(batches, found, strict=True):
            best, shared = scale.best(batch.grams[n], threshold=threshold, min_pieces=min_pieces)
            for row in np.flatnonzero(best >= 0).tolist():
                other = int(best[row])
                rows.setdefault(row, (code, other, int(shared[row]) / int(scale.totals[other])))
    return found, int(np.count_nonzero(~protected))


def _near(batch: _Batch, prefix: RarePrefix) -> Found:
    """Rows over the threshold: first by a lower bound of their size, then, for the few left, by counting it."""
    import numpy as np

    from tasks.curate.similarity.containment import words_in

    rows = batch.grams[SHINGLE_WORDS]
    possible, _ = prefix.best(rows, rows.sizes, where=WHERE)
    sizes = np.full(len(batch.texts), -1, np.int64)
    for row in np.flatnonzero(possible >= 0).tolist():
        words = words_in(batch.texts[row].as_py())
        sizes[row] = len({tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)})
    best, common = prefix.best(rows, sizes, where=WHERE)
    leaks: Found = {}
    for row in np.flatnonzero(best >= 0).tolist():
        other, n_common = int(best[row]), int(common[row])
        leaks[row] = ("leak_near", other, n_common / int(sizes[row] + prefix.sizes[other] - n_common))
    return leaks


def _lengths(spec: DecontaminateSpec, codes: Sequence[LeakCode]) -> list[int]:
    wanted: dict[LeakCode, int] = {
        "leak_exact": SHINGLE_WORDS,
        "leak_near": SHINGLE_WORDS,
        "leak_quote": spec.long_ngram_words,
        "leak_paraphrase": spec.short_ngram_words,
    }
    return sorted({wanted[code] for code in codes})


def _questions(path: Path) -> Iterator[tuple[pa.Array, pa.Array]]:
    """Ids and questions in batches."""
    import pyarrow.compute as pc

    from tasks.curate.rows import read_batches

    for group in read_batches(path, ("ticket_id", "subject", "body")):
        for batch in group.to_batches(max_chunksize=BATCH_ROWS):
            ids, *texts = batch.columns
            yield ids, pc.binary_join_element_wise(*texts, " ", null_handling="skip")


def _folded(questions: pa.Array) -> pa.Array:
    import pyarrow as pa

    from tasks.curate.similarity.letters import fold_batch

    return fold_batch(questions).cast(pa.string())


def _held_out(path: Path) -> tuple[pa.Array, pa.Array]:
    """Ids and questions in folded form, in the order of ids: of equal scores the smallest id is the lowest number."""
    import pyarrow.compute as pc

    ids, questions = (column.combine_chunks() for column in _columns(_questions(path)))
    order = pc.sort_indices(ids)
    return ids.take(order), _folded(questions.take(order))


def _columns(batches: Iterable[tuple[pa.Array, pa.Array]]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    import pyarrow as pa

    listed = list(batches)
    ids, texts = (pa.chunked_array([batch[place] for batch in listed], pa.string()) for place in (0, 1))
    return ids, texts


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    from tasks.threads import n_threads

    with ThreadPoolExecutor(n_threads()) as pool:
        return list(pool.map(function, items))
