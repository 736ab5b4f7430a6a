"""Two answers side by side, word by word: which words of one the other lacks. Called by the report's page."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import NamedTuple

_WORDS = re.compile(r"\s+|[^\s]+")
MAX_WORDS = 600
"""Longer answers are shown without marks: comparing takes the square of it."""


class Piece(NamedTuple):
    """A run of text, and whether the other side has it."""

    text: str
    same: bool


def marked(wanted: str, answer: str) -> tuple[list[Piece], list[Piece]]:
    """Both texts in pieces.

    >>> left, right = marked("close the order", "close my order")
    >>> [piece.text for piece in left if not piece.same], [piece.text for piece in right if not piece.same]
    (['the'], ['my'])
    """
    ours, theirs = _WORDS.findall(wanted), _WORDS.findall(answer)
    if max(len(ours), len(theirs)) > MAX_WORDS:
        return [Piece(wanted, same=True)], [Piece(answer, same=True)]
    left: list[Piece] = []
    right: list[Piece] = []
    for kind, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        for side, words in ((left, ours[a:b]), (right, theirs[c:d])):
            if words:
                side.append(Piece("".join(words), kind == "equal"))
    return left, right
