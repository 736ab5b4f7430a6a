"""How much memory a training needs, whether this machine or a card has it, and if not, what would fit.

Arithmetic over the shapes in config.json, without torch: `tunegate plan` and `tunegate study estimate` use it before
anything is loaded. In this order: trainable weights and bytes on a card, of the decoders in model_shapes.py; the peak
resident set of a process on a CPU, by term; the memory that is free here (/proc, control groups and, if there are
cards, tasks/train/cards.py) and whether a training fits; which method fits which card.

The CPU terms follow what the training holds: of the fast path by arithmetic, of the model's own forward by a step of
tensors without values (tasks/train/own_forward.py, which needs torch). `RUNTIME` and `WASTE` are measured (see
docs/decisions/bases-and-memory.md), all others are computed. A card shares no runtime and maps no files.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import orjson
from pydantic import PositiveFloat, TypeAdapter
from ruamel.yaml import YAML

from schemas.artifacts import ModelRef
from schemas.errors import ConfigError, TrainingError
from schemas.names import closest
from schemas.training import AdapterSpec, Method, QuantizationSpec, TrainSpec
from tasks.model.adapter import adapts_experts, count_trained
from tasks.model.base_model import auto_is_bfloat16, forced_dtype
from tasks.model.chat_base import trained_ids
from tasks.train.cards import cards_here
from tasks.train.model_shapes import ModelDims
from tasks.train.own_forward import LARGE_TENSOR, OWN_FORWARD_COST, Step, StepBytes, slow_cause, step_bytes

PAGED = "paged_adamw_8bit"
"""The optimiser that needs CUDA."""
_BLOCK, _SECOND_BLOCK = 64, 256
"""Weights per scale of NF4, and scales per second-level scale. Source: Dettmers et al., QLoRA (2023), section 3."""
_FLOAT32, _FLOAT16 = 4, 2
_ADAM = 8
"""Bytes per weight of AdamW's two float32 moments."""
_ADAM_8BIT = 2 + 2 * 4 / 256
"""Bytes per weight of two 8-bit moments with a float32 scale per 256 of each."""
_LOGIT = 10
"""Bytes per logit: 16-bit, float32 copy, float32 gradient."""
RUNTIME = 1_010_000_000
"""Resident bytes of a process that has imported torch, transformers, PEFT and datasets: 590 MB of its own, 420 MB of
mapped libraries. Measured with the locked versions on Linux; a tiny model's whole training peaks at 1,013 MB."""
WASTE, OWN_WASTE = 0.1, 0.15
"""Holes in the heap, as a share of what is put there: of the fast path's activations (measured 5-13 %), and on the
model's own forward, whose tensors have more sizes (6-20 %), also of gradients and moments."""
_RECOMPUTED_WASTE = 3
"""Holes that gradient checkpointing of the model's own forward leaves, in layers' worth of tensors (measured 2.2-4.2):
layers that are run again find the places of the first run cut by inputs that are kept."""
_LOSS_ROWS, _LONGEST_BLOCK = 128, 1024
"""`LOSS_ROWS` and `LONGEST_BLOCK` of tasks/train/fast, which imports torch; a test compares them."""
_QKV = ("q_proj", "k_proj", "v_proj")
log = logging.getLogger("tunegate.train")
GIB = 2**30
CARDS = TypeAdapter(dict[str, PositiveFloat]).validate_python(
    YAML(typ="safe", pure=True).load(Path(__file__).with_name("cards.yaml"))
)
"""Card -> GiB that its driver reports."""
RUNTIME_GIB = 0.8
"""CUDA context, kernels and the allocator's waste: measured values lie between 0.5 and 1."""
CONTEXT_GIB = 0.5
"""Part of it that is the context: `free_card_bytes` was read next to one, and counts none."""
MARGIN = 0.1
"""Share of a card that must stay free for a fit: it covers fragmentation and the estimate's error."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes at the peak of a training step, without the runtime (CUDA context, libraries)."""

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
        ConfigError: a target module is not a linear layer of these decoders, or there are too many top layers.

    >>> llama_7b = ModelDims(
    ...     layers=32, hidden=4096, heads=32, kv_heads=32, d_head=128, intermediate=11008, vocab=32000, tied=False
    ... )
    >>> trainable_parameters(llama_7b, AdapterSpec(rank=16, target_modules=("q_proj", "v_proj")))
    8388608

    Source: Hu et al., LoRA (2021), section 4.1.
    """
    if dims.counted is not None:
        return count_trained(dims.config, adapter)
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
    layers = adapter.layers_within(dims.layers)
    magnitudes = sum(shapes[name][1] for name in wanted) if adapter.dora else 0
    return len(layers) * (adapter.rank * sum(sum(shapes[name]) for name in wanted) + magnitudes)


def trains_experts(dims: ModelDims, spec: TrainSpec) -> bool:
    """Whether an adapter sits on experts that are stacked in one parameter."""
    if spec.method == "full" or not dims.n_stacked or spec.adapter.target_modules != "all-linear":
        return False
    return dims.counted is not None and adapts_experts(dims.config)


def _updated_experts(dims: ModelDims, spec: TrainSpec, number: int) -> int:
    """Bytes of the experts with their updates added, which PEFT makes in each forward and the backward needs."""
    if not trains_experts(dims, spec):
        return 0
    return dims.n_stacked * number // (dims.layers if spec.gradient_checkpointing else 1)


def nf4_bits(double_quant: bool) -> float:
    """Bits per weight: four, one float32 scale per 64, or with double quantisation one 8-bit scale per 64 and one
    float32 per 256 of those.

    >>> nf4_bits(False), round(nf4_bits(True), 3)
    (4.5, 4.127)

    Source: Dettmers et al., QLoRA (2023), section 3.
    """
    return 4 + (8 / _BLOCK + 32 / (_BLOCK * _SECOND_BLOCK) if double_quant else 32 / _BLOCK)


def quantized_bytes(dims: ModelDims, quantization: QuantizationSpec) -> int:
    """Bytes of a model with linear layers in 4 bits and everything else in 16."""
    return round(dims.n_linear * nf4_bits(quantization.double_quant) / 8) + dims.n_other * _FLOAT16


def moment_bytes(spec: TrainSpec) -> float:
    """Bytes of the optimiser's two moments per trainable weight."""
    return _ADAM if spec.optimizer == "adamw" else _ADAM_8BIT


