"""rensa, in the five ways its README shows: clusters through LSH, inline, flags of a whole matrix, rho, C-MinHash."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rensa import CMinHashDeduplicator, RMinHash, RMinHashDeduplicator, RMinHashLSH
from shared import N_BANDS, N_SLOTS, SEED, THRESHOLD, arguments, join_pairs, read_texts, shingle_lists, write_answer


def clusters(tokens: list[list[str]]) -> np.ndarray:
    """Candidates from LSH, kept where the signatures' own estimate reaches the threshold."""
    sketches = RMinHash.from_token_sets(tokens, N_SLOTS, SEED)
    index = RMinHashLSH(THRESHOLD, N_SLOTS, N_BANDS)
    index.insert_many(sketches)

    def pairs() -> Iterator[tuple[int, int]]:
        for one, found in enumerate(index.query_all(sketches)):
            for two in found:
                if two > one and sketches[one].jaccard(sketches[two]) >= THRESHOLD:
                    yield one, two

    return join_pairs(len(tokens), pairs())


def inline(tokens: list[list[str]]) -> list[bool]:
    """A ticket stays when none before it is similar by estimate."""
    index = RMinHashDeduplicator(THRESHOLD, N_SLOTS, True, N_BANDS, SEED)
    return index.add_pairs([(str(number), runs) for number, runs in enumerate(tokens)])


def inline_circulant(tokens: list[list[str]]) -> list[bool]:
    """The same with C-MinHash."""
    index = CMinHashDeduplicator(THRESHOLD, N_SLOTS, SEED)
    return index.add_pairs([(str(number), runs) for number, runs in enumerate(tokens)])


def matrix_flags(tokens: list[list[str]]) -> list[bool]:
    """True for a ticket that shares a band with another; nothing is checked."""
    matrix = RMinHash.digest_matrix_from_token_sets(tokens, N_SLOTS, SEED)
    return RMinHashLSH(THRESHOLD, N_SLOTS, N_BANDS).query_duplicate_flags_matrix_one_shot(matrix)


def rho_flags(tokens: list[list[str]]) -> list[bool]:
    """The same from sampled tokens, with the eight bands of rensa's own benchmark."""
    matrix = RMinHash.digest_matrix_from_token_sets_rho(tokens, N_SLOTS, SEED)
    return RMinHashLSH(THRESHOLD, N_SLOTS, 8).query_duplicate_flags_matrix_one_shot(matrix)


MODES = {
    "clusters": ("cluster", clusters),
    "inline": ("keep", inline),
    "c-minhash": ("keep", inline_circulant),
    "flags": ("flag", matrix_flags),
    "rho": ("flag", rho_flags),
}

if __name__ == "__main__":
    mode, corpus, answer = arguments()
    column, run = MODES[mode]
    write_answer(answer, column, run(shingle_lists(read_texts(corpus))))
