"""Several adapters on one base model in memory, each generating token by token.

Adapters of method lora share the base's weights and add only their own factors. A fully trained model, a 4-bit base and
an architecture without the fast decoder are loaded separately, as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.artifacts import ModelRef, TrainedRef
from schemas.evaluation import DecodingSpec
from tasks.model.adapter import load_trained, put_adapter_on
from tasks.model.answer_engine import stop_ids, translate_memory_errors
from tasks.model.base_model import load_base, resolve_dtype
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.decoder import Decoder, Ids, Reading
from tasks.model.decoding.fused_decoder import open_decoder
from tasks.model.label_likelihood import LabelPlace

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class TokenLogs:
    """How likely a generated token was, in nats."""

    token: int
    log: float
    top: tuple[tuple[int, float], ...]
    """The most likely tokens at its place, falling."""


@dataclass(frozen=True)
class Generator:
    """One loaded model that generates answers; created by `SharedBases.load`."""

    decoder: Decoder
    stops: frozenset[int]
    lock: threading.Lock
    """Held for one token at a time, so that parallel answers take turns."""

    def generate(self, prompt: Ids, *, max_new_tokens: int, n_top: int | None = None) -> Generation:
        """Begin an answer.

        Args:
            n_top: Also note how likely each token is, and so many of the most likely ones; None notes nothing.
        """
        return Generation(self, prompt, max_new_tokens, n_top)


class Generation:
    """One answer as it grows, and what can be known of it afterwards.

    Attributes:
        tokens: What was generated so far.
        logs: Of each token, if that was wanted.
    """

    def __init__(self, generator: Generator, prompt: Ids, max_new_tokens: int, n_top: int | None) -> None:
        self.tokens: list[int] = []
        self.logs: list[TokenLogs] = []
        self._generator, self._prompt = generator, list(prompt)
        self._max_new_tokens, self._n_top = max_new_tokens, n_top
        self._reading: Reading | None = None

    def __iter__(self) -> Iterator[int]:
        """Yield the most likely tokens after the prompt one by one, including the stop token, as in `greedy`.

        Raises:
            TrainingError: out of memory.
        """
        with self._turn():
            self._reading = reading = self._generator.decoder.read([self._prompt], room=self._max_new_tokens)
        while True:
            with self._turn():
                tokens = reading.next_tokens()
                token = int(tokens)
                self.tokens.append(token)
                if self._n_top is not None:
                    self.logs.append(_token_logs(reading, token, self._n_top))
                over = token in self._generator.stops or len(self.tokens) == self._max_new_tokens
                if not over:
                    reading.append(tokens)
            yield token
            if over:
                return

    def label_logs(self, place: LabelPlace) -> list[float]:
        """Log-likelihood in nats of each label where this answer wrote one of them; the answer stays as it is.

        Raises:
            TrainingError: out of memory.
        """
        if self._reading is None:
            raise ValueError("nothing was generated yet")
        with self._turn():
            context = [*self._prompt, *self.tokens[: place.n_before]]
            return self._generator.decoder.label_logs([context], [self._reading.memory(0)], [place.labels])[0]

    @contextmanager
    def _turn(self) -> Iterator[None]:
        import torch

        with self._generator.lock, torch.inference_mode(), translate_memory_errors():
            yield


def _token_logs(reading: Reading, token: int, n_top: int) -> TokenLogs:
    import torch

    logs = torch.log_softmax(reading.next_logits()[0].float(), -1)
    top = logs.topk(n_top)
    return TokenLogs(token, float(logs[token]), tuple(zip(top.indices.tolist(), top.values.tolist(), strict=True)))


class SharedBases:
    """Base models in memory, by digest and number format."""

    def __init__(self) -> None:
        self._bases: dict[tuple[str, str], PreTrainedModel] = {}
        self._lock = threading.Lock()

    def load(self, model: ModelRef, trained: TrainedRef, decoding: DecodingSpec, codec: ChatCodec) -> Generator:
        """Load the adapter on its base; the base is loaded if no other adapter uses it yet.

        Raises:
            StorageError: files are missing or damaged.
            TrainingError: the adapter was trained on another base, or memory ran out.
        """
        import torch

        with torch.no_grad(), translate_memory_errors():
            if trained.method == "lora" and trained.base_digest == model.digest:
                decoder, stops = self._on_shared_base(model, trained, decoding, codec)
            else:
                loaded = load_trained(model, trained, dtype=decoding.dtype)
                decoder, stops = open_decoder(loaded, []), stop_ids(codec, loaded)
        return Generator(decoder, stops, self._lock)

    def holds(self, model: ModelRef, decoding: DecodingSpec) -> bool:
        """Whether this base is in memory and ready for another adapter."""
        return (model.digest, decoding.dtype) in self._bases

    def keep_only(self, digests: set[str]) -> None:
        """Drop every base with another digest than these."""
        for key in [key for key in self._bases if key[0] not in digests]:
            del self._bases[key]

    def _on_shared_base(
        self, model: ModelRef, trained: TrainedRef, decoding: DecodingSpec, codec: ChatCodec
    ) -> tuple[Decoder, frozenset[int]]:
        from tasks.model.decoding.fused_decoder import is_fusable

        key = (model.digest, decoding.dtype)
        base = self._bases.pop(key, None) or load_base(model, dtype=resolve_dtype(decoding.dtype)).requires_grad_(False)
        adapted: nn.Module = put_adapter_on(base, trained.root).eval()
        decoder, stops = open_decoder(adapted, [], keep_weights=True), stop_ids(codec, adapted)
        if is_fusable(adapted):  # the decoder then holds weights, not modules, so the next adapter can use the base
            self._bases[key] = adapted.unload()  # type: ignore[operator]
        return decoder, stops