def estimate_memory(
    dims: ModelDims,
    spec: TrainSpec,
    *,
    max_tokens: int,
    n_logit_positions: int | None = None,
    number: int | None = None,
) -> MemoryEstimate:
    """Peak memory of one training step on each card.

    Args:
        dims: Shapes of the base model.
        spec: Method, adapter, batch size, checkpointing, sharding.
        max_tokens: Longest example, tokens.
        n_logit_positions: Positions whose logits exist at once; None for all positions of a batch.
        number: Bytes per number in the arithmetic; None for those of `spec.dtype`, where `auto` counts as 16-bit.

    Source: activations per layer as in Korthikanti et al., Reducing Activation Recomputation (2022), for a gated
    feed-forward layer, without attention weights.
    """
    if number is None:
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
        copies = dims.n_parameters * number if number < _FLOAT32 else 0  # autocast's, kept for the backward
    else:
        copies = 0
        n_trained = trainable_parameters(dims, spec.adapter)
        base = (
            quantized_bytes(dims, spec.quantization or QuantizationSpec())
            if spec.method == "qlora"
            else dims.n_parameters * number
        )
    if spec.method == "qlora":
        activations += max(d_in * d_out for d_in, d_out in dims.linear_shapes.values()) * number
    parts = spec.processes if spec.sharding == "full" else 1
    wide = _FLOAT32 if spec.method == "full" else number
    gathered = 0 if parts == 1 else _gathered(dims) * wide
    return MemoryEstimate(
        weights=(base + n_trained * _FLOAT32) // parts + gathered + copies,
        gradients=n_trained * _FLOAT32 // parts,
        optimizer=round(n_trained * moment_bytes(spec)) // parts,
        activations=activations + _updated_experts(dims, spec, number),
        logits=logits,
    )


