"""The application's own near-duplicate join, from Parquet to one cluster per ticket."""

from __future__ import annotations

import sys

from tasks.curate.similarity.jaccard import number_shingles
from tasks.curate.similarity.words import normal_form, words_of

THRESHOLD = 0.7

if __name__ == "__main__":
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.curate.dedup import connect_components, pick_survivors

    _, corpus, answer = sys.argv[1:4]
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE texts AS SELECT id, {normal_form('text')} AS normal FROM read_parquet('{corpus}')")
        con.execute(f"CREATE TABLE documents AS SELECT id::INTEGER AS doc, {words_of('normal')} AS words FROM texts")
        shingles = number_shingles(con, documents="documents", n_words=3, threshold=THRESHOLD)
        clusters = connect_components(shingles, pick_survivors(shingles))
    table = pa.table({"id": pa.array(range(len(clusters)), pa.int64()), "cluster": pa.array(clusters, pa.int64())})
    pq.write_table(table, answer)
