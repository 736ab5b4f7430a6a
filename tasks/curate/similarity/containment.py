"""Compare pool texts with held-out texts: n-gram containment weighted by rarity, Jaccard similarity, equality.

Only the held-out side is indexed: its words and n-grams are numbered; the pool is read once, and the numbers of the
n-grams it shares are kept. They give document frequencies, then scores: exact, in integers, independent of the order
of rows and the number of threads.

Texts are Arrow strings in folded form (`tasks/curate/similarity/words.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.errors import DataError
from tasks.curate.similarity.kernels.leaking import best_containment, best_jaccard
from tasks.curate.similarity.kernels.tokenise import INVISIBLE, LETTER, LONE, number_grams, number_words
from tasks.curate.similarity.letters import character_classes

Ints = NDArray[np.int64]
Numbers = NDArray[np.int32]
MAX_COMPARISONS = 500_000_000
"""Comparisons of two texts in one batch of rows: minutes of one core."""
WEIGHT_UNIT = 1e9
"""Weights are whole billionths: integers add up to the same sum in any order, floats do not."""
_LETTERS = np.array([ord(chr(byte).lower()) if chr(byte).isalnum() else 0 for byte in range(128)], np.uint8)
_LETTERS.flags.writeable = False  # as the classes of all characters: one form of the kernel serves both
_SPACED = bytes(byte or 32 for byte in _LETTERS.tolist()) + bytes(range(128, 256))
_SPACED_BYTES = np.frombuffer(_SPACED, np.uint8)


@dataclass(frozen=True)
class NumberLists:
    """A list of numbers per text: `values[ends[i - 1]:ends[i]]`."""

    values: Numbers
    ends: Ints

    @property
    def sizes(self) -> Ints:
        return np.diff(self.ends, prepend=0)


def words_in(text: str) -> list[str]:
    """Return the words of a folded text, as the kernels find them.

    >>> words_in("Where is Order #7?")
    ['where', 'is', 'order', '7']
    """
    if not text.isascii():
        classes = character_classes()
        kinds = [(character, classes[ord(character)]) for character in text]
        text = "".join(
            f" {character} " if kind == LONE else character if kind == LETTER else "" if kind == INVISIBLE else " "
            for character, kind in kinds
        )
    return [word for word in text.encode().translate(_SPACED).decode().split(" ") if word]


class Vocabulary:
    """The words of the held-out texts, numbered."""

    def __init__(self, held_out: pa.Array) -> None:
        data, offsets = _buffers(held_out)
        inside = _SPACED_BYTES[data] != 32
        # A text may begin with a letter right after another text's last letter, and a character beyond ASCII may be a
        # word of its own, with other words directly before and after it.
        n_starts = int(np.count_nonzero(inside[1:] & ~inside[:-1]))
        n_most = n_starts + 2 * int(np.count_nonzero(data >= 0xC0)) + len(held_out) + 1
        self._slots = _empty_slots(n_most)
        self._bytes = np.empty(data.shape[0] + 1, np.uint8)
        self._ends = np.zeros(n_most + 1, np.int64)
        self._hashes = np.empty(n_most, np.uint64)
        self._sizes = np.zeros(2, np.int64)
        self.held_out = self._number(data, offsets, n_most, learn=True)

    def number(self, texts: pa.Array) -> NumberLists:
        """Return the numbers of the words of each text; -1 for a word that no held-out text has."""
        data, offsets = _buffers(texts)
        return self._number(data, offsets, (data.shape[0] + len(texts)) // 2 + 1, learn=False)

    def _number(self, data: NDArray[np.uint8], offsets: Numbers, n_most: int, *, learn: bool) -> NumberLists:
        words, ends = np.empty(n_most, np.int32), np.empty(offsets.shape[0] - 1, np.int64)
        is_ascii = not data.shape[0] or int(data.max()) < 128
        classes = _LETTERS if is_ascii else character_classes()
        scratch = np.empty(int(np.diff(offsets).max(initial=0)), np.uint8)
        known = (self._slots, self._bytes, self._ends, self._hashes, self._sizes)
        n_words = number_words(data, offsets, _LETTERS, classes, scratch, *known, learn, words, ends)
        return NumberLists(words[:n_words], ends)


class GramIndex:
    """The n-grams of the held-out texts, numbered, and which held-out texts hold each."""

    def __init__(self, words: NumberLists, *, n_words: int, gap: int = 0) -> None:
        """Index the texts.

        Args:
            words: Numbers of the words of the held-out texts.
            n_words: Words of an n-gram.
            gap: Place of a word in it that may be any word, from 0; 0 for none.
        """
        self._shape = (n_words, gap)
        n_most = words.values.shape[0] + 1
        self._words = words.values
        self._slots = _empty_slots(n_most)
        self._starts = np.empty(n_most, np.int64)
        self._hashes = np.empty(n_most, np.uint64)
        self.n_grams = 0
        self.held_out = self._number(words, learn=True)
        self._starts, self._hashes = self._starts[: self.n_grams], self._hashes[: self.n_grams]

    def find(self, words: NumberLists) -> NumberLists:
        """Return the numbers of the distinct n-grams of each text that some held-out text has."""
        return self._number(words, learn=False)

    def frequencies(self, pool: Sequence[NumberLists]) -> Ints:
        """Count the pool texts that hold each n-gram."""
        total = np.zeros(self.n_grams, np.int64)
        for found in pool:
            total += np.bincount(found.values, minlength=self.n_grams)
        return total

    def postings(self, chosen: NDArray[np.bool_] | None = None) -> tuple[Ints, Numbers]:
        """Return ends per n-gram and the held-out texts that hold it, ascending; only the pairs that are `chosen`."""
        grams = self.held_out.values
        texts = np.repeat(np.arange(self.held_out.ends.shape[0], dtype=np.int32), self.held_out.sizes)
        if chosen is not None:
            grams, texts = grams[chosen], texts[chosen]
        ends = np.cumsum(np.bincount(grams, minlength=self.n_grams))
        return ends, texts[np.argsort(grams, kind="stable")]

    def _number(self, words: NumberLists, *, learn: bool) -> NumberLists:
        grams, ends = np.empty(words.values.shape[0], np.int32), np.empty(words.ends.shape[0], np.int64)
        known = (self._slots, self._words, self._starts, self._hashes, self.n_grams)
        last = np.full(self._starts.shape[0], -1, np.int64)
        n_known = number_grams(words.values, words.ends, *self._shape, *known, learn, last, grams, ends)
        if learn:
            self.n_grams = n_known
        n_found = int(ends[-1]) if ends.shape[0] else 0
        return NumberLists(grams[:n_found].copy(), ends)


@dataclass(frozen=True)
class Lengths:
    """Words of the texts on both sides; held-out texts of at most `n_short` are compared with much longer ones only."""

    held_out: Ints
    pool: Ints
    n_short: int


@dataclass(frozen=True)
class Containment:
    """Scores the share of each held-out text that a pool text holds: weights, their totals, postings."""

    weights: Ints
    """Per n-gram what a pool text with it scores; 0 for one in too many pool texts."""
    totals: Ints
    """Per held-out text, the rarities of all its n-grams."""
    posting_ends: Ints
    postings: Numbers
    held_out: NumberLists
    """The n-grams of each held-out text, in their order."""

    def can_reach(self, threshold: float) -> NDArray[np.bool_]:
        """Return per held-out text whether a pool text with all its n-grams reaches the threshold."""
        most = sum_per_text(self.weights, self.held_out)
        reached: NDArray[np.bool_] = (self.totals > 0) & (most >= threshold * self.totals)
        return reached

    def best(
        self, found: NumberLists, *, threshold: float, min_pieces: int = 1, lengths: Lengths | None = None
    ) -> tuple[Numbers, Ints]:
        """Return per pool text the held-out text it holds most of (-1: none reaches `threshold`), and their weight.

        Args:
            min_pieces: Fewest separate pieces of the held-out text that must be shared as well.
            lengths: Pairs of short texts that are left out.
        """
        lengths = lengths or Lengths(np.zeros_like(self.totals), np.zeros(found.ends.shape[0], np.int64), 0)
        best, shared = np.empty(found.ends.shape[0], np.int32), np.zeros(found.ends.shape[0], np.int64)
        places = (self.posting_ends, self.postings, self.held_out.ends, self.held_out.values, self.totals)
        n_held_out, n_grams = self.totals.shape[0], self.weights.shape[0]
        work = (np.zeros(n_held_out, np.int64), np.empty(n_held_out, np.int32), np.full(n_grams, -1, np.int64))
        best_containment(
            found.values, found.ends, self.weights, *places, threshold, min_pieces,
            lengths.held_out, lengths.pool, lengths.n_short, *work, best, shared,
        )  # fmt: skip
        return best, shared


def weigh(index: GramIndex, frequencies: Ints, *, n_pool: int, max_frequency: int) -> Containment:
    """Weight each n-gram by its rarity ln(1 + N/df), divided by the number of held-out texts that hold it.

    N pool texts, df those that hold it (at least 1); 0 if df is above `max_frequency`. An n-gram in k held-out texts
    comes from any of them with probability 1/k, so frames such as "I do not know what I have to do to" count little.
    The totals are not divided: a text of frames alone cannot be recognised by them.

    Source: rarity-weighted overlap as in allenai/decon.
    """
    table = [round(WEIGHT_UNIT * math.log(1 + n_pool / max(df, 1))) for df in range(max_frequency + 1)]
    rare = frequencies <= max_frequency
    rarities = np.where(rare, np.array(table, np.int64)[np.where(rare, frequencies, 0)], 0)
    n_held_out = np.bincount(index.held_out.values, minlength=index.n_grams)
    return Containment(
        rarities // np.maximum(n_held_out, 1), sum_per_text(rarities, index.held_out), *index.postings(), index.held_out
    )


def sum_per_text(values: Ints, held_out: NumberLists) -> Ints:
    """Add up the values of each text's n-grams."""
    running = np.concatenate(([0], np.cumsum(values[held_out.values])))
    sums: Ints = np.diff(running[held_out.ends], prepend=0)
    return sums