def _gathered(dims: ModelDims) -> int:
    """Weights that are whole at a time in a sharded model: those outside of the layers, and one layer's."""
    in_layers = dims.n_linear + dims.n_stacked
    return dims.n_parameters - in_layers + in_layers // dims.layers


def memory_advice(spec: TrainSpec) -> str:
    """Settings to change so that a training needs less memory, for a `hint:`."""
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


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of one process at the peak of a training step."""

    runtime: int
    weights: int
    """Base, adapter, and the copies that the fast path makes."""
    gradients: int
    optimizer: int
    activations: int
    """Kept for the backward, logits, copies in other types, and what one operation needs meanwhile."""
    waste: int
    """Holes in the heap."""
    load: int
    """Peak while loading: files and converted weights together. Not part of the step."""

    @property
    def total(self) -> int:
        """The process's peak: the step's or the loading's, whichever is larger."""
        return max(self.step, self.load)

    @property
    def step(self) -> int:
        """Peak of a step. Pages of loaded files are gone by then, or the system reclaims them when needed."""
        return self.runtime + self.weights + self.gradients + self.optimizer + self.activations + self.waste

    def parts(self) -> dict[str, int]:
        """Bytes by name, with the total."""
        return {**asdict(self), "total": self.total}


def stored_bytes(model: Path) -> int:
    """Bytes of a model's weight files, which are memory-mapped while loading."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def predict_process(work: Workload, spec: TrainSpec, *, number: int) -> ProcessMemory | None:
    """Peak memory of each of `spec.processes` training processes on a CPU; None if it cannot be predicted.

    Args:
        work: Model and data.
        spec: Method, adapter, batch size, checkpointing, sharding.
        number: Bytes per number in the arithmetic: 4 or 2.
    """
    dims = work.dims
    trained = dims.n_parameters if spec.method == "full" else trainable_parameters(dims, spec.adapter)
    gradients = trained * _FLOAT32
    optimizer = round(trained * moment_bytes(spec))
    fast = work.slow_cause(spec, "cpu") is None
    if fast:
        activations = _fast_activations(dims, spec, work, number)
        waste = round(WASTE * activations)
    elif (step := step_bytes(_step_of(work, spec, number))) is None:
        return None
    else:
        gradients = step.gradients
        small, large = _with_update(dims, spec, step)
        activations = small + large - gradients
        if spec.sharding == "full":  # a part of the gradients at the end; what the forward keeps is whole
            activations = max(activations, step.forward)
        waste = round(OWN_WASTE * (small + optimizer)) + _RECOMPUTED_WASTE * _layer_bytes(work, spec, step, number)
    keeps_file = round(work.stored / dims.n_parameters) == (_FLOAT32 if spec.method == "full" else number)
    base = _base_bytes(dims, spec, number, keeps_file=keeps_file, stored=work.stored, joins=fast)
    parts = spec.processes if spec.sharding == "full" else 1
    gathered = 0 if parts == 1 else _gathered(dims) * _FLOAT32
    return ProcessMemory(
        runtime=RUNTIME,
        weights=(base + (0 if spec.method == "full" else trained * _FLOAT32)) // parts + gathered,
        gradients=gradients // parts,
        optimizer=optimizer // parts,
        activations=activations,
        waste=waste,
        load=RUNTIME + work.stored + (0 if keeps_file else base),
    )


def _with_update(dims: ModelDims, spec: TrainSpec, step: StepBytes) -> tuple[int, int]:
    """Peaks of the step's small and large tensors, the optimiser's own among them.

    On a CPU, bitsandbytes updates a weight with five float32 copies: two moments, their root, the denominator and the
    gradient. Source: `_optimizer_update_8bit_blockwise_cpu`. torch's fused AdamW makes none.
    """
    if spec.method != "full" or spec.optimizer == "adamw":
        return step.small, step.large
    sizes = [dims.vocab * dims.hidden, *(each.size * (each.n_experts if each.stacked else 1) for each in dims.matrices)]
    copy = max(sizes) * _FLOAT32
    small = 0 if copy >= LARGE_TENSOR else 5 * copy
    large = 5 * copy - small
    small_gradients = step.gradients - step.large_gradients
    return max(step.small, small_gradients + small), max(step.large, step.large_gradients + large)


def _layer_bytes(work: Workload, spec: TrainSpec, step: StepBytes, number: int) -> int:
    """Small tensors of a layer that is run again for its backward: what is there besides inputs and gradients."""
    if not spec.gradient_checkpointing:
        return 0
    inputs = work.dims.layers * spec.batch_size * work.max_tokens * work.dims.hidden * number
    return max(0, step.small - inputs - (step.gradients - step.large_gradients))


def _step_of(work: Workload, spec: TrainSpec, number: int) -> Step:
    """The step of the model's own forward: all examples as long as the longest, with logits where one has loss."""
    return Step(
        config=work.dims.config,
        adapter=None if spec.method == "full" else spec.adapter,
        dtype="float32" if number == _FLOAT32 else "bfloat16",
        recompute=spec.gradient_checkpointing,
        batch=spec.batch_size,
        tokens=work.max_tokens,
        n_columns=max(1, round(work.max_tokens * work.supervised_share)),
        n_batches=min(2, spec.gradient_accumulation_steps),
        n_rows=work.n_rows,
        four_bits=spec.method == "qlora",
    )


