"""The engines of `bench-rag`: from articles and questions to the articles that each finds, the best first.

Run as `python passages.py ENGINE FOLDER ANSWER`; the folder has `articles.jsonl` (id, title, body) and
`questions.jsonl` (id, text). `rank_bm25` runs in an environment of its own, which lacks the application.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DEPTH = 50
"""Passages looked at per question, for the best `PLACES` articles."""
PLACES = 11
"""The question itself may be among them."""


def read(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def first(names: Iterable[str]) -> list[str]:
    """The first distinct names."""
    return list(dict.fromkeys(names))[:PLACES]


def ours(folder: Path, answer: Path, *, passage_words: int = 120, embeddings: bool = False) -> None:
    """The passages and the index of `evaluate.corpus`; an article's place is that of its best passage."""
    import tempfile

    from schemas.evaluation import CorpusSpec
    from tasks.corpus.articles import article_files, read_passages
    from tasks.corpus.build import passage_table
    from tasks.corpus.search import PassageIndex, write_index

    spec = CorpusSpec(paths=("articles.jsonl",), passage_words=passage_words, embeddings=embeddings)
    names = [article["id"] for article in read(folder / "articles.jsonl")]
    with tempfile.TemporaryDirectory() as scratch:
        passages, _ = read_passages(spec, article_files(spec, folder))
        write_index(passage_table(passages), spec.search(), Path(scratch))
        index = PassageIndex(Path(scratch), spec.search())
        lines = [int(passage.source.rpartition(":")[2]) - 1 for passage in passages]
        found = {
            each["id"]: first(names[lines[number]] for number in index.find(each["text"], DEPTH))
            for each in read(folder / "questions.jsonl")
        }
    answer.write_text(json.dumps(found))


def whole(folder: Path, answer: Path) -> None:
    """Articles that are not cut, up to 2,000 words."""
    ours(folder, answer, passage_words=2000)


def embeddings(folder: Path, answer: Path) -> None:
    """Passages ranked by words and by static embeddings."""
    ours(folder, answer, embeddings=True)


def rank_bm25(folder: Path, answer: Path) -> None:
    """Okapi BM25 of rank-bm25 with the words of its README: in lower case, between spaces."""
    import numpy as np
    from rank_bm25 import BM25Okapi

    articles = read(folder / "articles.jsonl")
    index = BM25Okapi([f"{each['title']} {each['body']}".lower().split() for each in articles])
    found = {}
    for each in read(folder / "questions.jsonl"):
        order = np.argsort(-index.get_scores(each["text"].lower().split()), kind="stable")
        found[each["id"]] = first(articles[place]["id"] for place in order[:DEPTH])
    answer.write_text(json.dumps(found))


ENGINES = {"ours": ours, "whole": whole, "embeddings": embeddings, "rank_bm25": rank_bm25}

if __name__ == "__main__":
    ENGINES[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
