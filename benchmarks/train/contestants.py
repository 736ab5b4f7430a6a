"""Who trains, in which environment and how often, and who cannot and why. Called by `benchmarks/train/__main__.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Contestant:
    """One way to train the adapter."""

    name: str
    script: str
    mode: str
    environment: str
    """`project`, or the name of a list in `benchmarks/peers/`."""
    role: Literal["ours", "trainer", "trl", "peer"]
    rounds: int
    note: str = ""


CONTESTANTS = (
    Contestant("tunegate", "tunegate_engine.py", "ours", "project", "ours", 3, "its training process's settings"),
    Contestant("Trainer", "hf_engine.py", "trainer", "trl", "trainer", 3, "bf16 weights and autocast, PEFT"),
    Contestant("TRL best", "hf_engine.py", "trl-best", "trl", "trl", 3, "no gradient checkpointing, our mask"),
    Contestant("TRL defaults", "hf_engine.py", "trl-default", "trl", "peer", 1, "gradient checkpointing, our mask"),
    Contestant("TRL padding-free", "hf_engine.py", "trl-free", "trl", "peer", 1, "no gradient checkpointing, our mask"),
    Contestant("litgpt", "litgpt_engine.py", "bf16-true", "litgpt", "peer", 1, "bf16-true, factors in bf16 too"),
    Contestant(
        "LLaMA-Factory", "llamafactory_engine.py", "sft", "llamafactory", "peer", 1, "no gradient checkpointing"
    ),
)

ABSENT = (
    "torchtune 0.6.1: installs (5 GB) and cannot be imported: it asks torchao for `dtypes.nf4tensor`, which torchao "
    "0.18, the one that installs beside it, no longer has.",
    "Axolotl 0.19.0: installs (6 GB, CUDA's libraries among them) and can be imported; no row of its own, because the "
    "trainer it drives is a subclass of transformers.Trainer, which has one.",
    "Unsloth and Liger: their Triton kernels need a GPU.",
)
"""Peers that are not run, and why."""


def plan(*, quick: bool) -> list[Contestant]:
    """Who runs: with QUICK=1 ours, Trainer and TRL's best, once each."""
    if not quick:
        return list(CONTESTANTS)
    return [one for one in CONTESTANTS if one.role != "peer"]
