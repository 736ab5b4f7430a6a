"""Shapes of decoders, from a config.json or by a model's name: how many weights of which kind it has.

Decoders with gated feed-forward layers: Llama, Mistral, Qwen2, Qwen3, Gemma 3, Phi-3 and Phi-4. Arithmetic, without
torch. Used by tasks/train/memory.py and flows/views/advice.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter
from ruamel.yaml import YAML

from schemas.errors import ConfigError
from schemas.names import closest

FAST_TYPES = ("llama", "mistral", "qwen2")
"""`model_type`s that tasks/train/fast computes exactly."""
_GEMMA = ("gemma3", "gemma3_text")
_KNOWN = Path(__file__).with_name("known_models.yaml")
_SUFFIX = re.compile(r"-(hf|instruct|chat|it|pt|base|reasoning|thinking|v0\.[12]|\d{4})$")
"""Ends of names under which a model of the same shapes is published."""


class KnownModel(BaseModel):
    """An entry of known_models.yaml: fields of a config.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model_type: Literal["gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen3"]
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt
    head_dim: PositiveInt | None = None
    """None for hidden_size / num_attention_heads."""
    vocab_size: PositiveInt
    tie_word_embeddings: bool


@dataclass(frozen=True)
class ModelDims:
    """Shapes of a decoder.

    >>> tiny = ModelDims(layers=2, hidden=64, heads=4, kv_heads=2, d_head=16, intermediate=128, vocab=400, tied=True)
    >>> tiny.n_parameters
    99648
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    d_head: int
    intermediate: int
    vocab: int
    tied: bool
    """Output head and embedding are one matrix."""
    qkv_bias: bool = False
    qk_norm: bool = False
    """Queries and keys are normalised per head (Qwen3, Gemma 3)."""
    layer_norms: int = 2
    """Norms of the hidden size in each layer; Gemma 3 has four."""
    fused: bool = False
    """One matrix for q, k and v, and one for gate and up (Phi-3 and Phi-4)."""

    @classmethod
    def read(cls, config: Path) -> ModelDims | None:
        """From a model's config.json; None for an unsupported architecture."""
        return cls.of(json.loads(config.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> ModelDims | None:
        """From the fields of a config.json; None for an unsupported architecture.

        Of a model that also sees images, the part that reads and writes text.
        """
        found = found.get("text_config", found)
        kind = found.get("model_type")
        try:
            heads = found["num_attention_heads"]
            return cls(
                layers=found["num_hidden_layers"],
                hidden=found["hidden_size"],
                heads=heads,
                kv_heads=found.get("num_key_value_heads") or heads,
                d_head=found.get("head_dim") or found["hidden_size"] // heads,
                intermediate=found["intermediate_size"],
                vocab=found["vocab_size"],
                tied=bool(found.get("tie_word_embeddings", kind in _GEMMA)),
                qkv_bias=kind == "qwen2" or bool(found.get("attention_bias", False)),
                qk_norm=kind in ("qwen3", *_GEMMA),
                layer_norms=4 if kind in _GEMMA else 2,
                fused=kind == "phi3",
            )
        except KeyError:
            return None

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of each linear layer in one decoder layer."""
        q, kv = self.heads * self.d_head, self.kv_heads * self.d_head
        if self.fused:
            return {
                "qkv_proj": (self.hidden, q + 2 * kv),
                "o_proj": (q, self.hidden),
                "gate_up_proj": (self.hidden, 2 * self.intermediate),
                "down_proj": (self.intermediate, self.hidden),
            }
        return {
            "q_proj": (self.hidden, q),
            "k_proj": (self.hidden, kv),
            "v_proj": (self.hidden, kv),
            "o_proj": (q, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def n_linear(self) -> int:
        """Weights in the linear layers of all decoder layers: those that NF4 quantises."""
        return self.layers * sum(d_in * d_out for d_in, d_out in self.linear_shapes.values())

    @property
    def n_other(self) -> int:
        """Weights of embedding, output head, norms and biases: those that stay in 16 bits."""
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        biases = self.layers * (self.heads + 2 * self.kv_heads) * self.d_head if self.qkv_bias else 0
        norms = self.layer_norms * self.hidden + (2 * self.d_head if self.qk_norm else 0)
        return embeddings + self.layers * norms + self.hidden + biases

    @property
    def n_parameters(self) -> int:
        """All weights; a tied head counts once."""
        return self.n_linear + self.n_other


def not_fast_error(model_type: object) -> ConfigError:
    """Make the error (TG0111) for a model whose frozen layers' output cannot be cached."""
    return ConfigError(
        f"the fast path does not support this model ({model_type}) here, and a cached trunk needs the fast path",
        code="TG0111", where="train.cache_trunk",
        hint="use cache_trunk: auto, which trains without the cache when it is not supported",
    )  # fmt: skip


def known_models() -> tuple[str, ...]:
    """Models with built-in shapes."""
    return tuple(sorted(_shapes()))


def known_dims(name: str) -> ModelDims:
    """Built-in shapes of a model, from its public configuration.

    Raises:
        ConfigError: TG0171, the model is unknown.
    """
    dims = ModelDims.of(known_config(name))
    if dims is None:
        raise TypeError(f"known_models.yaml: the architecture of {name} is not supported")
    return dims


def known_config(name: str) -> dict[str, Any]:
    """The fields of its config.json that define its shapes.

    Raises:
        ConfigError: TG0171, the model is unknown.
    """
    models, key = _shapes(), name.lower().rpartition("/")[2].removeprefix("meta-")
    while key not in models and (shorter := _SUFFIX.sub("", key)) != key:
        key = shorter
    if key not in models:
        raise ConfigError(
            f"unknown model {name!r}; known models: {', '.join(sorted(models))}",
            code="TG0171",
            where="--base",
            hint=closest(key, models),
        )
    return models[key].model_dump(exclude_none=True)


@cache
def _shapes() -> dict[str, KnownModel]:
    """Name -> shapes; reading checks every entry."""
    read = YAML(typ="safe", pure=True).load(_KNOWN.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, KnownModel]).validate_python(read)
