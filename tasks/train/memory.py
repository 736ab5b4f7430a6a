"""How many weights a training changes and how much memory it takes, from the shapes in config.json alone.

Pure arithmetic, without torch: it serves `tunegate plan` before anything is loaded. It knows nothing of what runs.
Covers decoders with gated feed-forward layers (Llama, Mistral, Qwen2). Used by tasks/train/worker.py and the planner.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from schemas.errors import ConfigError
from schemas.names import closest
from schemas.training import AdapterSpec, QuantizationSpec, TrainSpec

_BLOCK, _SECOND_BLOCK = 64, 256
"""Weights per scale of NF4, and scales per second-level scale. Source: Dettmers et al., QLoRA (2023), section 3."""
_FLOAT32, _FLOAT16 = 4, 2
_ADAM = 8
"""Bytes per weight of AdamW's two float32 moments."""
_ADAM_8BIT = 2 + 2 * 4 / 256
"""Of two 8-bit moments with a float32 scale per 256 of each."""
_LOGIT = 10
"""Bytes per logit: 16-bit, float32 copy, float32 gradient."""


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

    @classmethod
    def read(cls, config: Path) -> ModelDims | None:
        """From a model's config.json; None when it is no decoder of the covered kind."""
        return cls.of(json.loads(config.read_text(encoding="utf-8")))

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> ModelDims | None:
        """From the fields of a config.json; None when it is no decoder of the covered kind."""
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
                tied=bool(found.get("tie_word_embeddings", False)),
                qkv_bias=found.get("model_type") == "qwen2" or bool(found.get("attention_bias", False)),
            )
        except KeyError:
            return None

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(d_in, d_out) of the linear layers of one decoder layer."""
        q, kv = self.heads * self.d_head, self.kv_heads * self.d_head
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
        """Weights of all decoder layers' linear layers: what NF4 quantises."""
        return self.layers * sum(d_in * d_out for d_in, d_out in self.linear_shapes.values())

    @property
    def n_other(self) -> int:
        """Embedding, output head, norms, biases: what stays in 16 bits."""
        embeddings = self.vocab * self.hidden * (1 if self.tied else 2)
        biases = self.layers * (self.heads + 2 * self.kv_heads) * self.d_head if self.qkv_bias else 0
        return embeddings + (2 * self.layers + 1) * self.hidden + biases

    @property
    def n_parameters(self) -> int:
        """All weights; a tied head counts once."""
        return self.n_linear + self.n_other


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step, without the runtime's own (CUDA context, libraries)."""

    weights: int
    """Base and adapter."""
    gradients: int
    optimizer: int
    activations: int
    """Kept for the backward, and the largest 4-bit matrix dequantised."""
    logits: int

    @property
    def total(self) -> int:
        """Sum of all parts, bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits

    def parts(self) -> dict[str, int]:
        """Bytes by name, with the total."""
        return {**asdict(self), "total": self.total}


def trainable_parameters(dims: ModelDims, adapter: AdapterSpec) -> int:
    """Weights of the LoRA factors: the sum over layers and targets of `rank * (d_in + d_out)`.

    Raises:
        ConfigError: a target module that is no linear layer of these decoders, or too many top layers.

    >>> llama_7b = ModelDims(
    ...     layers=32, hidden=4096, heads=32, kv_heads=32, d_head=128, intermediate=11008, vocab=32000, tied=False
    ... )
    >>> trainable_parameters(llama_7b, AdapterSpec(rank=16, target_modules=("q_proj", "v_proj")))
    8388608

    Source: Hu et al., LoRA (2021), section 4.1.
    """
    shapes = dims.linear_shapes
    wanted = tuple(shapes) if adapter.target_modules == "all-linear" else tuple(set(adapter.target_modules))
    for name in wanted:
        if name not in shapes:
            raise ConfigError(
                f"no linear layer {name!r}; there are {', '.join(shapes)}",
                code="TG0181",
                where="train.adapter.target_modules",
                hint=closest(name, shapes),
            )
    layers = adapter.layers_of(dims.layers)
    if (adapter.top_layers or 0) > dims.layers or max(layers) >= dims.layers:
        asked = f"layer {max(layers)}" if adapter.top_layers is None else f"top_layers {adapter.top_layers}"
        raise ConfigError(
            f"{asked} is asked for, the model has {dims.layers} layers", code="TG0180", where="train.adapter"
        )
    magnitudes = sum(shapes[name][1] for name in wanted) if adapter.dora else 0
    return len(layers) * (adapter.rank * sum(sum(shapes[name]) for name in wanted) + magnitudes)


def nf4_bits(double_quant: bool) -> float:
    """Bits per weight: four, one float32 scale per 64, or with double quantisation one 8-bit scale per 64 and one
    float32 per 256 of those.

    >>> nf4_bits(False), round(nf4_bits(True), 3)
    (4.5, 4.127)

    Source: Dettmers et al., QLoRA (2023), section 3.
    """
    return 4 + (8 / _BLOCK + 32 / (_BLOCK * _SECOND_BLOCK) if double_quant else 32 / _BLOCK)


def quantized_bytes(dims: ModelDims, quantization: QuantizationSpec) -> int:
    """Bytes of a model whose linear layers are held in 4 bits and everything else in 16."""
    return round(dims.n_linear * nf4_bits(quantization.double_quant) / 8) + dims.n_other * _FLOAT16


def moment_bytes(spec: TrainSpec) -> float:
    """Bytes of the optimiser's two moments per trained weight."""
    return _ADAM if spec.optimizer == "adamw" else _ADAM_8BIT


