"""FastSketchLSH: batch sketches, LSH, and the sketches' estimate for each candidate."""

from __future__ import annotations

import numpy as np
from FastSketchLSH import LSH, FastSimilaritySketch
from shared import N_BANDS, N_SLOTS, SEED, arguments, estimated, join_pairs, read_texts, shingle_batches, write_answer

if __name__ == "__main__":
    _, corpus, answer = arguments()
    sketcher = FastSimilaritySketch(size=N_SLOTS, seed=SEED)
    sketches = np.concatenate([sketcher.batch(tokens) for tokens in shingle_batches(read_texts(corpus))])
    index = LSH(num_perm=N_SLOTS, num_bands=N_BANDS)
    index.insert(sketches)
    pairs = []
    for start in range(0, len(sketches), 1000):
        for place, found in enumerate(index.query(sketches[start : start + 1000])):
            one = start + place
            pairs += [(one, two) for two in found if two > one and estimated(sketches[one], sketches[two])]
    write_answer(answer, "cluster", join_pairs(len(sketches), pairs))
