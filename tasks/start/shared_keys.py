"""Rules that axolotl and LLaMA-Factory share: base models, schedules, optimisers, numbers.

Called by the tables of both.
"""

from __future__ import annotations

import re
from typing import Any

from schemas.names import closest
from tasks.start.draft import Draft, Rule, choose, names, never, number_of, share, skip, to, whole

COMMIT = re.compile(r"[0-9a-f]{40}")

SCHEDULES = {
    "cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant",
    "cosine_with_min_lr": "cosine",
}  # fmt: skip
OPTIMIZERS = {
    "adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "adamw": "adamw",
    "adamw_bnb_8bit": "adamw_8bit", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit",
}  # fmt: skip

NO_PADDING = "no padding is computed: batches are of nearly one length (train.batching: length_grouped)"
OWN_KERNELS = "how fast a step runs is the program's own business; it changes no result"
OWN_STATE = "results lie in the content-addressed store under TUNEGATE_HOME; steps are reused by key"
OWN_LOGS = "every run logs its curves to MLflow; MLFLOW_TRACKING_URI says where"
OWN_RESUME = "an interrupted training continues by itself from its last complete checkpoint"
ONE_MACHINE = "one machine, train.processes: with train.sharding: full (FSDP2) the model is spread over them"
TEXT_ONLY = "texts alone are trained on"
PREFERENCES = "preference pairs and rewards are not trained on; the chosen answers alone can be, as question and answer"

LEARNING: dict[str, Rule] = {
    "learning_rate": to("train.learning_rate", number_of),
    "weight_decay": to("train.weight_decay", number_of),
    "adam_beta1": to("train.adam_beta1", number_of),
    "adam_beta2": to("train.adam_beta2", number_of),
    "adam_epsilon": never("the optimiser's epsilon is fixed at 1e-8"),
    "max_grad_norm": to("train.max_grad_norm", number_of),
    "warmup_ratio": to("train.warmup_ratio", share),
    "warmup_steps": to("train.warmup_steps", lambda value: int(number_of(value))),
    "gradient_accumulation_steps": to("train.gradient_accumulation_steps", whole),
    "seed": to("train.seed", lambda value: int(number_of(value))),
    "max_steps": lambda draft, key, value: (
        draft.not_needed(key, "no limit") if number_of(value) <= 0 else draft.put(key, "train.max_steps", whole(value))
    ),
    "save_steps": lambda draft, key, value: (
        draft.lacks(key, "a share of the steps; set train.save_every")
        if number_of(value) < 1
        else draft.put(key, "train.save_every", whole(value))
    ),
    "eval_steps": lambda draft, key, value: (
        draft.lacks(key, "a share of the steps; set train.validate_every")
        if number_of(value) < 1
        else draft.put(key, "train.validate_every", whole(value))
    ),
    "logging_steps": skip("each step's loss is in curves.parquet"),
    "save_total_limit": skip("old checkpoints are removed by themselves"),
    "save_only_model": skip("a checkpoint is complete or none; the release holds the weights alone"),
    "save_safetensors": skip("weights are always safetensors"),
    "output_dir": skip(OWN_STATE),
    "resume_from_checkpoint": skip(OWN_RESUME),
    "remove_unused_columns": skip("only mapped columns are read"),
    "ddp_timeout": skip("train.timeout_minutes limits a training as a whole"),
    "trust_remote_code": never("code of a model repository is never run; take an architecture that transformers knows"),
    "torch_compile": skip(OWN_KERNELS),
    "fp8": never("train.dtype: bfloat16"),
    "report_to": skip(OWN_LOGS),
    "run_name": skip("runs are named by time"),
    "include_tokens_per_second": skip(OWN_LOGS),
    "include_num_input_tokens_seen": skip(OWN_LOGS),
    "local_rank": skip("train.processes starts its own"),
    "gradient_checkpointing_kwargs": skip(OWN_KERNELS),
}
FAMILIES: dict[str, Rule] = {
    "wandb_": skip(OWN_LOGS), "mlflow_": skip(OWN_LOGS), "swanlab_": skip(OWN_LOGS), "comet_": skip(OWN_LOGS),
    "trackio_": skip(OWN_LOGS), "dataloader_": skip("the program's own readers"), "liger_": skip(OWN_KERNELS),
    "flash_": skip(OWN_KERNELS), "fp8_": never("train.dtype: bfloat16"), "fsdp": never(ONE_MACHINE),
    "otel_": skip(OWN_LOGS),
}  # fmt: skip

schedule = choose("train.lr_scheduler", SCHEDULES, "take the nearest, mostly cosine")
optimizer = choose("train.optimizer", OPTIMIZERS, "take adamw")


def base_model(draft: Draft, key: str, value: Any) -> None:
    """A local folder by its path, a model of the hub only with its commit."""
    text = str(value)
    local = next((base / text for base in (draft.folder, draft.root) if (base / text).is_dir()), None)
    if local is not None:
        draft.put(key, "train.base_model", f"file:{local}")
        return
    commit = str(draft.asked.get("revision_of_model") or draft.asked.get("model_revision") or "")
    if COMMIT.fullmatch(commit) and re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        draft.put(
            key, "train.base_model", f"hf://{text}@{commit}", "needs train.allow_download: true for the first run"
        )
        return
    draft.lacks(
        key,
        "a model of the hub needs its commit, for a branch moves: write base_model: hf://"
        f"{text}@<40 hex digits> and allow_download: true; the embedded model stands there meanwhile",
    )


def target_modules(draft: Draft, key: str, value: Any) -> None:
    """`all` or names of modules; a pattern is not a name."""
    if isinstance(value, str) and value.lower() in ("all", "all-linear"):
        draft.put(key, "train.adapter.target_modules", "all-linear")
        return
    try:
        listed = names(value)
    except TypeError:
        listed = []
    if listed and all(re.fullmatch(r"\w+", name) for name in listed):
        draft.put(key, "train.adapter.target_modules", listed)
    else:
        draft.lacks(key, "names of modules are taken, patterns are not: train.adapter.target_modules, or all-linear")


def known(kinds: dict[str, Any], value: str) -> str | None:
    """A hint at the nearest of the kinds."""
    return closest(value, tuple(kinds))
