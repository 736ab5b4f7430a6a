"""Does a training fit the memory of this machine? Asked before anything is loaded; if not, what would.

Reads /proc, the control groups and, where there is a driver, nvidia-smi; imports no torch, so that `tunegate plan` can
ask too. The arithmetic is that of tasks/train/process_memory.py (CPU) and tasks/train/memory.py (cards). Called by
tasks/train/launch.py, tasks/train/worker.py and flows/commands/plan.py.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from schemas.artifacts import ModelRef
from schemas.errors import TrainingError
from schemas.training import TrainSpec
from tasks.model.base_model import multiplies_bfloat16
from tasks.train.fit import GIB, RUNTIME_GIB
from tasks.train.memory import ModelDims, estimate_memory
from tasks.train.process_memory import predict_process, stored_bytes

log = logging.getLogger("tunegate.train")


@dataclass(frozen=True)
class Workload:
    """What decides the memory of a training, apart from its settings."""

    dims: ModelDims
    stored: int
    """Bytes of the base model's files."""
    max_tokens: int
    """Longest example."""
    supervised_share: float = 1.0
    """Of the tokens, 0-1."""


@dataclass(frozen=True)
class Forecast:
    """Predicted against available, bytes: on a CPU of all processes together, else of one card."""

    device: Literal["cpu", "cuda"]
    predicted: int
    available: int
    remedy: str | None = None
    """The smallest change that fits; None when it fits as it is, or when nothing does."""

    @property
    def fits(self) -> bool:
        return self.predicted <= self.available

    def sentence(self) -> str:
        """Both figures in words."""
        place = "this card has" if self.device == "cuda" else "this machine has"
        return f"it is predicted to need {self.predicted / GIB:.2f} GiB, {place} {self.available / GIB:.2f} GiB free"


def workload_of(model: ModelRef, *, max_tokens: int, supervised_share: float = 1.0) -> Workload | None:
    """What the model's own files tell; None for an architecture whose memory cannot be computed."""
    dims = ModelDims.read(model.root / "config.json")
    return None if dims is None else Workload(dims, stored_bytes(model.root), max_tokens, supervised_share)


def forecast(work: Workload, spec: TrainSpec, *, here: int | None = None) -> Forecast:
    """Compare the training with this machine, and look for the smallest change when it does not fit.

    Args:
        work: What is trained on what.
        spec: The settings.
        here: Processes of it that run on this machine; None for all.
    """
    card = free_card_bytes()
    device: Literal["cpu", "cuda"] = "cpu" if card is None else "cuda"
    available = free_bytes() if card is None else card
    predicted = sum_of(predict_parts(work, spec, device=device), spec, device, here=here)
    if predicted <= available:
        return Forecast(device, predicted, available)
    for changes in _changes(spec):
        # model_copy checks nothing: the learning rate of another method would be refused.
        changed = spec.model_copy(update=changes)
        needed = sum_of(predict_parts(work, changed, device=device), changed, device, here=here)
        if needed <= available:
            told = ", ".join(f"train.{name}: {_yaml(value)}" for name, value in changes.items())
            return Forecast(device, predicted, available, f"{told} ({needed / GIB:.2f} GiB)")
    return Forecast(device, predicted, available)


def check_memory(work: Workload | None, spec: TrainSpec, *, here: int | None = None) -> None:
    """Refuse a training that cannot fit, or warn, or do nothing, as `train.memory_check` says; see `forecast`.

    Raises:
        TrainingError: TG0415, predicted peak above the memory at hand.
    """
    if work is None or spec.memory_check == "off":
        return
    found = forecast(work, spec, here=here)
    if found.fits:
        return
    hint = (
        f"this fits: {found.remedy}"
        if found.remedy
        else "no batch, checkpointing or method makes it fit: use a smaller base model"
    )
    if spec.memory_check == "warn":
        log.warning("TG0415 the training may run out of memory: %s; %s", found.sentence(), hint)
        return
    raise TrainingError(
        f"the training does not fit into memory: {found.sentence()}",
        code="TG0415",
        where="train",
        hint=f"{hint}; train.memory_check: warn tries it all the same",
    )


def predict_parts(work: Workload, spec: TrainSpec, *, device: Literal["cpu", "cuda"]) -> dict[str, int]:
    """Bytes by term of one process, with `total`."""
    if device == "cpu":
        number = 2 if spec.dtype == "bfloat16" or (spec.dtype == "auto" and multiplies_bfloat16()) else 4
        return predict_process(
            work.dims,
            spec,
            number=number,
            max_tokens=work.max_tokens,
            supervised_share=work.supervised_share,
            stored=work.stored,
        ).parts()
    parts = estimate_memory(work.dims, spec, max_tokens=work.max_tokens).parts()
    if spec.sharding == "full":
        for name in ("weights", "gradients", "optimizer"):
            parts[name] //= spec.processes
    runtime = round(RUNTIME_GIB * GIB)
    total = runtime + sum(size for name, size in parts.items() if name != "total")
    return {"runtime": runtime, **parts, "total": total}


def sum_of(parts: dict[str, int], spec: TrainSpec, device: Literal["cpu", "cuda"], *, here: int | None = None) -> int:
    """What must be free: of all processes (or those `here`) on a CPU, of one card otherwise.

    Pages of files that are only mapped while they are loaded do not count: the system takes them when it needs them.
    """
    step = sum(size for name, size in parts.items() if name not in ("total", "load"))
    n_here = spec.processes if here is None else min(here, spec.processes)
    return step * (n_here if device == "cpu" else 1)


def device_at_hand() -> Literal["cpu", "cuda"]:
    """Where a training of this machine runs, as far as that can be told without torch."""
    return "cpu" if free_card_bytes() is None else "cuda"


def free_bytes(root: Path = Path("/")) -> int:
    """Memory that a new process can have: what the kernel calls available, less where a control group (v2) limits it.

    Args:
        root: Of the file system that holds /proc and /sys.
    """
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux: all of it, of which some is in use
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return min([int(fields["MemAvailable"].split()[0]) * 1024, *_group_limits(root)])


def _group_limits(root: Path) -> Iterator[int]:
    """What each control group that this process is in, and each above it, still allows."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    own = next((line[3:] for line in lines if line.startswith("0::")), None)
    if own is None:
        return
    top = root / "sys/fs/cgroup"
    folder = top / own.lstrip("/")
    # In a container the path may be the host's: its own group is then the mounted one.
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


def free_card_bytes() -> int | None:
    """Free memory of the fullest card in use; None without a card, a driver or a torch that could use it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    program = shutil.which("nvidia-smi")
    if program is None or visible == "" or _torch_is_for_cpu():
        return None
    chosen = ["-i", visible] if visible else []
    asked = [program, *chosen, "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
        found = [int(line) for line in done.stdout.split()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return min(found) * 2**20 if found else None


def _torch_is_for_cpu() -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True


def _changes(spec: TrainSpec) -> Iterator[dict[str, int | bool | str]]:
    """Changes of the settings, the least first: those that keep the gradients, then lighter methods."""
    checkpointing: dict[str, int | bool | str] = {} if spec.gradient_checkpointing else {"gradient_checkpointing": True}
    if checkpointing:
        yield checkpointing
    smaller: list[dict[str, int | bool | str]] = [
        {
            "batch_size": size,
            "gradient_accumulation_steps": spec.gradient_accumulation_steps * (spec.batch_size // size),
        }
        for size in range(spec.batch_size // 2, 0, -1)
        if spec.batch_size % size == 0
    ]
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


def _yaml(value: int | bool | str) -> str:
    return str(value).lower()
