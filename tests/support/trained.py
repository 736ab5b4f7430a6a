"""Trained models without a training: what may train is changed at random, and saved as a training saves it."""

import json
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from schemas.artifacts import ModelRef, TrainedRef
from schemas.training import TrainSpec
from tasks.model.adapter import open_for_training, save_trained, trainable_tensors
from tests.support.refs import trained_ref

M = TypeVar("M", bound=nn.Module)


def perturb(model: M, *, seed: int = 7, size: float = 0.05) -> M:
    """Add noise to every tensor that trains: a new adapter changes no answer."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for tensor in trainable_tensors(model).values():
            tensor.add_(torch.randn_like(tensor) * size)
    return model


def shake(model: M) -> M:
    """Set the LoRA factors B: with B = 0, half of the arithmetic would go untested."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, 0, 0.1)
    return model


def save(model: nn.Module, spec: TrainSpec, base: ModelRef, out: Path) -> TrainedRef:
    """Save the model with its settings into a folder, which may exist."""
    out.mkdir(exist_ok=True)
    save_trained(model, spec, base=base, out=out)
    settings = spec.model_dump(mode="json")
    (out / "training.json").write_text(json.dumps({"settings": settings, "quantization": settings["quantization"]}))
    return trained_ref(out, method=spec.method, base_digest=base.digest)


def save_perturbed(base: ModelRef, spec: TrainSpec, out: Path, *, seed: int = 7, size: float = 0.05) -> TrainedRef:
    """Open the base for these settings, perturb it, and save it."""
    return save(perturb(open_for_training(base, spec), seed=seed, size=size), spec, base, out)


def distance(one: Tensor, other: Tensor) -> float:
    """The norm of the difference, relative to that of the other."""
    return float((one - other).norm() / other.norm())
