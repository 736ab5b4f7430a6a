"""Batched greedy decoding through the model's own forward and cache, whatever its architecture.

Made by tasks/model/decoding/fused_decoder.py for models that it does not know.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tasks.model.decoding.decoder import Ids, language_model, left_padded
from tasks.model.likelihood import chosen_logs, means_per_row, token_nats

_SCORED = 2048
"""Answer positions with logits in memory at once."""


class PlainDecoder:
    """A model; shared prefixes are read with each prompt."""

    serves_threads = False
    """A model's own forward may keep things between calls, as some rotary embeddings do."""

    def __init__(self, model: nn.Module) -> None:
        self.model = language_model(model)
        self.device: torch.device = self.model.device
        # transformers renames the argument: `past_key_values` until 5.23, `cache` since.
        names = inspect.signature(self.model.forward).parameters
        self.cache_name = "cache" if "cache" in names else "past_key_values"

    def read(self, prompts: Sequence[Ids], *, room: int) -> _Reading:
        """Read the prompts; the cache grows as it needs."""
        return _Reading(self, prompts)

    def label_logs(
        self, contexts: Sequence[Ids], memories: Sequence[Any], labels: Sequence[tuple[tuple[int, ...], ...]]
    ) -> list[list[float]]:
        """Through whole passes over context and label."""
        return [
            [-mean * len(label) for label, mean in zip(each, self.losses([context] * len(each), each), strict=True)]
            for context, each in zip(contexts, labels, strict=True)
        ]

    def losses(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> list[float]:
        """Mean nats per token of each answer after its prompt, through a pass over both: not every cache can be cut."""
        each = max(1, _SCORED // max(len(answer) for answer in answers))
        means: list[float] = []
        for start in range(0, len(answers), each):
            means += self._losses(prompts[start : start + each], answers[start : start + each])
        return means

    def _losses(self, prompts: Sequence[Ids], answers: Sequence[Ids]) -> list[float]:
        device = self.device
        whole, pads = left_padded([[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)])
        mask = torch.arange(whole.shape[1])[None] >= pads[:, None]
        lengths = [len(answer) for answer in answers]
        longest = max(lengths)
        out = self.model(
            input_ids=whole.to(device),
            attention_mask=mask.long().to(device),
            position_ids=(mask.long().cumsum(1) - 1).clamp_(min=0).to(device),
            use_cache=False,
            logits_to_keep=longest + 1,
        )
        # The last `longest` positions, of which a row's answer takes the last `len(answer)`. Which ones is found on the
        # CPU: a card would have to say how many there are.
        real = torch.arange(longest)[None] >= longest - torch.tensor(lengths)[:, None]
        rows, columns = (each.to(device) for each in torch.nonzero(real, as_tuple=True))
        targets = whole[:, -longest:][real].to(device)
        return means_per_row(token_nats(out.logits[rows, columns], targets, lambda given: given), lengths)


class _Reading:
    def __init__(self, decoder: PlainDecoder, prompts: Sequence[Ids]) -> None:
        from transformers import DynamicCache

        self.decoder = decoder
        self.prompts = [list(prompt) for prompt in prompts]
        self.cache: Any = DynamicCache(config=decoder.model.config)
        ids, pads = left_padded(prompts)
        self.mask = (torch.arange(ids.shape[1])[None] >= pads[:, None]).long().to(decoder.device)
        self.logits = self._forward(ids.to(decoder.device))

    def next_logits(self) -> Tensor:
        return self.logits

    def next_tokens(self) -> Tensor:
        return self.logits.max(-1).indices

    def next_scored(self) -> tuple[Tensor, Tensor]:
        tokens = self.next_tokens()
        return tokens, chosen_logs(self.logits, tokens)

    def answer_losses(self, answers: Sequence[Ids]) -> list[float]:
        return self.decoder.losses(self.prompts, answers)

    def memory(self, row: int) -> None:
        return None

    def append(self, tokens: Tensor) -> None:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], 1)
        self.logits = self._forward(tokens[:, None])

    def keep(self, rows: Sequence[int]) -> list[int]:
        chosen = torch.tensor(rows, device=self.decoder.device)
        self.cache.batch_select_indices(chosen)
        self.mask, self.logits = self.mask[chosen], self.logits[chosen]
        return list(rows)

    def _forward(self, ids: Tensor) -> Tensor:
        positions = (self.mask.cumsum(1) - 1).clamp_(min=0)[:, -ids.shape[1] :]
        out = self.decoder.model(
            input_ids=ids,
            attention_mask=self.mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self.decoder.cache_name: self.cache},
        )
        logits: Tensor = out.logits[:, -1]
        return logits
