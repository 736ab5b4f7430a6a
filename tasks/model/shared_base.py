"""Several adapters on one base model in memory, each generating token by token.

Adapters of method lora share the base's weights and add only their own factors. A fully trained model, a 4-bit base and
an architecture without the fast decoder are loaded separately, as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schemas.artifacts import ModelRef, TrainedRef
from schemas.evaluation import DecodingSpec
from tasks.model.adapter import load_trained, put_adapter_on
from tasks.model.answer_engine import stop_ids, translate_memory_errors
from tasks.model.base_model import load_base, resolve_dtype
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.decoder import Decoder, Ids
from tasks.model.decoding.fused_decoder import open_decoder

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Generator:
    """One loaded model that generates answers; created by `SharedBases.load`."""

    decoder: Decoder
    stops: frozenset[int]
    lock: threading.Lock
    """Held for one token at a time, so that parallel answers take turns."""

    def generate(self, prompt: Ids, *, max_new_tokens: int) -> Iterator[int]:
        """Yield the most likely tokens after the prompt one by one, including the stop token, as in `greedy`.

        Raises:
            TrainingError: out of memory.
        """
        import torch

        with self.lock, torch.inference_mode(), translate_memory_errors():
            reading = self.decoder.read([prompt], room=max_new_tokens)
        for n_tokens in range(1, max_new_tokens + 1):
            with self.lock, torch.inference_mode(), translate_memory_errors():
                tokens = reading.next_tokens()
                token = int(tokens)
                over = token in self.stops or n_tokens == max_new_tokens
                if not over:
                    reading.append(tokens)
            yield token
            if over:
                return


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
        """Drop every base whose digest is not among these."""
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