class RarePrefix:
    """Held-out texts by the rarest of their n-grams: a text with J >= threshold holds at least one of them.

    J >= t needs t of the held-out text's own n-grams in common, so one among its n - ceil(t n) + 1 rarest.
    Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006.
    """

    def __init__(self, index: GramIndex, frequencies: Ints, *, threshold: float) -> None:
        self._held_out = index.held_out
        self._threshold = threshold
        self.sizes = sizes = self._held_out.sizes
        texts = np.repeat(np.arange(sizes.shape[0]), sizes)
        order = np.lexsort((self._held_out.values, frequencies[self._held_out.values], texts))
        self._rarest_first = self._held_out.values[order]
        rank = np.empty(order.shape[0], np.int64)
        rank[order] = np.arange(order.shape[0]) - np.repeat(self._held_out.ends - sizes, sizes)
        n_prefix = sizes - np.ceil(threshold * sizes - 1e-9).astype(np.int64) + 1
        self._posting_ends, self._postings = index.postings(rank < n_prefix[texts])

    def best(self, found: NumberLists, sizes: Ints, *, where: str) -> tuple[Numbers, Ints]:
        """Return per pool text the held-out text with the greatest J (-1: none reaches it), and how much they share.

        Args:
            sizes: Distinct n-grams of each pool text; a lower bound makes J an upper bound; negative skips the text.

        Raises:
            DataError: more than `MAX_COMPARISONS` comparisons.
        """
        best, common = np.full(found.ends.shape[0], -1, np.int32), np.zeros(found.ends.shape[0], np.int64)
        places = (self._posting_ends, self._postings, self._held_out.ends, self._rarest_first)
        limits = (self._threshold, MAX_COMPARISONS)
        work = (np.full(self._posting_ends.shape[0], -1, np.int64), np.full(self.sizes.shape[0], -1, np.int64))
        if best_jaccard(found.values, found.ends, sizes, *places, *limits, *work, best, common) > MAX_COMPARISONS:
            raise DataError(
                "too many texts nearly repeat held-out ones just below the threshold to compare all pairs",
                code="TG0250",
                where=where,
                hint="drop the template (an alarm, an auto-reply) with a filter rule first, or raise near_threshold",
            )
        return best, common


