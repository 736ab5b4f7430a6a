"""The model's likelihood of each label of a closed set, where its answer wrote one of them.

The answer is as it was generated; the question is how likely the other labels were at the same place, after the same
prompt and the same text before it. Token ids and the keys and values of the answer's own pass in, numbers out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas.artifacts import LabelSet
from tasks.assess.fields import FieldPattern
from tasks.model.chat_codec import ChatCodec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.model.decoding.decoder import Ids
    from tasks.model.decoding.fused_reading import FusedReading


@dataclass(frozen=True)
class LabelPlace:
    """Where an answer wrote its label, as token ids."""

    n_before: int
    """Tokens of the answer in front of it."""
    labels: tuple[tuple[int, ...], ...]
    """Tokens of each label there, up to the token that closes it: `card` is not the beginning of `card_arrival`."""


class LabelFinder:
    """Finds the label in answers.

    Args:
        labels: Field, pattern and closed set.
        codec: Of the model.
    """

    def __init__(self, labels: LabelSet, codec: ChatCodec) -> None:
        self._labels, self._codec = labels, codec
        self._pattern = FieldPattern(labels.pattern)

    def find(self, tokens: Sequence[int], text: str) -> LabelPlace | None:
        """Find the label of an answer; None if it wrote none of the set, several, or in unusual tokens.

        Args:
            tokens: All generated tokens, including the end token.
            text: Of these.
        """
        span = self._pattern.span_in(text, self._labels.field)
        if span is None or text[slice(*span)] not in self._labels.labels:
            return None
        before = self._tokens_within(tokens, text, span[0])
        start = self._decode(tokens[:before])
        after = next((n for n in range(before + 1, len(tokens) + 1) if len(self._decode(tokens[:n])) >= span[1]), None)
        if after is None:
            return None
        lead, closing = text[len(start) : span[0]], self._decode(tokens[:after])[span[1] :]
        # A token that the text does not show: the end token, or the first one of what follows.
        end = () if closing else tuple(tokens[after : after + 1])
        found = tuple((*self._codec.part_ids(f"{lead}{label}{closing}"), *end) for label in self._labels.labels)
        written = found[self._labels.labels.index(text[slice(*span)])]
        return LabelPlace(before, found) if written == (*tokens[before:after], *end) else None

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._codec.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def _tokens_within(self, tokens: Sequence[int], text: str, end: int) -> int:
        """How many tokens fit into the first `end` characters of the text."""
        for n in range(len(tokens), 0, -1):
            start = self._decode(tokens[:n])
            if len(start) <= end and text.startswith(start):
                return n
        return 0


@dataclass
class TokenNode:
    """Token sequences that begin alike."""

    ends: list[int] = field(default_factory=list)
    """Numbers of the sequences that are read here."""
    after: dict[int, TokenNode] = field(default_factory=dict)
    """Next token -> the sequences that have it."""


def trie_of(sequences: Sequence[Ids]) -> TokenNode:
    """The sequences as a trie: what several begin with is there once."""
    root = TokenNode()
    for number, sequence in enumerate(sequences):
        node = root
        for token in sequence:
            node = node.after.setdefault(token, TokenNode())
        node.ends.append(number)
    return root


def trie_logs(reading: FusedReading, sequences: Sequence[Ids]) -> Tensor:
    """Log-likelihood of each sequence after each row, float64 (rows, sequences); nats.

    Each inner node of the trie is one column, which is read once and given up when all below it are scored.
    """
    import torch

    totals = torch.zeros(reading.n_rows, len(sequences), dtype=torch.float64)

    def visit(node: TokenNode, so_far: Tensor) -> None:
        for number in node.ends:
            totals[:, number] = so_far
        if not node.after:
            return
        tokens = list(node.after)
        found = torch.log_softmax(reading.next_logits().float(), -1)[:, tokens].double().cpu()
        for place, token in enumerate(tokens):
            child, log = node.after[token], so_far + found[:, place]
            if child.after:
                used = reading.used
                reading.append(torch.full((reading.n_rows,), token, device=reading.decoder.device))
                visit(child, log)
                reading.used = used
            else:
                visit(child, log)

    visit(trie_of(sequences), torch.zeros(reading.n_rows, dtype=torch.float64))
    return totals


def in_groups_of_equal(
    sequences: Sequence[tuple[tuple[int, ...], ...]], score: Callable[[list[int]], torch.Tensor]
) -> list[list[float]]:
    """Score rows with equal sequences together; the numbers in the order of the rows."""
    rows: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    for row, each in enumerate(sequences):
        rows.setdefault(each, []).append(row)
    found: list[list[float]] = [[] for _ in sequences]
    for group in rows.values():
        for row, logs in zip(group, score(group).tolist(), strict=True):
            found[row] = logs
    return found
