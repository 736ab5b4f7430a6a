"""The script that starts vLLM with the exported adapter under its alias and its version.

It only writes text; it does not run vLLM. Called by tasks/release/export.py.

Source: https://docs.vllm.ai, "LoRA Adapters" (`--lora-modules name=path`, `/v1/load_lora_adapter`) and the arguments of
`vllm serve` (`--max-lora-rank`, `--chat-template`, `--max-model-len`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from schemas.errors import ConfigError
from schemas.release import ServingSpec

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Allowed values of `--max-lora-rank`."""
ADAPTER = "adapter"
TEMPLATE = "chat_template.jinja"


def check_servable(serving: ServingSpec, bundle: Path) -> int:
    """The `--max-lora-rank` that the adapter needs.

    Raises:
        ConfigError: TG0185, vLLM would not answer as the model that the gate judged.
    """
    method = serving.trained.method
    if method != "lora":
        why = "has no adapter" if method == "full" else "needs its 4-bit base, and vLLM would load another one"
        raise _not_servable(f"method {method} {why}")
    settings: dict[str, Any] = orjson.loads((bundle / "adapter_config.json").read_bytes())
    if settings.get("use_dora"):
        raise _not_servable("vLLM does not support DoRA")
    if settings.get("trainable_token_indices"):
        raise _not_servable("the adapter has trained embeddings, of the tokens that its chat template added")
    ranks = [rank for rank in RANKS if rank >= settings["r"]]
    if not ranks:
        raise _not_servable(f"rank {settings['r']} exceeds vLLM's maximum, {RANKS[-1]}")
    return ranks[0]


def launch_script(
    serving: ServingSpec,
    modules: Sequence[tuple[str, str]],
    *,
    max_rank: int,
    has_template: bool,
    tokenizer: str | None = None,
) -> str:
    """A shell script to run in the exported folder, with the base model's folder in BASE.

    Args:
        serving: How the model answered for the gate.
        modules: Names in requests (aliases and versions), each with the folder of its adapter.
        max_rank: From `check_servable`.
        has_template: Whether the folder has training's chat template.
        tokenizer: Folder of an adapter with a tokenizer, whose control tokens may differ from the base's; else None.
    """
    base = shlex.quote(serving.base.uri.split("#")[0])
    listed = " ".join(shlex.quote(f"{name}={folder}") for name, folder in modules)
    flags = [
        'vllm serve "$BASE"',
        "--host 127.0.0.1",
        "--enable-lora",
        f"--max-lora-rank {max_rank}",
        f"--lora-modules {listed}",
        f"--max-model-len {serving.base.context_length}",
        *([f"--chat-template {TEMPLATE}"] if has_template else []),
        *([f"--tokenizer {tokenizer}"] if tokenizer else []),
    ]
    return "\n".join(
        [
            "#!/bin/sh",
            "# Serves the base model with the exported adapters: a request selects one with `model`.",
            f"# BASE: folder of {base} whose files have the sha256 of {modules[0][1]}/serving.json.",
            "# Use temperature 0, as the gate did. After a promotion export again and restart; or start with",
            "# VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and post {lora_name, lora_path} to /v1/unload_lora_adapter and",
            "# /v1/load_lora_adapter (then anyone who can reach the port can do the same).",
            "# vLLM has one key for all adapters (--api-key): who reaches the port reaches every one of them.",
            "set -eu",
            'cd "$(dirname "$0")"',
            ': "${BASE:?set it to the folder of the base model}"',
            "exec " + " \\\n  ".join(flags),
            "",
        ]
    )


def _not_servable(why: str) -> ConfigError:
    return ConfigError(
        f"cannot export for vLLM: {why}; supported: an adapter of method lora without DoRA, rank at most {RANKS[-1]}",
        code="TG0185",
        where="export --format vllm",
        hint="use --format merged, and serve it with `vllm serve FOLDER`",
    )
