"""All engines of `bench-dedup`: from a Parquet file (id, text) to one answer per ticket.

Run as `python dedup.py LIBRARY MODE CORPUS ANSWER` in the library's own environment, which lacks the application; so
each function imports what it needs, and imports are timed. The task is the same for all: words are `\\w+` of the
lower-cased text, shingles are runs of 3 words, the threshold is a Jaccard similarity of 0.7, signatures have 128 slots
in 32 bands of 4, unless a mode says otherwise.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

THRESHOLD = 0.7
N_SLOTS = 128
N_BANDS = 32
SEED = 42
_WORD = re.compile(r"\w+")


def tunegate(_mode: str, corpus: Path, answer: Path) -> None:
    """The near-duplicate join that `tasks/curate/dedup.py` uses.

    It also decides more than it writes here: which ticket stays, and for each other one the most similar that stays.
    `make bench-curate` includes the rest of the step (normalising mails, the tables).
    """
    import numpy as np

    from tasks.curate.similarity.families import decide
    from tasks.curate.similarity.join import MAX_COMPARISONS
    from tasks.curate.similarity.shingles import BATCH_ROWS, shingle_sets
    from tasks.storage.warehouse import connect, quote_text

    with connect(readable=(corpus,)) as connection:
        texts = connection.sql(f"SELECT text FROM read_parquet({quote_text(str(corpus))})")
        sets = shingle_sets((batch.column(0) for batch in texts.to_arrow_reader(BATCH_ROWS)), n_words=3)
    decisions = decide(
        sets, order=np.arange(len(sets)), near=True, threshold=THRESHOLD, max_comparisons=MAX_COMPARISONS,
        where="benchmark",
    )  # fmt: skip
    write_answer(answer, "cluster", decisions.component)


def duckdb(mode: str, corpus: Path, answer: Path) -> None:
    """DuckDB alone. `floor`: GROUP BY a hash of the text. `exact`: the same with the group's smallest id on every row.
    `minhash`: near duplicates by MinHash (16 bands of 4) in SQL, each candidate checked exactly."""
    import duckdb

    with duckdb.connect() as con:
        source = f"read_parquet('{corpus}')"
        if mode == "floor":
            con.execute(f"COPY (SELECT min(id) AS id FROM {source} GROUP BY hash(text)) TO '{answer}' (FORMAT parquet)")
        elif mode == "exact":
            con.execute(
                f"COPY (WITH groups AS (SELECT hash(text) AS key, min(id) AS cluster FROM {source} GROUP BY key) "
                f"SELECT id, cluster FROM {source} JOIN groups ON key = hash(text)) TO '{answer}' (FORMAT parquet)"
            )
        else:
            n = con.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0]
            write_answer(answer, "cluster", join_pairs(n, _minhash_pairs(con, corpus)))


def _minhash_pairs(con: Any, corpus: Path, *, n_bands: int = 16, n_rows: int = 4) -> list[tuple[int, int]]:
    """Pairs with the first ticket of a band: a star, not all pairs of the bucket."""
    con.execute(f"""
        CREATE TABLE sets AS WITH words AS (
            SELECT id, list_transform(regexp_extract_all(lower(text), '\\w+'), lambda word: hash(word)) AS words
            FROM read_parquet('{corpus}'))
        SELECT id, list_distinct(list_transform(range(1, greatest(len(words) - 1, 2)),
                                                lambda i: hash(words[i:i + 2]))) AS shingles FROM words""")
    slots = [f"list_min(list_transform(shingles, lambda s: hash(s, {SEED + n})))" for n in range(n_bands * n_rows)]
    values = [f"hash({', '.join(slots[band * n_rows : (band + 1) * n_rows])})" for band in range(n_bands)]
    con.execute(
        f"CREATE TABLE bands AS "
        f"SELECT id, unnest([{', '.join(values)}]) AS value, unnest(range({n_bands})) AS band FROM sets"
    )
    return con.execute(f"""
        WITH stars AS (SELECT id, min(id) OVER (PARTITION BY band, value) AS first FROM bands),
        candidates AS (SELECT DISTINCT first, id FROM stars WHERE first < id),
        compared AS (
            SELECT first, c.id, len(list_intersect(a.shingles, b.shingles)) AS common,
                   len(a.shingles) + len(b.shingles) AS total
            FROM candidates c JOIN sets a ON a.id = first JOIN sets b ON b.id = c.id)
        SELECT first, id FROM compared WHERE common >= {THRESHOLD} * (total - common)""").fetchall()


def rensa(mode: str, corpus: Path, answer: Path) -> None:
    """rensa, in the five ways of its README, and `hashed`, the fastest that we could build with it.

    `clusters`: candidates from LSH, kept if the signatures' own estimate reaches the threshold. `inline` and
    `c-minhash`: a ticket stays if none before it is similar by estimate. `flags`: True for a ticket that shares a band
    with another, unchecked. `rho`: the same from sampled tokens, with the eight bands of rensa's own benchmark.
    `hashed`: flags with words hashed in DuckDB, which avoids a Python object per word; not a product.
    """
    from rensa import CMinHashDeduplicator, RMinHash, RMinHashDeduplicator, RMinHashLSH

    texts = [] if mode == "hashed" else read_texts(corpus)
    if mode == "clusters":
        sketches = [
            sketch for tokens in shingle_batches(texts) for sketch in RMinHash.from_token_sets(tokens, N_SLOTS, SEED)
        ]
        index = RMinHashLSH(THRESHOLD, N_SLOTS, N_BANDS)
        index.insert_many(sketches)
        pairs = (
            (one, two)
            for one, found in enumerate(index.query_all(sketches))
            for two in found
            if two > one and sketches[one].jaccard(sketches[two]) >= THRESHOLD
        )
        write_answer(answer, "cluster", join_pairs(len(texts), pairs))
    elif mode in ("inline", "c-minhash"):
        if mode == "inline":
            known = RMinHashDeduplicator(THRESHOLD, N_SLOTS, True, N_BANDS, SEED)
        else:
            known = CMinHashDeduplicator(THRESHOLD, N_SLOTS, SEED)
        keep: list[bool] = []
        for tokens in shingle_batches(texts):
            keep += known.add_pairs([(str(len(keep) + place), runs) for place, runs in enumerate(tokens)])
        write_answer(answer, "keep", keep)
    else:
        if mode == "hashed":
            matrix = RMinHash.digest_matrix_from_flat_token_hashes(*_hashed_shingles(corpus), N_SLOTS, SEED)
        elif mode == "rho":
            matrix = RMinHash.digest_matrix_from_token_sets_rho(shingle_lists(texts), N_SLOTS, SEED)
        else:
            matrix = RMinHash.digest_matrix_from_token_sets(shingle_lists(texts), N_SLOTS, SEED)
        index = RMinHashLSH(THRESHOLD, N_SLOTS, 8 if mode == "rho" else N_BANDS)
        write_answer(answer, "flag", index.query_duplicate_flags_matrix_one_shot(matrix))


def _hashed_shingles(corpus: Path) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all texts' shingles, and the start of each text."""
    import duckdb
    import numpy as np

    with duckdb.connect() as con:
        lists = con.sql(f"""
            WITH words AS (
                SELECT id, list_transform(regexp_extract_all(lower(text), '\\w+'), lambda word: hash(word)) AS words
                FROM read_parquet('{corpus}'))
            SELECT list_transform(range(1, greatest(len(words) - 1, 2)), lambda i: hash(words[i:i + 2])) AS shingles
            FROM words ORDER BY id""").to_arrow_table()["shingles"]
    column = lists.combine_chunks()
    return column.values.to_numpy(), column.offsets.to_numpy().astype(np.uint64)


