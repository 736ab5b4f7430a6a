"""Checkpoints from which a killed training resumes, with the same result bit for bit.

A checkpoint is a sealed directory (`MANIFEST.json`) that gets its name once it is complete. Tensors are safetensors,
everything else is JSON, so reading a checkpoint never runs code.
"""

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from schemas.errors import StorageError
from tasks.storage.failpoint import reach
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import sealed_folder, verify
from tasks.train.early_stopping import Best, BestWeights
from tasks.train.job import KEPT
from tasks.train.optimizer import moments_of, restore_moments

_PREFIX = "step-"


@dataclass(frozen=True)
class State:
    """Progress of a training, without its tensors."""

    step: int
    """Optimiser steps done. Together with the seed it determines the next examples."""
    n_tokens: int
    curve: list[dict[str, float | int | None]]
    """Rows of curves.parquet so far."""
    best: Best | None = None
    """The best validation so far; None without early stopping."""


def save_checkpoint(
    folder: Path, state: State, *, key: str, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> Path:
    """Write a checkpoint and remove all but the newest `KEPT`; a kill leaves it absent or complete.

    If the state has a best validation, the checkpoint includes its weights (see `BestWeights`).

    Args:
        folder: Holds all checkpoints of one training.
        state: Step, tokens and curve.
        key: The job's key; a checkpoint with another key is never used.
        weights: Trainable weights by name.
        optimizer: AdamW over exactly these weights.
    """
    for left_over in folder.glob(".*.tmp"):
        shutil.rmtree(left_over)
    final = folder / f"{_PREFIX}{state.step:08d}"
    if final.exists():
        shutil.rmtree(final)
    with sealed_folder(final) as aside:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, aside / "weights.safetensors")
        save_file(moments_of(weights, optimizer), aside / "optimizer.safetensors")
        write_json(
            aside / "state.json",
            {
                "key": key,
                "step": state.step,
                "n_tokens": state.n_tokens,
                "curve": state.curve,
                "best": asdict(state.best) if state.best else None,
                "random": _random_state(),
            },
        )
        if state.best:
            BestWeights(folder).link_into(aside)
        reach("train.checkpoint.written")
    reach("train.checkpoint.renamed")
    for old in _found(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load_newest(
    folder: Path,
    *,
    key: str,
    weights: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    warn: Callable[[str], None],
) -> State | None:
    """Load the newest undamaged checkpoint into weights, optimiser and random states; None when there is none.

    Args:
        folder: As for `save_checkpoint`; need not exist.
        key: The job's key.
        weights: Overwritten.
        optimizer: Overwritten.
        warn: Called for every checkpoint that is skipped, with the reason.
    """
    for left_over in sorted(folder.glob(".*.tmp")):
        warn(f"checkpoint {left_over.name} is incomplete; it is ignored")
    for checkpoint in reversed(_found(folder)):
        try:
            verify(checkpoint)
            state = orjson.loads((checkpoint / "state.json").read_bytes())
        except (StorageError, ValueError, OSError) as error:
            reason = error.message if isinstance(error, StorageError) else type(error).__name__
            warn(f"checkpoint {checkpoint.name} is damaged ({reason}); the one before is used")
            continue
        if state["key"] != key:
            warn(f"checkpoint {checkpoint.name} belongs to a training with different settings; it is ignored")
            continue
        _restore(checkpoint, weights, optimizer)
        _set_random_state(state["random"])
        BestWeights(folder).take_from(checkpoint)
        best = Best(**state["best"]) if state.get("best") else None
        return State(step=state["step"], n_tokens=state["n_tokens"], curve=state["curve"], best=best)
    return None


def _found(folder: Path) -> list[Path]:
    """Checkpoints, oldest first."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir())


def _restore(checkpoint: Path, weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    saved = load_file(checkpoint / "weights.safetensors")
    moments = load_file(checkpoint / "optimizer.safetensors")
    if saved.keys() != weights.keys():
        raise StorageError("the checkpoint's tensors do not match the model", code="TG0535", where=str(checkpoint))
    for name, weight in weights.items():
        weight.copy_(saved[name])
    restore_moments(moments, weights, optimizer)


def _random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators as JSON."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
        "torch": bytes(torch.get_rng_state().numpy()).hex(),
    }
    if torch.cuda.is_available():
        state["cuda"] = [bytes(each.numpy()).hex() for each in torch.cuda.get_rng_state_all()]
    return state


def _set_random_state(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_bytes(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([_bytes(each) for each in state["cuda"]])


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
