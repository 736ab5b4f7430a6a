"""The right answer: connected components of the graph of all pairs with an exact Jaccard similarity >= 0.7.

Two ways that share no code with the application: brute force over all pairs (scipy's sparse product of the
text-by-shingle matrix with itself), and for more than `BRUTE_FORCE_TICKETS` tickets an exact prefix-filter join in
DuckDB SQL. A test holds them equal. It knows nothing of engines. Called by `benchmarks/dedup.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.corpus import shingles

THRESHOLD = 0.7
BRUTE_FORCE_TICKETS = 30_000
_SLACK = 1e-9


def oracle_clusters(corpus: Path, *, n_tickets: int) -> np.ndarray:
    """The cluster of each ticket, as the smallest id in it; kept beside the corpus."""
    path = corpus.with_suffix(".oracle.npy")
    if not path.exists():
        labels = by_brute_force(corpus) if n_tickets <= BRUTE_FORCE_TICKETS else by_sql(corpus)
        part = path.with_suffix(".part.npy")
        np.save(part, labels)
        part.rename(path)
    return np.load(path)


def by_brute_force(corpus: Path, *, threshold: float = THRESHOLD, chunk: int = 500) -> np.ndarray:
    """Compare every text with every other one."""
    import pyarrow.parquet as pq
    from scipy.sparse import csr_matrix

    numbers: dict[tuple[str, ...], int] = {}
    rows = [
        sorted(numbers.setdefault(run, len(numbers)) for run in shingles(text))
        for text in pq.read_table(corpus, columns=["text"])["text"].to_pylist()
    ]
    sizes = np.array([len(row) for row in rows])
    pointers = np.concatenate([[0], np.cumsum(sizes)])
    values = np.ones(pointers[-1], dtype=np.int32)
    matrix = csr_matrix((values, np.concatenate(rows), pointers), shape=(len(rows), len(numbers)))
    columns = matrix.T.tocsr()
    labels = np.arange(len(rows))
    for start in range(0, len(rows), chunk):
        shared = (matrix[start : start + chunk] @ columns).tocoo()
        one, two, common = shared.row + start, shared.col, shared.data
        similar = (common >= threshold * (sizes[one] + sizes[two] - common) - _SLACK) & (one != two)
        labels = connected(len(rows), [(np.arange(len(rows)), labels), (one[similar], two[similar])])
    return labels


def by_sql(corpus: Path, *, threshold: float = THRESHOLD) -> np.ndarray:
    """Texts that share one of their rarest shingles are candidates; each is compared exactly.

    Source: Chaudhuri, Ganti, Kaushik, "A primitive operator for similarity joins in data cleaning", ICDE 2006.
    """
    import duckdb

    with duckdb.connect(config={"memory_limit": "10GB", "temp_directory": str(corpus.parent / "spill")}) as con:
        con.execute(f"""
            CREATE TABLE sets AS WITH words AS (
                SELECT id, list_transform(regexp_extract_all(lower(text), '\\w+'), lambda word: hash(word)) AS words
                FROM read_parquet('{corpus}'))
            SELECT id, list_distinct(list_transform(range(1, greatest(len(words) - 1, 2)),
                                                    lambda i: hash(words[i:i + 2]))) AS shingles FROM words""")
        con.execute("""
            CREATE TABLE shared AS SELECT shingle, count(*) AS n_texts
            FROM (SELECT unnest(shingles) AS shingle FROM sets) GROUP BY shingle HAVING count(*) > 1""")
        con.execute(f"""
            CREATE TABLE prefixes AS
            WITH single AS (SELECT id, len(shingles) AS n, unnest(shingles) AS shingle FROM sets),
            ranked AS (
                SELECT id, n, shingle, row_number() OVER (PARTITION BY id ORDER BY n_texts, shingle) AS rank,
                       count(*) OVER (PARTITION BY id) AS n_shared
                FROM single JOIN shared USING (shingle))
            SELECT id, n, shingle FROM ranked
            WHERE rank <= (n - ceil({threshold} * n - {_SLACK}) + 1) - (n - n_shared)""")
        con.execute("DROP TABLE shared")
        pairs = con.sql(f"""
            WITH candidates AS (
                SELECT DISTINCT a.id AS one, b.id AS two FROM prefixes a JOIN prefixes b
                ON a.shingle = b.shingle AND a.id < b.id
                AND b.n >= {threshold} * a.n - {_SLACK} AND a.n >= {threshold} * b.n - {_SLACK}),
            compared AS (
                SELECT one, two, len(list_intersect(a.shingles, b.shingles)) AS common,
                       len(a.shingles) + len(b.shingles) AS total
                FROM candidates JOIN sets a ON a.id = one JOIN sets b ON b.id = two)
            SELECT one, two FROM compared WHERE common >= {threshold} * (total - common) - {_SLACK}""")
        table = pairs.to_arrow_table()
        n = con.execute("SELECT count(*) FROM sets").fetchall()[0][0]
    return connected(n, [(np.array(table["one"]), np.array(table["two"]))])


def connected(n: int, edges: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Each vertex's component, named by its smallest vertex."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    one, two = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = coo_matrix((np.ones(len(one), dtype=np.int8), (one, two)), shape=(n, n))
    count, component = connected_components(graph, directed=False)
    smallest = np.full(count, n)
    np.minimum.at(smallest, component, np.arange(n))
    return smallest[component]