def estimate_memory(
    dims: ModelDims, spec: TrainSpec, *, max_tokens: int, n_logit_positions: int | None = None
) -> MemoryEstimate:
    """Peak memory of one training step.

    Args:
        dims: Of the base model.
        spec: Method, adapter, batch size, checkpointing; `dtype: auto` counts as 16-bit.
        max_tokens: Longest example, tokens.
        n_logit_positions: Positions whose logits exist at once; None takes all of a batch.

    Source: activations per layer as in Korthikanti et al., Reducing Activation Recomputation (2022), for a gated
    feed-forward layer, without attention weights.
    """
    number = _FLOAT32 if spec.dtype == "float32" else _FLOAT16
    positions = spec.batch_size * max_tokens
    kept_per_layer = positions * dims.hidden * number
    q, kv = dims.heads * dims.d_head, dims.kv_heads * dims.d_head
    width = 3 * dims.hidden + 2 * kv + q + dims.hidden + 3 * dims.intermediate
    live_layer = positions * (width * number + 2 * dims.hidden * _FLOAT32)
    recomputed = dims.layers * kept_per_layer + live_layer
    activations = recomputed if spec.gradient_checkpointing else dims.layers * live_layer
    logits = (positions if n_logit_positions is None else n_logit_positions) * dims.vocab * _LOGIT
    if spec.method == "full":
        n_trained, base = dims.n_parameters, 0
    else:
        n_trained = trainable_parameters(dims, spec.adapter)
        base = (
            quantized_bytes(dims, spec.quantization or QuantizationSpec())
            if spec.method == "qlora"
            else dims.n_parameters * number
        )
    if spec.method == "qlora":
        activations += max(d_in * d_out for d_in, d_out in dims.linear_shapes.values()) * number
    return MemoryEstimate(
        weights=base + n_trained * _FLOAT32,
        gradients=n_trained * _FLOAT32,
        optimizer=round(n_trained * moment_bytes(spec)),
        activations=activations,
        logits=logits,
    )


def full_tuning_bytes(n_parameters: int, *, recipe: str) -> int:
    """Weights, gradients and optimiser of full fine-tuning, without activations.

    Args:
        n_parameters: Of the model.
        recipe: `mixed` (16-bit weights and gradients, float32 master and moments: 16 bytes each), `bfloat16` (all
            four in 16 bits: 8), `bfloat16_adam8` (8-bit moments: 6).

    Raises:
        KeyError: another recipe.

    >>> [round(full_tuning_bytes(6_738_415_616, recipe=r) / 1e9, 1) for r in ("mixed", "bfloat16", "bfloat16_adam8")]
    [107.8, 53.9, 40.4]

    Source: Rajbhandari et al., ZeRO (2020), section 3.1.
    """
    return n_parameters * {"mixed": 16, "bfloat16": 8, "bfloat16_adam8": 6}[recipe]


def memory_advice(spec: TrainSpec) -> str:
    """What to change in the settings so that a training needs less memory, for a `hint:`."""
    advice = []
    if spec.batch_size > 1:
        advice.append(
            f"halve train.batch_size ({spec.batch_size}) and double train.gradient_accumulation_steps: same gradients"
        )
    if not spec.gradient_checkpointing:
        advice.append("set train.gradient_checkpointing: true")
    if spec.method != "qlora":
        advice.append(f"use train.method: {'qlora' if spec.method == 'lora' else 'lora'}")
    return "; or ".join(advice) or "use a smaller base model"
