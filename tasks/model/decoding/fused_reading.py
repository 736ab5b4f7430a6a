"""A Llama-shaped model as fused layers, and a batch of prompts that it has read: what all ways to compute share."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from tasks.model.decoding.decoder import Ids, language_model, left_padded
from tasks.model.decoding.fused_layer import FusedLayer, JoinedLinear, KeysValues, Norm
from tasks.model.decoding.kernel_layers import KernelLayers, kernels_know
from tasks.model.likelihood import chosen_logs, means_per_row, token_nats

CACHED_TOKENS = 1024
"""Tokens that pass through all layers together on a CPU; measured best between 512 and 2048 for 576 channels."""


class FusedModel:
    """A model, and the prefix once it was read.

    Attributes:
        by_kernels: All layers in machine code of our own, with the prefix; None where torch alone computes.
        prefix: Keys and values (kv_heads, prefix, d) per layer; empty without a prefix, and with `by_kernels`.
    """

    def __init__(self, model: nn.Module, *, keep_weights: bool = False) -> None:
        whole = language_model(model)
        self.device: torch.device = whole.device
        self.embedding: Tensor = whole.get_input_embeddings().weight
        self.dtype = self.embedding.dtype
        self.head = JoinedLinear(whole.get_output_embeddings(), shared=True, keep=keep_weights)
        self.norm = Norm(whole.model.norm)
        self.rotary = whole.model.rotary_emb
        self.layers = [FusedLayer(layer, whole.config, keep=keep_weights) for layer in whole.model.layers]
        known = kernels_know(self.layers, self.dtype, self.device) and self._turns_whole_heads()
        self.by_kernels = KernelLayers(self.layers) if known else None
        self.n_prefix = 0
        self.prefix: list[KeysValues] = []

    def _turns_whole_heads(self) -> bool:
        cos, _ = self.angles(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        return bool(cos.shape[-1] == self.layers[0].d)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (rows, columns, d) of token positions (rows, columns)."""
        like = torch.empty(0, dtype=self.dtype, device=self.device)
        cos, sin = self.rotary(like, position_ids=positions)
        return cos, sin