def _base_bytes(dims: ModelDims, spec: TrainSpec, number: int, *, keeps_file: bool, stored: int, joins: bool) -> int:
    """Bytes of the frozen (or, for `full`, the trained) base after loading."""
    if spec.method == "full":
        return dims.n_parameters * _FLOAT32
    if spec.method == "lora":
        # The fast path joins q, k and v; if the weights are the mapped file, its pages stay as well as the joint copy.
        joined = sum(d_in * d_out for name, (d_in, d_out) in dims.linear_shapes.items() if name in _QKV)
        return dims.n_parameters * number + (dims.layers * joined * number if keeps_file and joins else 0)
    if keeps_file:  # embeddings and norms are part of the mapped file, all of which stays
        return quantized_bytes(dims, spec.quantization or QuantizationSpec()) - dims.n_other * 2 + stored
    return quantized_bytes(dims, spec.quantization or QuantizationSpec()) + dims.n_other * (number - 2)


def _fast_activations(dims: ModelDims, spec: TrainSpec, work: Workload, number: int) -> int:
    """What tasks/train/fast saves for the backward: inputs of norms and products, q, k, v, attention weights; logits.

    An upper bound: it assumes that all rows have the greatest length and share no prefix.
    """
    q, kv, seq = dims.heads * dims.d_head, dims.kv_heads * dims.d_head, work.max_tokens
    weights = dims.heads * seq if seq <= _LONGEST_BLOCK else q
    width = 4 * dims.hidden + 2 * q + 2 * kv + 4 * dims.intermediate + weights + 7 * spec.adapter.rank
    # Below the lowest adapter nothing is saved.
    layers = dims.layers - min(spec.adapter.layers_of(dims.layers))
    kept = layers * dims.hidden + width if spec.gradient_checkpointing else layers * width
    largest = max(d_in * d_out for d_in, d_out in dims.linear_shapes.values())
    positions = spec.batch_size * seq
    n_scored = min(max(1, round(positions * work.supervised_share)), _LOSS_ROWS)
    # oneDNN's bfloat16 product keeps a reordered copy of the head.
    head = dims.vocab * dims.hidden * number if number < _FLOAT32 else 0
    logits = n_scored * dims.vocab * 3 * _FLOAT32 + head
    return (positions * kept + (2 * largest if spec.method == "qlora" else 0)) * number + logits


