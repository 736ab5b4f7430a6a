"""datasketch: `MinHash.bulk`, `MinHashLSH`, and the signatures' estimate for each candidate."""

from __future__ import annotations

from datasketch import MinHash, MinHashLSH
from shared import N_BANDS, N_SLOTS, SEED, THRESHOLD, arguments, join_pairs, read_texts, shingle_batches, write_answer

if __name__ == "__main__":
    _, corpus, answer = arguments()
    sketches = []
    for batch in shingle_batches(read_texts(corpus)):
        tokens = [[run.encode() for run in runs] for runs in batch]
        sketches += MinHash.bulk(tokens, num_perm=N_SLOTS, seed=SEED)
    index = MinHashLSH(num_perm=N_SLOTS, params=(N_BANDS, N_SLOTS // N_BANDS))
    pairs = []
    for one, sketch in enumerate(sketches):
        pairs += [(one, two) for two in index.query(sketch) if sketch.jaccard(sketches[two]) >= THRESHOLD]
        index.insert(one, sketch, check_duplication=False)
    write_answer(answer, "cluster", join_pairs(len(sketches), pairs))
