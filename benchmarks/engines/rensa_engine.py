"""rensa, in the five ways its README shows: clusters through LSH, inline, flags of a whole matrix, rho, C-MinHash.

A sixth, `hashed`, is the fastest we could make of it: the words are hashed in DuckDB, so that no Python object per
word is made, and rensa takes the hashes. Nobody ships that.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rensa import CMinHashDeduplicator, RMinHash, RMinHashDeduplicator, RMinHashLSH
from shared import (
    N_BANDS,
    N_SLOTS,
    SEED,
    THRESHOLD,
    arguments,
    join_pairs,
    read_texts,
    shingle_batches,
    shingle_lists,
    write_answer,
)


def clusters(texts: list[str]) -> np.ndarray:
    """Candidates from LSH, kept where the signatures' own estimate reaches the threshold."""
    sketches = []
    for tokens in shingle_batches(texts):
        sketches += RMinHash.from_token_sets(tokens, N_SLOTS, SEED)
    index = RMinHashLSH(THRESHOLD, N_SLOTS, N_BANDS)
    index.insert_many(sketches)

    def pairs() -> Iterator[tuple[int, int]]:
        for one, found in enumerate(index.query_all(sketches)):
            for two in found:
                if two > one and sketches[one].jaccard(sketches[two]) >= THRESHOLD:
                    yield one, two

    return join_pairs(len(texts), pairs())


def inline(texts: list[str]) -> list[bool]:
    """A ticket stays when none before it is similar by estimate."""
    return _add_all(RMinHashDeduplicator(THRESHOLD, N_SLOTS, True, N_BANDS, SEED), texts)


def inline_circulant(texts: list[str]) -> list[bool]:
    """The same with C-MinHash."""
    return _add_all(CMinHashDeduplicator(THRESHOLD, N_SLOTS, SEED), texts)


def _add_all(index: RMinHashDeduplicator | CMinHashDeduplicator, texts: list[str]) -> list[bool]:
    keep: list[bool] = []
    for tokens in shingle_batches(texts):
        keep += index.add_pairs([(str(len(keep) + place), runs) for place, runs in enumerate(tokens)])
    return keep


def matrix_flags(texts: list[str]) -> list[bool]:
    """True for a ticket that shares a band with another; nothing is checked. The call takes all texts at once."""
    matrix = RMinHash.digest_matrix_from_token_sets(shingle_lists(texts), N_SLOTS, SEED)
    return RMinHashLSH(THRESHOLD, N_SLOTS, N_BANDS).query_duplicate_flags_matrix_one_shot(matrix)


def rho_flags(texts: list[str]) -> list[bool]:
    """The same from sampled tokens, with the eight bands of rensa's own benchmark."""
    matrix = RMinHash.digest_matrix_from_token_sets_rho(shingle_lists(texts), N_SLOTS, SEED)
    return RMinHashLSH(THRESHOLD, N_SLOTS, 8).query_duplicate_flags_matrix_one_shot(matrix)


def hashed_flags(corpus: Path) -> list[bool]:
    """The flags of a whole matrix, from shingles hashed in SQL."""
    import duckdb

    with duckdb.connect() as con:
        lists = con.sql(f"""
            WITH words AS (
                SELECT id, list_transform(regexp_extract_all(lower(text), '\\w+'), lambda word: hash(word)) AS words
                FROM read_parquet('{corpus}'))
            SELECT list_transform(range(1, greatest(len(words) - 1, 2)), lambda i: hash(words[i:i + 2])) AS shingles
            FROM words ORDER BY id""").to_arrow_table()["shingles"]
    column = lists.combine_chunks()
    hashes, offsets = column.values.to_numpy(), column.offsets.to_numpy().astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, N_SLOTS, SEED)
    return RMinHashLSH(THRESHOLD, N_SLOTS, N_BANDS).query_duplicate_flags_matrix_one_shot(matrix)


MODES = {
    "clusters": ("cluster", clusters),
    "inline": ("keep", inline),
    "c-minhash": ("keep", inline_circulant),
    "flags": ("flag", matrix_flags),
    "rho": ("flag", rho_flags),
}

if __name__ == "__main__":
    mode, corpus, answer = arguments()
    if mode == "hashed":
        write_answer(answer, "flag", hashed_flags(corpus))
    else:
        column, run = MODES[mode]
        write_answer(answer, column, run(read_texts(corpus)))
