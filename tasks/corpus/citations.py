"""Which passages of a corpus the prompts of held-out items show, for the report."""

from __future__ import annotations

from collections import Counter

from schemas.artifacts import CorpusRef, EvalSet
from tasks.corpus.search import PASSAGES


def passage_names(corpus: CorpusRef) -> dict[str, tuple[str, str]]:
    """Passage id -> source and heading."""
    import pyarrow.parquet as pq

    rows = pq.read_table(corpus.root / PASSAGES, columns=["passage_id", "source", "heading"]).to_pylist()
    return {row["passage_id"]: (row["source"], row["heading"]) for row in rows}


def count_citations(items: EvalSet) -> tuple[list[tuple[str, int]], int]:
    """Passage ids with the number of items that show them, the most cited first; and how many items show none."""
    import pyarrow.parquet as pq

    cited = pq.read_table(items.root / "items.parquet", columns=["cited"]).column("cited").to_pylist()
    counts = Counter(name for names in cited for name in names)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])), sum(not names for names in cited)