def datasketch(_mode: str, corpus: Path, answer: Path) -> None:
    """`MinHash.bulk`, `MinHashLSH`, and the signatures' estimate for each candidate."""
    from datasketch import MinHash, MinHashLSH

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


def fastsketch(_mode: str, corpus: Path, answer: Path) -> None:
    """FastSketchLSH: batch sketches, LSH, and the sketches' estimate for each candidate."""
    import numpy as np
    from FastSketchLSH import LSH, FastSimilaritySketch

    sketcher = FastSimilaritySketch(size=N_SLOTS, seed=SEED)
    sketches = np.concatenate([sketcher.batch(tokens) for tokens in shingle_batches(read_texts(corpus))])
    index = LSH(num_perm=N_SLOTS, num_bands=N_BANDS)
    index.insert(sketches)
    pairs = []
    for start in range(0, len(sketches), 1000):
        for one, found in enumerate(index.query(sketches[start : start + 1000]), start):
            pairs += [
                (one, two)
                for two in found
                if two > one and int((sketches[one] == sketches[two]).sum()) >= THRESHOLD * N_SLOTS
            ]
    write_answer(answer, "cluster", join_pairs(len(sketches), pairs))


def textdedup(mode: str, corpus: Path, answer: Path) -> None:
    """text-dedup's MinHash pipeline, as run by its command line.

    `own` lets it choose its bands (14 of 9 here), `checked` adds its check of false positives, `wide` is checked, with
    32 bands of 4. The clusters come from its column, before it removes anything: version 0.4.1 removes every member of
    an unchecked cluster.
    """
    import numpy as np

    bands = f"bands = {N_BANDS}\nrows = {N_SLOTS // N_BANDS}\n" if mode == "wide" else ""
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        os.environ["HF_HOME"] = str(scratch / "hf")
        from datasets import load_from_disk
        from text_dedup.config.base import load_config_from_toml
        from text_dedup.minhash import main

        (scratch / "config.toml").write_text(f"""
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
""")
        main(load_config_from_toml(scratch / "config.toml"))
        rows = load_from_disk(str(scratch / "out"))
        index, found = np.array(rows["__INDEX__"]), np.array(rows["__CLUSTER__"])
        # Unchecked clusters are numbered from 0, and single tickets have their own index: avoid collisions.
        alone = ~np.array(rows["__duplicate__"]) if mode == "own" else np.zeros(len(rows), dtype=bool)
        clusters = np.empty(len(rows), dtype=np.int64)
        clusters[index] = np.where(alone, found + len(rows), found)
        write_answer(answer, "cluster", clusters)