@dataclass(frozen=True)
class Workload:
    """What determines the memory of a training, besides its settings."""

    dims: ModelDims
    stored: int
    """Bytes of the base model's files."""
    max_tokens: int
    """Longest example, tokens."""
    supervised_share: float = 1.0
    """Share of the tokens that are supervised, 0-1."""
    n_rows: int = 0
    """Rows of the embeddings that an adapter's training also trains, for the tokens of a chat template."""

    def slow_cause(self, spec: TrainSpec, device: str) -> str | None:
        """As `tasks.train.own_forward.slow_cause`."""
        return slow_cause(orjson.loads(self.dims.config), spec, device=device, n_rows=self.n_rows)


@dataclass(frozen=True)
class Forecast:
    """Predicted and available memory in bytes: for all processes together on a CPU, else for one card."""

    device: Literal["cpu", "cuda"]
    predicted: int
    available: int
    remedy: str | None = None
    """The smallest change that fits; None when it fits unchanged, or when nothing does."""

    @property
    def fits(self) -> bool:
        return self.predicted <= self.available

    def sentence(self) -> str:
        """Both figures as a sentence."""
        place = "this card has" if self.device == "cuda" else "this machine has"
        return f"it is predicted to need {self.predicted / GIB:.2f} GiB, {place} {self.available / GIB:.2f} GiB free"


def workload_of(model: ModelRef, *, max_tokens: int, supervised_share: float = 1.0) -> Workload | None:
    """A model's workload, from its own files; None for an architecture whose memory cannot be computed."""
    dims = ModelDims.read(model.root / "config.json")
    if dims is None:
        return None
    return Workload(dims, stored_bytes(model.root), max_tokens, supervised_share, len(trained_ids(model.root)))


def describe_path(work: Workload, spec: TrainSpec) -> str:
    """Which forward the training computes on this machine, why, and how its speed compares."""
    device = detect_device()
    cause = work.slow_cause(spec, device)
    if device != "cpu":
        return "the model's own forward, on the card"
    times = f"{OWN_FORWARD_COST:g} times"
    if cause is None:
        return f"the fast path; the model's own forward would take about {times} its CPU time"
    return f"the model's own forward, at about {times} the CPU time of the fast path: {cause}"


def forecast(work: Workload, spec: TrainSpec, *, here: int | None = None) -> Forecast | None:
    """Compare the training with this machine, and find the smallest change that fits; None if it cannot be predicted.

    Args:
        work: Model and data.
        spec: The settings.
        here: How many of its processes run on this machine; None for all.
    """
    card = free_card_bytes(spec.processes if here is None else here)
    device: Literal["cpu", "cuda"] = "cpu" if card is None else "cuda"
    available = free_bytes() if card is None else card
    number = _bytes_per_number(spec, device)  # once: to ask a card takes a process
    parts = predict_parts(work, spec, device=device, number=number)
    if parts is None:
        return None
    predicted = required_bytes(parts, spec, device, here=here)
    if predicted <= available:
        return Forecast(device, predicted, available)
    for changes in _changes(spec):
        if changes.get("method") == "qlora" and work.dims.n_stacked:
            continue  # bitsandbytes does not quantise stacked experts
        # model_copy skips validation, which would reject a learning rate meant for another method.
        changed = spec.model_copy(update=changes)
        parts = predict_parts(work, changed, device=device, number=number)
        if parts is not None and (needed := required_bytes(parts, changed, device, here=here)) <= available:
            remedy = ", ".join(f"train.{name}: {str(value).lower()}" for name, value in changes.items())
            return Forecast(device, predicted, available, f"{remedy} ({needed / GIB:.2f} GiB)")
    return Forecast(device, predicted, available)


