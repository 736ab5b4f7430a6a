"""text-dedup's MinHash pipeline, as its command line runs it.

Modes: `own` lets it choose its bands (14 of 9 here), `checked` adds its check of false positives, `wide` is checked
with 32 bands of 4. The clusters are read from the column it leaves, before it removes anything: version 0.4.1 removes
every member of an unchecked cluster.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from shared import N_BANDS, N_SLOTS, SEED, THRESHOLD, arguments, write_answer


def settings(mode: str, corpus: Path, scratch: Path) -> str:
    """The TOML file."""
    bands = f"bands = {N_BANDS}\nrows = {N_SLOTS // N_BANDS}\n" if mode == "wide" else ""
    return f"""
[input]
input_type = "local_files"
file_type = "parquet"
[input.read_arguments]
path = "parquet"
data_files = "{corpus}"
split = "train"
columns = ["id", "text"]
[algorithm]
algorithm_name = "minhash"
text_column = "text"
seed = {SEED}
num_perm = {N_SLOTS}
ngram_size = 3
threshold = {THRESHOLD}
min_length = 1
{bands}check_false_positive = {str(mode != "own").lower()}
[output]
output_dir = "{scratch / "out"}"
skip_filtering = true
keep_index_column = true
keep_cluster_column = true
[debug]
enable_profiling = false
"""


if __name__ == "__main__":
    mode, corpus, answer = arguments()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ["HF_HOME"] = str(scratch / "hf")
        from datasets import load_from_disk
        from text_dedup.config.base import load_config_from_toml
        from text_dedup.minhash import main

        (scratch / "config.toml").write_text(settings(mode, corpus, scratch))
        main(load_config_from_toml(scratch / "config.toml"))
        rows = load_from_disk(str(scratch / "out"))
        index, found = np.array(rows["__INDEX__"]), np.array(rows["__CLUSTER__"])
        # Unchecked clusters are numbered from 0, tickets in none have their own index: kept apart here.
        alone = ~np.array(rows["__duplicate__"]) if mode == "own" else np.zeros(len(rows), dtype=bool)
        clusters = np.empty(len(rows), dtype=np.int64)
        clusters[index] = np.where(alone, found + len(rows), found)
        write_answer(answer, "cluster", clusters)
    sys.exit(0)