def datatrove(mode: str, corpus: Path, answer: Path) -> None:
    """datatrove's three MinHash stages with two workers, its own tokenizer and normalisation.

    `own` uses FineWeb's settings (5-grams, 14 bands of 8), `wide` 3-grams in 32 bands of 4. The corpus is first split
    into two files, because datatrove distributes work by file.
    """
    import struct

    import numpy as np
    import pyarrow.parquet as pq
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader

    n_files = 2
    config = MinhashConfig(n_grams=3, num_buckets=32, hashes_per_bucket=4) if mode == "wide" else MinhashConfig()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        read, signatures, buckets, clusters_of = (
            str(scratch / name) for name in ("in", "signatures", "buckets", "clusters")
        )

        def stage(name: str, steps: list[object], tasks: int) -> None:
            logs = str(scratch / "logs" / name)
            LocalPipelineExecutor(pipeline=steps, tasks=tasks, workers=min(2, tasks), logging_dir=logs).run()

        texts = pq.read_table(corpus, columns=["id", "text"])
        half = -(-len(texts) // n_files)
        (scratch / "in").mkdir()
        for part in range(n_files):
            pq.write_table(texts.slice(part * half, half), scratch / "in" / f"{part}.parquet")
        stage("one", [ParquetReader(read), MinhashDedupSignature(signatures, config)], n_files)
        stage("two", [MinhashDedupBuckets(signatures, buckets, config=config)], config.num_buckets)
        stage("three", [MinhashDedupCluster(buckets, clusters_of, config, save_cluster_id=True)], 1)
        clusters = np.arange(len(texts)) + len(texts)  # a ticket in no cluster is its own
        for part in range(n_files):
            path = scratch / "clusters" / f"{part:06d}.clusters"
            for doc, cluster in struct.iter_unpack("<II", path.read_bytes() if path.exists() else b""):
                clusters[part * half + doc] = cluster
        write_answer(answer, "cluster", clusters)


def semhash(_mode: str, corpus: Path, answer: Path) -> None:
    """semhash with wordllama's static embeddings, the only encoder that is part of a wheel.

    It compares meaning, not words, at a cosine of 0.97, so its accuracy against an oracle of shared words is only a
    rough indication.
    """
    import wordllama
    from semhash import SemHash
    from wordllama import WordLlama

    class Encoder:
        """An encoder with semhash's interface."""

        _model = WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

        def encode(self, inputs: Iterable[str], **_: Any) -> np.ndarray:
            """Vectors of the texts."""
            return self._model.embed(list(inputs))

    texts = read_texts(corpus)
    records = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    result = SemHash.from_records(records, columns=["text"], model=Encoder()).self_deduplicate(threshold=0.97)
    pairs = [(int(found.record["id"]), int(found.duplicate_of["id"])) for found in result.filtered]
    write_answer(answer, "cluster", join_pairs(len(texts), pairs))


def read_texts(corpus: Path) -> list[str]:
    """The texts in the order of their ids, which start at 0."""
    import pyarrow.parquet as pq

    return pq.read_table(corpus, columns=["text"])["text"].to_pylist()


def shingle_lists(texts: Iterable[str]) -> list[list[str]]:
    """Each text's runs of three words, including repeated ones, which do not affect sketches."""
    found = []
    for text in texts:
        words = _WORD.findall(text.lower())
        runs = [f"{one} {two} {three}" for one, two, three in zip(words, words[1:], words[2:], strict=False)]
        found.append(runs or [" ".join(words)])
    return found


def shingle_batches(texts: list[str], size: int = 10_000) -> Iterator[list[list[str]]]:
    """`shingle_lists` of some thousand texts at a time, for interfaces that do not need all at once: less memory."""
    for start in range(0, len(texts), size):
        yield shingle_lists(texts[start : start + size])


def join_pairs(n: int, pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Cluster of each ticket: the smallest id connected to it."""
    import numpy as np

    parent = list(range(n))

    def root_of(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for one, two in pairs:
        low, high = sorted((root_of(one), root_of(two)))
        parent[high] = low
    return np.array([root_of(one) for one in range(n)])


def write_answer(path: Path, name: str, values: np.ndarray | list[bool]) -> None:
    """Write one row per ticket: `cluster`, `keep` (stays), or `flag` (has a partner).

    From buffers: `pyarrow.array` imports pandas, a quarter of a second, in those environments that have it.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def column(values: np.ndarray) -> pa.Array:
        return pa.Array.from_buffers(pa.type_for_alias(values.dtype.name), len(values), [None, pa.py_buffer(values)])

    whole = np.asarray(values)
    is_bool = whole.dtype == np.bool_
    answers = column(np.ascontiguousarray(whole.view(np.uint8) if is_bool else whole))
    ids = column(np.arange(len(whole)))
    pq.write_table(pa.table({"id": ids, name: pc.cast(answers, pa.bool_()) if is_bool else answers}), path)


LIBRARIES = {
    "tunegate": tunegate, "duckdb": duckdb, "rensa": rensa, "datasketch": datasketch, "fastsketch": fastsketch,
    "text-dedup": textdedup, "datatrove": datatrove, "semhash": semhash,
}  # fmt: skip

if __name__ == "__main__":
    LIBRARIES[sys.argv[1]](sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