def check_memory(work: Workload | None, spec: TrainSpec, *, here: int | None = None) -> None:
    """Refuse a training that cannot fit, warn, or do nothing, as `train.memory_check` says; see `forecast`.

    Raises:
        TrainingError: TG0405, the predicted peak exceeds the available memory.
    """
    if work is None or spec.memory_check == "off":
        return
    found = forecast(work, spec, here=here)
    if found is None or found.fits:
        return
    hint = (
        f"this fits: {found.remedy}"
        if found.remedy
        else "no batch, checkpointing or method makes it fit: use a smaller base model"
    )
    if spec.memory_check == "warn":
        log.warning("TG0405 the training may run out of memory: %s; %s", found.sentence(), hint)
        return
    raise TrainingError(
        f"the training does not fit into memory: {found.sentence()}",
        code="TG0405",
        where="train",
        hint=f"{hint}; train.memory_check: warn tries it anyway",
    )


def predict_parts(
    work: Workload, spec: TrainSpec, *, device: Literal["cpu", "cuda"], number: int | None = None
) -> dict[str, int] | None:
    """Bytes of one process by term, with `total`; None if they cannot be predicted.

    Args:
        work: Model and data.
        spec: The settings.
        device: Where it trains.
        number: Bytes per number in the arithmetic; None for what this machine would choose.
    """
    if number is None:
        number = _bytes_per_number(spec, device)
    if device == "cpu":
        found = predict_process(work, spec, number=number)
        return None if found is None else found.parts()
    parts = estimate_memory(work.dims, spec, max_tokens=work.max_tokens, number=number).parts()
    runtime = round(RUNTIME_GIB * GIB)
    total = runtime + sum(size for name, size in parts.items() if name != "total")
    return {"runtime": runtime, **parts, "total": total}


def required_bytes(
    parts: dict[str, int], spec: TrainSpec, device: Literal["cpu", "cuda"], *, here: int | None = None
) -> int:
    """Bytes that must be free: for all processes (or those `here`) on a CPU, else for one card, next to a context.

    Pages of files that are mapped only while loading do not count: the system reclaims them when needed.
    """
    step = sum(size for name, size in parts.items() if name not in ("total", "load"))
    if device != "cpu":
        return step - round(CONTEXT_GIB * GIB)
    return step * (spec.processes if here is None else min(here, spec.processes))


def detect_device() -> Literal["cpu", "cuda"]:
    """The device that a training on this machine uses, as far as can be detected without torch."""
    return "cpu" if free_card_bytes() is None else "cuda"