class EqualTexts:
    """Held-out texts by all their words; a text without a word equals none."""

    def __init__(self, held_out: NumberLists) -> None:
        self._first: dict[bytes, int] = {}
        for number, words in _each(held_out, range(held_out.ends.shape[0])):
            if words.shape[0]:
                self._first.setdefault(words.tobytes(), number)
        self._signs = np.unique(_signs(held_out))

    def find(self, words: NumberLists) -> dict[int, int]:
        """Return for each pool text the first held-out text with the same words."""
        numbers = np.flatnonzero(np.isin(_signs(words), self._signs) & (words.sizes > 0)).tolist()
        pairs = ((number, self._first.get(own.tobytes())) for number, own in _each(words, numbers))
        return {number: other for number, other in pairs if other is not None}


def _signs(rows: NumberLists) -> Ints:
    """Return a number per text that is equal for equal texts, so that few unequal texts are compared."""
    running = np.concatenate(([0], np.cumsum(rows.values, dtype=np.int64)))
    signs: Ints = np.diff(running[rows.ends], prepend=0) * 65_536 + rows.sizes
    return signs


def _each(rows: NumberLists, numbers: Sequence[int]) -> list[tuple[int, Numbers]]:
    starts = rows.ends - rows.sizes
    return [(number, rows.values[starts[number] : rows.ends[number]]) for number in numbers]


def _empty_slots(n_most: int) -> Numbers:
    return np.full(1 << max(4, (2 * n_most).bit_length()), -1, np.int32)


def _buffers(texts: pa.Array) -> tuple[NDArray[np.uint8], Numbers]:
    _, offsets, data = texts.buffers()
    bounds: Any = np.frombuffer(offsets, np.int32, len(texts) + 1, 4 * texts.offset)
    return np.frombuffer(data or b"", np.uint8), bounds
