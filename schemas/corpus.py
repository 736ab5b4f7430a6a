"""`evaluate.corpus`: help articles, cut into passages that prompts show. Used by `schemas/evaluation.py`."""

from pathlib import PurePath

from pydantic import Field, field_validator

from schemas.names import closest
from schemas.spec import Spec

ENDINGS = {"md": "markdown", "markdown": "markdown", "html": "html", "htm": "html", "jsonl": "jsonl", "ndjson": "jsonl"}
"""Ending of a file -> how it is read."""
WILD = frozenset("*?[")


class SearchSpec(Spec):
    """How passages are found; a part of `evaluate.corpus` that is also packed with a model."""

    n_passages: int = Field(default=3, ge=1, le=20)
    """Passages in a prompt: those that fit the ticket's subject and body best by BM25. Fewer if fewer share a word."""
    embeddings: bool = False
    """Also rank passages by the cosine of static embeddings (extra `semantic`), and merge both ranks."""


class CorpusSpec(SearchSpec):
    """`evaluate.corpus`: help articles. Prompts of the arm rag, and prompts with `{passages}`, show what fits a ticket.

    The articles are redacted as tickets are, and passages that hold a held-out question are dropped.
    """

    paths: tuple[str, ...] = Field(min_length=1)
    """Files, folders or globs, relative to pipelines.yaml: Markdown (.md), HTML (.html) or JSON Lines (.jsonl, one
    article per line, in Markdown or HTML). Of a folder, all such files in it and below."""
    title_key: str = "title"
    """Key of the title in JSON Lines; optional in each line."""
    text_key: str = "body"
    """Key of the text in JSON Lines."""
    passage_words: int = Field(default=120, ge=20, le=2000)
    """Longest passage, in words: an article is cut at its headings, and longer parts between paragraphs."""

    @field_validator("paths")
    @classmethod
    def _endings_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for path in value:
            ending = PurePath(path).suffix[1:].lower()
            if ending and not WILD & set(ending) and ending not in ENDINGS:
                raise ValueError(f"{path!r} ends with .{ending}; {closest(ending, ENDINGS)}")
        return value

    def search(self) -> SearchSpec:
        """The settings that are packed with a model."""
        return SearchSpec(n_passages=self.n_passages, embeddings=self.embeddings)