def check_device(train: TrainSpec, device: str) -> None:
    """Check that the optimiser works on this kind of device, `cuda` or `cpu`.

    Raises:
        ConfigError: TG0111, it does not.
    """
    if train.optimizer == PAGED and device != "cuda":
        raise ConfigError(
            f"paged_adamw_8bit pages between CUDA and the CPU, but training runs on {device}",
            code="TG0111",
            where="train.optimizer",
            hint="use adamw_8bit, which has kernels for the CPU too",
        )


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that a new process can use: what the kernel calls available, or less under a control group (v2) limit.

    Args:
        root: Root of the file system with /proc and /sys.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # not Linux: the total, some of which is in use
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return min([int(fields["MemAvailable"].split()[0]) * 1024, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """Bytes that this process's control group and each of its parents still allow."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return
    top = root / "sys/fs/cgroup"
    folder = top / own.lstrip("/")
    # In a container the path may be the host's; the container's own group is then the mounted root.
    for place in (folder, *folder.parents):
        if not place.is_relative_to(top):
            return
        try:
            limit = (place / "memory.max").read_text().strip()
            used = int((place / "memory.current").read_text())
            stat = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if limit != "max":
            yield max(0, int(limit) - used + int(stat.get("inactive_file", 0)))


def free_card_bytes(processes: int = 1) -> int | None:
    """Free memory of the fullest card in use, of one for each process; None without a card."""
    return min((card.free for card in cards_here()[:processes]), default=None)


def _bytes_per_number(spec: TrainSpec, device: Literal["cpu", "cuda"]) -> int:
    """Of the arithmetic, as `tasks.model.base_model.resolve_dtype` will choose it."""
    wanted = forced_dtype() if spec.dtype == "auto" else spec.dtype
    if wanted is not None:
        return _FLOAT32 if wanted == "float32" else _FLOAT16
    if device == "cuda":
        return _FLOAT16 if all(card.bfloat16 for card in cards_here()[: spec.processes]) else _FLOAT32
    return _FLOAT16 if auto_is_bfloat16() else _FLOAT32


def _changes(spec: TrainSpec) -> Iterator[dict[str, int | bool | str]]:
    """Changes to the settings, the smallest first: those that keep the gradients, then lighter methods."""
    checkpointing: dict[str, int | bool | str] = {} if spec.gradient_checkpointing else {"gradient_checkpointing": True}
    if checkpointing:
        yield checkpointing
    smaller: list[dict[str, int | bool | str]] = [{**each} for each in smaller_batches(spec)]
    yield from smaller
    if checkpointing:
        yield from ({**checkpointing, **each} for each in smaller)
    least = {**checkpointing, **(smaller[-1] if smaller else {})}
    if spec.processes > 1 and spec.sharding == "none" and spec.method != "qlora":
        yield {**least, "sharding": "full"}
    if spec.processes > 1:
        yield {**least, "processes": 1}
    for method in {"full": ("lora", "qlora"), "lora": ("qlora",)}.get(spec.method, ()):
        yield {"method": method}
        yield {**least, "method": method}


def smaller_batches(spec: TrainSpec) -> Iterator[dict[str, int]]:
    """Settings with smaller batches and as many examples per optimiser step, the largest batch first.

    >>> next(smaller_batches(TrainSpec(base_model="m", batch_size=8, gradient_accumulation_steps=3)))
    {'batch_size': 4, 'gradient_accumulation_steps': 6}
    """
    for size in range(spec.batch_size // 2, 0, -1):
        if spec.batch_size % size == 0:
            accumulation = spec.gradient_accumulation_steps * (spec.batch_size // size)
            yield {"batch_size": size, "gradient_accumulation_steps": accumulation}


@dataclass(frozen=True)
class Fit:
    """One method on one model."""

    method: Method
    n_trainable: int
    estimate: MemoryEstimate
    cards: dict[str, float]
    """Card -> share that stays free, negative when it does not fit; below `MARGIN` counts as no fit."""

    @property
    def smallest_card(self) -> str | None:
        """The smallest card that it fits with the margin; None when it fits none."""
        return next((name for name, free in self.cards.items() if free >= MARGIN), None)


def fit_methods(dims: ModelDims, spec: TrainSpec, *, max_tokens: int) -> list[Fit]:
    """Every method that can load it, with its trainable weights, its peak memory and the cards it fits.

    Args:
        dims: Shapes of the base model.
        spec: Adapter, batch size, checkpointing; its own method is ignored.
        max_tokens: Longest example, tokens.
    """
    methods = [method for method in get_args(Method) if method != "qlora" or not dims.n_stacked]
    return [_fit(dims, spec, method, max_tokens) for method in methods]


def _fit(dims: ModelDims, spec: TrainSpec, method: Method, max_tokens: int) -> Fit:
    # model_copy skips validation, which would reject a learning rate meant for another method.
    estimate = estimate_memory(dims, spec.model_copy(update={"method": method}), max_tokens=max_tokens)
    needed = estimate.total / GIB + RUNTIME_GIB
    n_trainable = dims.n_parameters if method == "full" else trainable_parameters(dims, spec.adapter)
    return Fit(method, n_trainable, estimate, {name: 1 - needed / size for name, size in CARDS.items()})


def spec_for(base: str, *, rank: int, targets: Sequence[str], batch_size: int, checkpointing: bool) -> TrainSpec:
    """Training settings for an estimate without a pipeline."""
    adapter = AdapterSpec(rank=rank, alpha=2 * rank, target_modules=tuple(targets) or "all-linear")
    return TrainSpec(base_model=base, adapter=adapter, batch_size=batch_size, gradient_checkpointing=checkpointing)
