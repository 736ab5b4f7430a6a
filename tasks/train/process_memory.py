"""How much memory a training process takes on a CPU: its peak resident set, by term.

The terms follow what tasks/train/forward.py and the optimiser really hold; `RUNTIME` and `WASTE` are measured (see
docs/decisions/0018-memory-before-a-gpu.md), all others are arithmetic over config.json. Without torch: `tunegate plan`
asks it before anything is loaded. `tasks/train/memory.py` has the figures of a card, which share no runtime and map no
files. Used by tasks/train/memory_check.py and tasks/train/worker.py.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from schemas.training import QuantizationSpec, TrainSpec
from tasks.train.memory import ModelDims, moment_bytes, quantized_bytes, trainable_parameters

RUNTIME = 1_010_000_000
"""Resident bytes of a process that has imported torch, transformers, PEFT and datasets: 590 MB of its own, 420 MB of
mapped libraries. Measured with the locked versions on Linux; a tiny model's whole training peaks at 1,013 MB."""
WASTE = 0.1
"""Share of the activations that the heap holds beyond them: freed pieces between held ones. Measured 8-13 %."""
_LOSS_ROWS, _BLOCK = 128, 1024
"""`LOSS_ROWS` and `LONGEST_BLOCK` of tasks/train/fast, which imports torch; a test compares them."""
_WIDE = 4


@dataclass(frozen=True)
class ProcessMemory:
    """Bytes of one process at the peak of a training step."""

    runtime: int
    weights: int
    """Base and adapter, and copies that the fast path or autocast makes."""
    gradients: int
    optimizer: int
    activations: int
    logits: int
    load: int
    """Peak while the files are read: file and converted weights side by side. No part of the step."""

    @property
    def total(self) -> int:
        """The process's peak: of a step, or of the loading where that is more."""
        return max(self.step, self.load)

    @property
    def step(self) -> int:
        """Peak of a step. The pages of read files are gone by then, or the system takes them when it needs them."""
        return self.runtime + self.weights + self.gradients + self.optimizer + self.activations + self.logits

    def parts(self) -> dict[str, int]:
        """Bytes by name, with the total."""
        return {**asdict(self), "total": self.total}


def stored_bytes(model: Path) -> int:
    """Bytes of a model's weight files, which are mapped while they are read."""
    return sum(path.stat().st_size for path in model.glob("*.safetensors"))


def predict_process(
    dims: ModelDims, spec: TrainSpec, *, number: int, max_tokens: int, supervised_share: float, stored: int
) -> ProcessMemory:
    """Peak memory of each of `spec.processes` training processes on a CPU.

    Args:
        dims: Of the base model.
        spec: Method, adapter, batch size, checkpointing, sharding.
        number: Bytes of a number in the arithmetic: 4 or 2.
        max_tokens: Longest example.
        supervised_share: Of the tokens, 0-1.
        stored: Bytes of the weight files.
    """
    positions = spec.batch_size * max_tokens
    n_scored = max(1, round(positions * supervised_share))
    keeps_file = round(stored / dims.n_parameters) == (_WIDE if spec.method == "full" else number)
    trained = dims.n_parameters if spec.method == "full" else trainable_parameters(dims, spec.adapter)
    if spec.method == "full" or spec.sharding == "full":
        activations = _plain_activations(dims, spec, positions, number)
        # Logits, those chosen, their log-softmax and the gradient.
        logits = n_scored * dims.vocab * (number + 3 * _WIDE)
    else:
        activations = _fast_activations(dims, spec, positions, max_tokens, number)
        logits = min(n_scored, _LOSS_ROWS) * dims.vocab * 3 * _WIDE
        # oneDNN's bfloat16 product keeps the head in an order of its own.
        logits += dims.vocab * dims.hidden * number if number < _WIDE else 0
    base = _base_bytes(dims, spec, number, keeps_file=keeps_file, stored=stored)
    parts = spec.processes if spec.sharding == "full" else 1
    # Of a sharded model, one layer and the embeddings are whole at a time.
    gathered = 0 if parts == 1 else (dims.n_other + dims.n_linear // dims.layers) * _WIDE
    copies = 0 if keeps_file else base
    return ProcessMemory(
        runtime=RUNTIME,
        weights=(base + (0 if spec.method == "full" else trained * _WIDE)) // parts + gathered,
        gradients=trained * _WIDE // parts,
        optimizer=round(trained * moment_bytes(spec)) // parts,
        activations=round(activations * (1 + WASTE)),
        logits=logits,
        load=RUNTIME + stored + copies,
    )


def _base_bytes(dims: ModelDims, spec: TrainSpec, number: int, *, keeps_file: bool, stored: int) -> int:
    """What the frozen (or, for `full`, the trained) base holds after loading."""
    if spec.method == "full":
        mixed = dims.n_parameters * number if number < _WIDE else 0  # autocast's copies
        return dims.n_parameters * _WIDE + mixed
    if spec.method == "lora":
        # The fast path joins q, k and v; where the weights are the mapped file, its pages stay beside the joint copy.
        joined = sum(d_in * d_out for name, (d_in, d_out) in dims.linear_shapes.items() if name in _QKV)
        return dims.n_parameters * number + (dims.layers * joined * number if keeps_file else 0)
    if keeps_file:  # embeddings and norms are part of the mapped file, which stays as a whole
        return quantized_bytes(dims, spec.quantization or QuantizationSpec()) - dims.n_other * 2 + stored
    return quantized_bytes(dims, spec.quantization or QuantizationSpec()) + dims.n_other * (number - 2)


_QKV = ("q_proj", "k_proj", "v_proj")


def _fast_activations(dims: ModelDims, spec: TrainSpec, positions: int, seq: int, number: int) -> int:
    """What tasks/train/fast saves for the backward: inputs of norms and products, q, k, v, attention weights. Rows are
    taken as all of the greatest length and without a shared prefix, so it is an upper bound."""
    q, kv = dims.heads * dims.d_head, dims.kv_heads * dims.d_head
    weights = dims.heads * seq if seq <= _BLOCK else q
    width = 4 * dims.hidden + 2 * q + 2 * kv + 4 * dims.intermediate + weights + 7 * spec.adapter.rank
    # Below the lowest adapter nothing is saved.
    layers = dims.layers - min(spec.adapter.layers_of(dims.layers))
    kept = _kept(layers, dims.hidden, width, checkpointing=spec.gradient_checkpointing)
    largest = max(d_in * d_out for d_in, d_out in dims.linear_shapes.values())
    return (positions * kept + (2 * largest if spec.method == "qlora" else 0)) * number


def _plain_activations(dims: ModelDims, spec: TrainSpec, positions: int, number: int) -> int:
    """What autograd saves of transformers' own layers; with autocast about half of it stays in float32."""
    q = dims.heads * dims.d_head
    width = 6 * dims.hidden + 5 * q + 4 * dims.intermediate
    kept = _kept(dims.layers, dims.hidden, width, checkpointing=spec.gradient_checkpointing)
    return positions * kept * (number + _WIDE) // 2


def _kept(layers: int, hidden: int, width: int, *, checkpointing: bool) -> int:
    """Numbers per position: all layers' own, or their inputs and one layer."""
    return layers * hidden + width if checkpointing else layers * width
