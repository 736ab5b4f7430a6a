"""datatrove's three MinHash stages with two workers, its own tokenizer and normalisation.

Modes: `own` are FineWeb's settings (5-grams, 14 bands of 8), `wide` are 3-grams in 32 bands of 4. The corpus is cut
in two files first, because datatrove shares out work by file.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from shared import arguments, write_answer

N_FILES = 2
CONFIGS = {
    "own": MinhashConfig(),
    "wide": MinhashConfig(n_grams=3, num_buckets=32, hashes_per_bucket=4),
}


def run_stages(config: MinhashConfig, scratch: Path) -> None:
    """Signatures, buckets, clusters."""

    def stage(name: str, steps: list[object], tasks: int) -> None:
        LocalPipelineExecutor(
            pipeline=steps, tasks=tasks, workers=min(2, tasks), logging_dir=str(scratch / "logs" / name)
        ).run()

    def place(name: str) -> str:
        return str(scratch / name)

    stage("one", [ParquetReader(place("in")), MinhashDedupSignature(place("signatures"), config)], N_FILES)
    stage("two", [MinhashDedupBuckets(place("signatures"), place("buckets"), config=config)], config.num_buckets)
    stage("three", [MinhashDedupCluster(place("buckets"), place("clusters"), config, save_cluster_id=True)], 1)


if __name__ == "__main__":
    mode, corpus, answer = arguments()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        table = pq.read_table(corpus, columns=["id", "text"])
        half = -(-len(table) // N_FILES)
        (scratch / "in").mkdir()
        for part in range(N_FILES):
            pq.write_table(table.slice(part * half, half), scratch / "in" / f"{part}.parquet")
        run_stages(CONFIGS[mode], scratch)
        clusters = np.arange(len(table)) + len(table)  # a ticket in no cluster is its own
        for part in range(N_FILES):
            path = scratch / "clusters" / f"{part:06d}.clusters"
            for doc, cluster in struct.iter_unpack("<II", path.read_bytes() if path.exists() else b""):
                clusters[part * half + doc] = cluster
        write_answer(answer, "cluster", clusters)
