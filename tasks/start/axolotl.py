"""Every key of an axolotl YAML that its examples use: where it goes, why it is not needed, or what comes nearest.

Called by `tasks/start/foreign.py`. Datasets are in `tasks/start/foreign_data.py`.
"""

from __future__ import annotations

from typing import Any

from tasks.start.draft import Draft, Rule, is_off, never, number_of, share, skip, to, whole
from tasks.start.foreign_data import axolotl_datasets
from tasks.start.shared_keys import (
    FAMILIES,
    LEARNING,
    NO_PADDING,
    ONE_MACHINE,
    OWN_KERNELS,
    OWN_LOGS,
    OWN_RESUME,
    OWN_STATE,
    PREFERENCES,
    TEXT_ONLY,
    base_model,
    optimizer,
    schedule,
    target_modules,
)

MARKS = frozenset({"base_model", "micro_batch_size", "sequence_len", "datasets", "num_epochs"})
"""Keys by two of which the file is told."""


def _adapter(draft: Draft, key: str, value: Any) -> None:
    if value in ("lora", "qlora"):
        draft.put(key, "train.method", value)
    else:
        draft.lacks(key, f"{value!s:.40}: of adapters there are lora and qlora; method lora stands there")


def _four_bits(draft: Draft, key: str, value: Any) -> None:
    if is_off(value):
        draft.not_needed(key, "it is off")
    elif draft.asked.get("adapter") == "qlora":
        draft.told(key, "mapped", "train.method: qlora loads NF4 by itself")
    else:
        draft.put(key, "train.method", "qlora", "a 4-bit base with an adapter is QLoRA here")


def _target_linear(draft: Draft, key: str, value: Any) -> None:
    if is_off(value):
        draft.not_needed(key, "it is off")
    elif draft.asked.get("lora_target_modules"):
        draft.not_needed(key, "lora_target_modules names the modules")
    else:
        draft.put(key, "train.adapter.target_modules", "all-linear")


def _bfloat16(draft: Draft, key: str, value: Any) -> None:
    if str(value) == "auto":
        draft.put(key, "train.dtype", "auto")
    elif is_off(value):
        draft.not_needed(key, "it is off; train.dtype: auto takes what the hardware multiplies")
    else:
        draft.put(key, "train.dtype", "bfloat16")


def _train_on_inputs(draft: Draft, key: str, value: Any) -> None:
    if is_off(value):
        draft.not_needed(key, "the answer's tokens alone carry loss anyway")
    else:
        draft.lacks(key, "loss on the question too; the nearest is the question inside train.prompt.answer")


def _checkpointing(draft: Draft, key: str, value: Any) -> None:
    draft.put(key, "train.gradient_checkpointing", not is_off(value))


def _template(draft: Draft, key: str, value: Any) -> None:
    if str(value) == "tokenizer_default" or str(value).startswith("tokenizer_default_fallback"):
        draft.not_needed(key, "the tokenizer's own template is the one that is used")
    else:
        draft.lacks(key, "the tokenizer's own template is used, in training as in serving; take a base that has one")


def _kwargs(draft: Draft, key: str, value: Any) -> None:
    if isinstance(value, dict) and set(value) == {"bnb_4bit_use_double_quant"}:
        draft.put(key, "train.quantization.double_quant", bool(value["bnb_4bit_use_double_quant"]))
    else:
        draft.lacks(key, "train.quantization has type, double_quant and compute_dtype")


def _by_length(draft: Draft, key: str, value: Any) -> None:
    draft.put(key, "train.batching", "random" if is_off(value) else "length_grouped")


