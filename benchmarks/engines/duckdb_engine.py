"""DuckDB alone. `floor`: GROUP BY a hash of the text. `exact`: the same with the group's smallest id on every row.
`minhash`: near duplicates by MinHash (16 bands of 4) in SQL, each candidate checked exactly."""

from __future__ import annotations

import sys

import duckdb

THRESHOLD, SEED = 0.7, 42
N_BANDS, N_ROWS = 16, 4


def near_pairs(con: duckdb.DuckDBPyConnection, corpus: str) -> list[tuple[int, int]]:
    """Pairs with the band's first ticket: a star, not every pair of the bucket."""
    con.execute(f"""
        CREATE TABLE sets AS WITH words AS (
            SELECT id, list_transform(regexp_extract_all(lower(text), '\\w+'), lambda word: hash(word)) AS words
            FROM read_parquet('{corpus}'))
        SELECT id, list_distinct(list_transform(range(1, greatest(len(words) - 1, 2)),
                                                lambda i: hash(words[i:i + 2]))) AS shingles FROM words""")
    slots = [f"list_min(list_transform(shingles, lambda s: hash(s, {SEED + n})))" for n in range(N_BANDS * N_ROWS)]
    values = [f"hash({', '.join(slots[band * N_ROWS : (band + 1) * N_ROWS])})" for band in range(N_BANDS)]
    con.execute(
        f"CREATE TABLE bands AS "
        f"SELECT id, unnest([{', '.join(values)}]) AS value, unnest(range({N_BANDS})) AS band FROM sets"
    )
    return con.execute(f"""
        WITH stars AS (SELECT id, min(id) OVER (PARTITION BY band, value) AS first FROM bands),
        candidates AS (SELECT DISTINCT first, id FROM stars WHERE first < id),
        compared AS (
            SELECT first, c.id, len(list_intersect(a.shingles, b.shingles)) AS common,
                   len(a.shingles) + len(b.shingles) AS total
            FROM candidates c JOIN sets a ON a.id = first JOIN sets b ON b.id = c.id)
        SELECT first, id FROM compared WHERE common >= {THRESHOLD} * (total - common)""").fetchall()


if __name__ == "__main__":
    mode, corpus, answer = sys.argv[1:4]
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
            from pathlib import Path

            from shared import join_pairs, write_answer  # brings numpy and pyarrow, which the other modes do without

            n = con.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0]
            pairs = near_pairs(con, corpus)
            write_answer(Path(answer), "cluster", join_pairs(n, pairs))
