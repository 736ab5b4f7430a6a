"""The near-duplicate join that `tasks/curate/dedup.py` uses, from Parquet to one cluster per ticket.

It decides more than is written here: which ticket stays, and for each other one the most similar that stays. What the
whole step adds (normal parts of a mail, the tables) is in `make bench-curate`.
"""

from __future__ import annotations

import sys
from pathlib import Path

THRESHOLD = 0.7
N_WORDS = 3

if __name__ == "__main__":
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.curate.similarity.families import decide
    from tasks.curate.similarity.join import MAX_COMPARISONS
    from tasks.curate.similarity.shingles import shingle_sets, text_batches
    from tasks.warehouse import connect, quote_text

    _, corpus, answer = sys.argv[1:4]
    with connect(readable=(Path(corpus),)) as connection:
        batches = text_batches(connection, relation=f"read_parquet({quote_text(corpus)})", text="text")
        sets = shingle_sets(batches, n_words=N_WORDS)
    ids = np.arange(len(sets))
    decisions = decide(
        sets, order=ids, near=True, threshold=THRESHOLD, max_comparisons=MAX_COMPARISONS, where="benchmark"
    )
    pq.write_table(pa.table({"id": ids, "cluster": decisions.component}), answer)
