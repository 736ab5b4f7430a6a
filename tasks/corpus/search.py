"""Find the passages of a corpus that fit a text: BM25 by bm25s, and optionally static embeddings.

The index lies in files next to the passages, in the store and in a bundle, so a model that is served finds what it
found for the gate.

Sources: Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009), in Lucene's variant;
Cormack, Clarke and Buettcher, Reciprocal Rank Fusion (SIGIR 2009), for two ranks.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from schemas.artifacts import CorpusRef, EvalSet
from schemas.evaluation import SearchSpec
from tasks.curate.similarity.semantic import embed

if TYPE_CHECKING:
    import pyarrow as pa

PASSAGES = "passages.parquet"
VECTORS = "vectors.npy"
FILES = {
    "data_name": "bm25_data.npy", "indices_name": "bm25_indices.npy", "indptr_name": "bm25_indptr.npy",
    "vocab_name": "bm25_vocabulary.json", "params_name": "bm25_parameters.json",
}  # fmt: skip
RANK_CONSTANT = 60
"""Of reciprocal rank fusion, as its authors chose it."""
FUSED = 50
"""Places of either rank that count in the merged one."""


def write_index(passages: pa.Table, search: SearchSpec, out: Path) -> None:
    """Write `passages.parquet` and its index; equal passages give equal bytes."""
    import bm25s

    pq.write_table(passages, out / PASSAGES, compression="zstd")
    texts = [
        f"{heading}\n{text}"
        for heading, text in zip(passages["heading"].to_pylist(), passages["text"].to_pylist(), strict=True)
    ]
    words = [words_of(text) for text in texts]
    numbers = {word: number for number, word in enumerate(sorted({word for each in words for word in each}))}
    index = bm25s.BM25()
    index.index(([[numbers[word] for word in each] for each in words], numbers), show_progress=False)
    index.save(out, show_progress=False, **FILES)
    if search.embeddings:
        np.save(out / VECTORS, embed(texts), allow_pickle=False)


def index_files(search: SearchSpec) -> tuple[str, ...]:
    """Names of the files of an index."""
    return (PASSAGES, *FILES.values(), *((VECTORS,) if search.embeddings else ()))


class PassageIndex:
    """A loaded index."""

    def __init__(self, folder: Path, search: SearchSpec) -> None:
        import bm25s

        self._search = search
        self._passages = pq.read_table(folder / PASSAGES).to_pylist()
        self._index = bm25s.BM25.load(folder, show_progress=False, **FILES)
        self._vectors = np.load(folder / VECTORS, allow_pickle=False) if search.embeddings else None

    def find(self, text: str, n_passages: int | None = None) -> list[int]:
        """Numbers of the best passages, the best first; of equal ones the first. Only those that share a word.

        With embeddings also others, by their merged rank.
        """
        n_passages = n_passages or self._search.n_passages
        scores = self._index.get_scores_from_ids(self._index.get_tokens_ids(words_of(text)))
        if self._vectors is None:
            return _best(scores, n_passages, above=0.0)
        cosines = self._vectors @ embed([text])[0]
        ranks = (_best(scores, FUSED, above=0.0), _best(cosines.round(6), FUSED, above=0.0))
        merged: dict[int, float] = {}
        for rank in ranks:
            for place, number in enumerate(rank, 1):
                merged[number] = merged.get(number, 0.0) + 1 / (RANK_CONSTANT + place)
        return sorted(merged, key=lambda number: (-merged[number], number))[:n_passages]

    def cite(self, text: str) -> tuple[str, list[str]]:
        """The passages that fit a text, as a prompt shows them, each under its source; and their ids."""
        found = [self._passages[number] for number in self.find(text)]
        shown = [
            f"[{each['source']}{': ' if each['heading'] else ''}{each['heading']}]\n{each['text']}" for each in found
        ]
        return "\n\n".join(shown), [each["passage_id"] for each in found]


def question_of(row: Mapping[str, object]) -> str:
    """The text that passages are searched for: a ticket's subject and body."""
    return "\n".join(str(row[name]) for name in ("subject", "body") if row.get(name))


def _best(scores: Any, n_best: int, *, above: float) -> list[int]:
    chosen = np.flatnonzero(scores > above)
    if len(chosen) > n_best:
        least = np.partition(scores[chosen], -n_best)[-n_best]
        chosen = np.flatnonzero((scores >= least) & (scores > above))
    order = np.argsort(-scores[chosen], kind="stable")
    return [int(chosen[place]) for place in order[:n_best]]


def passage_names(corpus: CorpusRef) -> dict[str, tuple[str, str]]:
    """Passage id -> source and heading."""
    rows = pq.read_table(corpus.root / PASSAGES, columns=["passage_id", "source", "heading"]).to_pylist()
    return {row["passage_id"]: (row["source"], row["heading"]) for row in rows}


def count_citations(items: EvalSet) -> tuple[list[tuple[str, int]], int]:
    """Passage ids with the number of items that show them, the most cited first; and how many items show none."""
    cited = pq.read_table(items.root / "items.parquet", columns=["cited"]).column("cited").to_pylist()
    counts = Counter(name for names in cited for name in names)
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])), sum(not names for names in cited)


def words_of(text: str) -> list[str]:
    """Return the words in lower case; a character of a script without spaces is a word.

    >>> words_of("Where is Order #7?")
    ['where', 'is', 'order', '7']
    """
    from tasks.curate.similarity.containment import words_in

    return words_in(unicodedata.normalize("NFKC", text).lower())
