"""Sets of shingles that travel: those of some texts of one part, or of texts that came together from several.

A text is known by its rank: its place in the declared order of preference among all texts. Arrays may be shared with
other processes, so none is written to. Called by `tasks/curate/parts/dedup_work.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.curate.similarity.shingles import ShingleSets, starts_of

_DENSE = 0.15
"""Share of a part's hashes from which going through all of them is faster than fetching each."""


@dataclass(frozen=True)
class Piece:
    """The texts of a range of rows: their sets, in the order of the rows, one after the other."""

    sets: ShingleSets
    ranks: Any
    """int64: the rank of each."""


@dataclass(frozen=True)
class Chosen:
    """Some texts with their sets."""

    ranks: Any
    sizes: Any
    hashes: Any
    """uint64: their sets, one after the other."""

    @property
    def nbytes(self) -> int:
        """What travels."""
        return int(self.ranks.nbytes + self.sizes.nbytes + self.hashes.nbytes)


def choose(piece: Piece, texts: Any) -> Chosen:
    """These texts of a part, by their numbers in ascending order."""
    sets = piece.sets
    sizes = sets.sizes[texts]
    n_hashes = int(sizes.sum(dtype=np.int64))
    if n_hashes == len(sets.hashes):
        hashes = sets.hashes
    elif n_hashes > _DENSE * len(sets.hashes):
        wanted = np.zeros(len(sets), bool)
        wanted[texts] = True
        hashes = sets.hashes[np.repeat(wanted, sets.sizes)]
    else:
        places = np.arange(n_hashes) + np.repeat(sets.starts[texts] - starts_of(sizes), sizes)
        hashes = sets.hashes[places]
    return Chosen(piece.ranks[texts], sizes, hashes)


def sets_of(several: Sequence[Chosen]) -> tuple[Any, ShingleSets]:
    """Ranks and sets of all of them; their keys, which nobody asks for any more, are 0."""
    sizes = np.concatenate([np.empty(0, np.int32), *(each.sizes for each in several)])
    hashes = np.concatenate([np.empty(0, np.uint64), *(each.hashes for each in several)])
    ranks = np.concatenate([np.empty(0, np.int64), *(each.ranks for each in several)])
    return ranks, ShingleSets(hashes, starts_of(sizes), sizes, np.zeros((len(sizes), 2), np.uint64))