RULES: dict[str, Rule] = {
    **LEARNING,
    "base_model": base_model,
    "revision_of_model": skip("part of base_model"),
    "adapter": _adapter,
    "load_in_4bit": _four_bits,
    "load_in_8bit": never("there is no 8-bit base: method lora in full precision, or qlora in 4 bits"),
    "bnb_config_kwargs": _kwargs,
    "lora_r": to("train.adapter.rank", whole),
    "lora_alpha": to("train.adapter.alpha", number_of),
    "lora_dropout": to("train.adapter.dropout", share),
    "lora_target_modules": target_modules,
    "lora_target_linear": _target_linear,
    "peft_use_rslora": to("train.adapter.rslora", bool),
    "peft_use_dora": to("train.adapter.dora", bool),
    "peft_layers_to_transform": to("train.adapter.layers"),
    "lora_model_dir": never("a training starts from the base model; the champion is who it is compared with"),
    "lora_modules_to_save": never("whole modules beside an adapter are not trained; method: full trains all"),
    "lora_fan_in_fan_out": skip("told from the module's own kind"),
    "lora_target_parameters": never("adapters on modules: train.adapter.target_modules"),
    "sequence_len": to("train.max_length", whole),
    "micro_batch_size": to("train.batch_size", whole),
    "batch_size": skip("batch_size is micro_batch_size times gradient_accumulation_steps"),
    "num_epochs": to("train.epochs", whole),
    "lr_scheduler": schedule,
    "cosine_min_lr_ratio": to("train.min_lr_ratio", share),
    "optimizer": optimizer,
    "adam_eps": LEARNING["adam_epsilon"],
    "datasets": axolotl_datasets,
    "test_datasets": never("held-out tickets are cut from the source: split.test_fraction"),
    "pretraining_dataset": never("pages without a question are not trained on; the nearest is format: completion"),
    "val_set_size": to("split.validation_fraction", share),
    "train_on_inputs": _train_on_inputs,
    "group_by_length": _by_length,
    "gradient_checkpointing": _checkpointing,
    "early_stopping_patience": to("train.early_stopping.patience", whole),
    "bf16": _bfloat16,
    "bfloat16": _bfloat16,
    "fp16": never("train.dtype: bfloat16, or float32"),
    "float16": never("train.dtype: bfloat16, or float32"),
    "float32": lambda draft, key, value: draft.put(key, "train.dtype", "auto" if is_off(value) else "float32"),
    "tf32": skip(OWN_KERNELS),
    "chat_template": _template,
    "eot_tokens": never("the end of a turn is what the tokenizer's own template writes"),
    "special_tokens": never("the tokenizer stays as it is, so that training ids are serving ids"),
    "tokens": never("no tokens are added: the tokenizer stays as it is"),
    "tokenizer_config": never("the tokenizer is the base model's own"),
    "rl": never(PREFERENCES),
    "reward_model": never(PREFERENCES),
    "process_reward_model": never(PREFERENCES),
    "trl": never(PREFERENCES),
    "sample_packing": skip(NO_PADDING),
    "eval_sample_packing": skip(NO_PADDING),
    "pad_to_sequence_len": skip(NO_PADDING),
    "max_packed_sequence_len": skip(NO_PADDING),
    "saves_per_epoch": never("train.save_every counts steps"),
    "evals_per_epoch": lambda draft, key, value: (
        draft.put(key, "train.validate_every", "epoch")
        if number_of(value) == 1
        else never("train.validate_every is `epoch` or a number of steps")(draft, key, value)
    ),
    "eval_batch_size": to("evaluate.batch_size", whole),
    "eval_max_new_tokens": to("evaluate.max_new_tokens", whole),
    "eval_strategy": skip("validation is once an epoch unless train.validate_every says otherwise"),
    "evaluation_strategy": skip("validation is once an epoch unless train.validate_every says otherwise"),
    "save_strategy": skip("train.save_every counts steps; the gate chooses, not the last loss"),
    "eval_table_size": skip("reports show the worst items"),
    "hub_model_id": never("nothing is pushed: `tunegate export` writes a folder to hand out"),
    "dataset_prepared_path": skip(OWN_STATE),
    "dataset_exact_deduplication": lambda draft, key, _value: draft.told(key, "mapped", "curate.steps: dedup"),
    "shuffle_merged_datasets": skip("examples are shuffled by train.seed"),
    "auto_resume_from_checkpoints": skip(OWN_RESUME),
    "deepspeed": never(ONE_MACHINE),
    "unfrozen_parameters": never("train.adapter.layers, or method: full for all weights"),
    "qat": never("training on 4-bit weights is method: qlora"),
    "gptq": never("method: qlora loads NF4 of full weights"),
    "relora": never("method: lora"),
    "peft": never("train.adapter has what is there"),
    "model_type": skip("told from the model's own configuration"),
    "tokenizer_type": skip("told from the model's own files"),
    "processor_type": never(TEXT_ONLY),
    "is_falcon_derived_model": skip("told from the model's own configuration"),
    "is_llama_derived_model": skip("told from the model's own configuration"),
    "is_mistral_derived_model": skip("told from the model's own configuration"),
    "strict": skip("every unknown key is an error here"),
    "debug": skip("`--debug` shows tracebacks"),
    "plugins": never("code of plugins is not run; what makes a step fast is the program's own"),
    "attn_implementation": skip(OWN_KERNELS),
    "xformers_attention": skip(OWN_KERNELS),
    "sdp_attention": skip(OWN_KERNELS),
    "cut_cross_entropy": skip(OWN_KERNELS),
    "low_cpu_mem_usage": skip(OWN_KERNELS),
    "device_map": skip(ONE_MACHINE),
    "activation_offloading": skip(OWN_KERNELS),
    "use_kernels": skip(OWN_KERNELS),
    "lora_mlp_kernel": skip(OWN_KERNELS),
    "lora_qkv_kernel": skip(OWN_KERNELS),
    "lora_o_kernel": skip(OWN_KERNELS),
    "experimental_skip_move_to_device": skip(OWN_KERNELS),
    "loss_watchdog_threshold": skip("a loss that is no number ends the training by itself"),
    "loss_watchdog_patience": skip("a loss that is no number ends the training by itself"),
    "skip_prepare_dataset": skip(OWN_STATE),
    "ddp_find_unused_parameters": skip(OWN_KERNELS),
    "tokenizer_use_fast": skip("always the fast one"),
    "tokenizer_legacy": skip("the tokenizer's own files say so"),
    "use_wandb": skip(OWN_LOGS),
    "use_tensorboard": skip(OWN_LOGS),
    "use_swanlab": skip(OWN_LOGS),
    "use_otel_metrics": skip(OWN_LOGS),
    "project_name": skip(OWN_LOGS),
    "full_finetune": lambda draft, key, value: draft.put(key, "train.method", "lora" if is_off(value) else "full"),
    "context_parallel_size": never(ONE_MACHINE),
    "tensor_parallel_size": never(ONE_MACHINE),
    "expert_parallel_size": never(ONE_MACHINE),
    "dp_shard_size": never(ONE_MACHINE),
    "dp_replicate_size": never(ONE_MACHINE),
}
RULE_FAMILIES: dict[str, Rule] = {
    **FAMILIES,
    "gptq_": never("method: qlora loads NF4 of full weights"),
    "relora_": never("method: lora"),
    "kto_": never(PREFERENCES),
    "orpo_": never(PREFERENCES),
    "rl_": never(PREFERENCES),
    "freeze_mm": never(TEXT_ONLY),
    "image_": never(TEXT_ONLY),
}


def method_without_key(draft: Draft) -> None:
    """An axolotl file without an adapter trains every weight."""
    if "train.method" not in draft.settings and not draft.asked.get("adapter"):
        draft.settings["train.method"] = "full"