class FusedReading(ABC):
    """Columns of the cache: [padding | prompt less prefix | appended | free]; the prefix lies before, once for all.

    Attributes:
        used: Columns that are filled.
        pads: First columns of each row that hold nothing (rows,).
        last: States of the last column before the last norm (rows, d).
    """

    def __init__(self, decoder: FusedModel, suffixes: Sequence[Ids]) -> None:
        self.decoder = decoder
        ids, pads = left_padded(suffixes)
        self.n_rows, self.used = ids.shape
        self.pads = pads.to(decoder.device)
        self._begin(self.used)
        self.last = self._read_all(ids.to(decoder.device), pads.tolist())

    @classmethod
    def resumed(cls, decoder: FusedModel, memories: Sequence[list[KeysValues]], lengths: Sequence[int]) -> Self:
        """A reading of the first columns of rows of other readings; `append` is the next thing that it can do.

        Args:
            lengths: Columns that are taken of each row.
        """
        new = cls.__new__(cls)
        new.decoder, new.n_rows, new.used = decoder, len(lengths), max(lengths)
        # A column's angles are in its keys already, so the rows can be pushed to the right, where all end together.
        new.pads = torch.tensor([new.used - length for length in lengths], device=decoder.device)
        new.last = torch.empty(0)
        new._begin(new.used)
        for row, (memory, length) in enumerate(zip(memories, lengths, strict=True)):
            new._put(row, memory, length)
        return new

    def next_logits(self) -> Tensor:
        out: Tensor = self.decoder.head(self.decoder.norm(self.last))
        return out

    def next_tokens(self) -> Tensor:
        return self._largest(self.next_logits())

    def next_scored(self) -> tuple[Tensor, Tensor]:
        logits = self.next_logits()
        tokens = self._largest(logits)
        return tokens, chosen_logs(logits, tokens)

    def _largest(self, logits: Tensor) -> Tensor:
        return logits.max(-1).indices  # the first of equal ones, as argmax, in a quarter of the time

    def answer_losses(self, answers: Sequence[Ids]) -> list[float]:
        return means_per_row(self._nats(answers), [len(answer) for answer in answers])

    def answer_logs(self, answers: Sequence[Ids]) -> list[float]:
        """Log-likelihood in nats of each row's answer, not finite where the model overflows; the reading stays."""
        return [
            -float(part.double().sum()) for part in torch.split(self._nats(answers), [len(each) for each in answers])
        ]

    def _nats(self, answers: Sequence[Ids]) -> Tensor:
        """Negative log-likelihood of each token of the answers, one after another."""
        lengths = [len(answer) for answer in answers]
        states = [self.last[row : row + min(1, length)] for row, length in enumerate(lengths)]
        # The longest together, so that little is padded; on the right, after everything that is attended to.
        order = sorted((row for row in range(self.n_rows) if lengths[row] > 1), key=lambda row: -lengths[row])
        for places in groups([lengths[row] - 1 for row in order], self.decoder.device):
            rows = [order[place] for place in places]
            longest = lengths[rows[0]]
            ids = torch.tensor([[*answers[row][:-1], *([0] * (longest - lengths[row]))] for row in rows])
            found = self._look_ahead(ids.to(self.decoder.device), rows)
            for row, after in zip(rows, found, strict=True):
                states[row] = torch.cat([states[row], after[: lengths[row] - 1]])
        targets = torch.tensor([token for answer in answers for token in answer], device=self.decoder.device)
        return token_nats(self.decoder.norm(torch.cat(states)), targets, self.decoder.head)

    def append(self, tokens: Tensor) -> None:
        self.last = self._append(tokens)
        self.used += 1

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Fill the gaps with rows from the end: a row that stays where it is costs nothing."""
        n_kept = len(rows)
        late = iter(row for row in rows if row >= n_kept)
        kept = set(rows)
        moves = [(next(late), gap) for gap in range(n_kept) if gap not in kept]
        order = list(range(n_kept))
        for source, gap in moves:
            order[gap] = source
        if moves:
            sources, gaps = (torch.tensor(side, device=self.decoder.device) for side in zip(*moves, strict=True))
            self._move(sources, gaps)
            for small in (self.pads, self.last):
                small[gaps] = small[sources]
        self.n_rows = n_kept
        self.pads, self.last = self.pads[:n_kept], self.last[:n_kept]
        return order

    def _read_all(self, ids: Tensor, pads: Sequence[int]) -> Tensor:
        last = []
        # Prompts come longest first: those of a group need few columns of padding, or none.
        for rows in groups([self.used - pad for pad in pads], self.decoder.device):
            start = min(pads[row] for row in rows)
            last.append(self._read(ids[rows.start : rows.stop, start:], rows, start))
        return torch.cat(last)

    @abstractmethod
    def memory(self, row: int) -> list[KeysValues]:
        """Copies of a row's keys and values per layer, without padding."""

    @abstractmethod
    def _put(self, row: int, memory: list[KeysValues], length: int) -> None:
        """Fill the last columns in use of a row with the first `length` of a memory."""

    @abstractmethod
    def _begin(self, n_columns: int) -> None:
        """Make an empty cache of `n_rows` rows with so many columns."""

    @abstractmethod
    def _read(self, ids: Tensor, rows: range, start: int) -> Tensor:
        """Fill these rows of the cache from column `start` on; the states of the last column (rows, d)."""

    @abstractmethod
    def _look_ahead(self, ids: Tensor, rows: Sequence[int]) -> Tensor:
        """The states (rows, columns, d) of columns that would follow; the reading stays as it is."""

    @abstractmethod
    def _append(self, tokens: Tensor) -> Tensor:
        """Fill column `used` of all rows; its states (rows, d)."""

    @abstractmethod
    def _move(self, sources: Tensor, gaps: Tensor) -> None:
        """Put rows of the cache in the place of others."""


def groups(lengths: Sequence[int], device: torch.device) -> Iterator[range]:
    """Neighbouring rows to go through all layers together: what a layer makes then stays in the processor's cache."""
    start, longest = 0, 0
    most = CACHED_TOKENS if device.type == "cpu" else math.inf
    for row, length in enumerate(lengths):
        longest = max(longest, length)
        if row > start and longest * (row + 1 - start) > most:
            yield range(start, row)
            start, longest = row, length
    if lengths:
        yield range(start, len(lengths))
