"""Shapes of decoders, from a config.json or by a model's name: how many weights of which kind it has.

Arithmetic for the plain decoders with gated feed-forward layers (`PLAIN_TYPES`), so that a plan needs no torch; a test
compares it with transformers. Any other architecture, mixtures of experts among them, is built without weights and
counted (tasks/model/skeleton.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt, TypeAdapter
from ruamel.yaml import YAML

from schemas.errors import ConfigError
from schemas.names import closest
from tasks.model.skeleton import Matrix, Parts, full_config, main_size_of, parts_of, size_of
from tasks.model.text_part import text_fields

FAST_TYPES = ("llama", "mistral", "qwen2")
"""`model_type`s that tasks/train/fast computes exactly."""
_GEMMA = ("gemma3_text",)
PLAIN_TYPES = (*FAST_TYPES, "qwen3", "phi3", *_GEMMA)
"""`model_type`s whose weights follow from the numbers of a config.json that has them all."""
_PLAIN_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size")
_BIASES = ("attention_bias", "mlp_bias")
"""Settings that add weights, which are then counted."""
_ATTENTION = ("o_proj", "out_proj")
_KNOWN = Path(__file__).with_name("known_models.yaml")
_SUFFIX = re.compile(r"-(hf|instruct|chat|it|pt|base|reasoning|thinking|preview|v0\.[12]|\d{4})$")
"""Ends of names under which a model of the same shapes is published."""


class KnownModel(BaseModel):
    """An entry of known_models.yaml: fields of a config.json; each architecture has more of its own."""

    model_config = ConfigDict(frozen=True, extra="allow", protected_namespaces=())

    model_type: str
    hidden_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
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
    """Width of the feed-forward layer that a token meets: of a mixture, that of its active experts together."""
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
    counted: Parts | None = None
    """What it consists of, counted; None where the numbers above decide."""
    config: str = "{}"
    """Fields of its config.json, as JSON."""

    @classmethod
    def read(cls, config: Path) -> ModelDims | None:
        """From a model's config.json; None for an architecture that cannot be built."""
        try:
            return cls.of(json.loads(config.read_text(encoding="utf-8")))
        except ConfigError:
            return None

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> ModelDims:
        """From the fields of a config.json. Of a model that also sees images, the part that reads and writes text.

        Raises:
            ConfigError: TG0173 and TG0112, as `build_skeleton`; none for a plain decoder.
        """
        found = text_fields(found)
        config, kind = json.dumps(dict(found), sort_keys=True), found.get("model_type")
        computed = kind in PLAIN_TYPES and not any(found.get(name) for name in _BIASES)
        if not computed or any(found.get(name) is None for name in _PLAIN_SIZES):  # a default of its class
            return cls._counted(found, config)
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
            qkv_bias=kind == "qwen2",
            qk_norm=kind in ("qwen3", *_GEMMA),
            layer_norms=4 if kind in _GEMMA else 2,
            fused=kind == "phi3",
            config=config,
        )

    @classmethod
    def _counted(cls, found: Mapping[str, Any], config: str) -> ModelDims:
        whole, parts = full_config(found), parts_of(found)
        layers, hidden, vocab = (
            main_size_of(whole, name) for name in ("num_hidden_layers", "hidden_size", "vocab_size")
        )
        heads = size_of(whole, "num_attention_heads") or 1
        d_head = size_of(whole, "head_dim") or hidden // heads
        # What writes to the hidden states is the feed-forward layer, or the attention.
        attention = (hidden, heads * d_head)
        width = sum(
            len(each.layers) * each.n_active * each.d_in
            for each in parts.matrices
            if each.d_out == hidden and (each.stacked or (each.name not in _ATTENTION and each.d_in not in attention))
        )
        return cls(
            layers=layers, hidden=hidden, heads=heads, d_head=d_head, vocab=vocab, tied=parts.tied,
            kv_heads=size_of(whole, "num_key_value_heads") or heads, intermediate=width // layers or hidden,
            counted=parts, config=config,
        )  # fmt: skip

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrices of all decoder layers."""
        if self.counted is not None:
            return self.counted.matrices
        layers = tuple(range(self.layers))
        return tuple(Matrix(name, d_in, d_out, layers) for name, (d_in, d_out) in self.linear_shapes.items())

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of each linear layer in one decoder layer; of several with one name, the largest."""
        if self.counted is not None:
            by_size = sorted(self.counted.matrices, key=lambda each: each.size)
            return {each.name: (each.d_in, each.d_out) for each in by_size}
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
        """Weights in the linear layers of all decoder layers: those that NF4 quantises, so without stacked experts."""
        return sum(each.n_weights for each in self.matrices if not each.stacked)

    @property
    def n_stacked(self) -> int:
        """Weights of experts that are stacked in one parameter."""
        return 0 if self.counted is None else self.counted.n_stacked

    @property
    def n_other(self) -> int:
        """Weights that stay in 16 bits: of embedding, output head, norms, biases, routers and stacked experts."""
        if self.counted is not None:
            return self.counted.n_parameters - self.n_linear
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        biases = self.layers * (self.heads + 2 * self.kv_heads) * self.d_head if self.qkv_bias else 0
        norms = self.layer_norms * self.hidden + (2 * self.d_head if self.qk_norm else 0)
        return embeddings + self.layers * norms + self.hidden + biases

    @property
    def n_parameters(self) -> int:
        """All weights; a tied head counts once."""
        return self.n_linear + self.n_other

    @property
    def n_active(self) -> int:
        """Weights that a token meets: all, without those of the experts that do not read it."""
        return self.n_parameters if self.counted is None else self.counted.n_active


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
        ConfigError: TG0171, the model is unknown; TG0112, it has to be counted, and torch is not installed.
    """
    return ModelDims.of(known_config(name))


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
    return models[key].model_dump()


@cache
def _shapes() -> dict[str, KnownModel]:
    """Name -> shapes; reading checks every entry."""
    read = YAML(typ="safe", pure=True).load(_KNOWN.read_text(encoding="utf-8"))
    return TypeAdapter(dict[str, KnownModel]).validate_python(read)
