"""Every key of a LLaMA-Factory YAML that its examples use: where it goes, why it is not needed, what comes nearest.

Called by `tasks/start/foreign.py`. Datasets, and what `dataset_info.json` says of them, are in
`tasks/start/foreign_data.py`.
"""

from __future__ import annotations

from typing import Any

from tasks.start.draft import Draft, Rule, is_off, never, number_of, share, skip, to, whole
from tasks.start.foreign_data import llamafactory_datasets
from tasks.start.shared_keys import (
    FAMILIES,
    LEARNING,
    NO_PADDING,
    ONE_MACHINE,
    OWN_KERNELS,
    OWN_LOGS,
    OWN_STATE,
    PREFERENCES,
    TEXT_ONLY,
    base_model,
    optimizer,
    schedule,
    target_modules,
)

MARKS = frozenset(
    {
        "model_name_or_path", "stage", "finetuning_type", "cutoff_len", "template", "per_device_train_batch_size",
        "train_dataset", "model_class", "dist_config", "peft_config",
    }
)  # fmt: skip
"""Keys by two of which the file is told."""


def _stage(draft: Draft, key: str, value: Any) -> None:
    if value == "sft":
        draft.not_needed(key, "question and answer is what is trained on")
    elif value == "pt":
        draft.lacks(key, "pages without a question are not trained on; the nearest is format: completion")
    else:
        draft.lacks(key, PREFERENCES)


def _finetuning_type(draft: Draft, key: str, value: Any) -> None:
    bits = draft.asked.get("quantization_bit")
    if value == "lora":
        draft.put(key, "train.method", "qlora" if bits == 4 else "lora")
    elif value == "full":
        draft.put(key, "train.method", "full")
    else:
        draft.lacks(key, f"{value!s:.40}: the nearest is method: lora with train.adapter.top_layers")


def _bits(draft: Draft, key: str, value: Any) -> None:
    if value == 4 and draft.asked.get("finetuning_type", "lora") == "lora":
        draft.put(key, "train.method", "qlora")
    else:
        draft.lacks(key, "method: qlora loads 4 bits; there is no other width")


def _bfloat16(draft: Draft, key: str, value: Any) -> None:
    if is_off(value):
        draft.not_needed(key, "it is off; train.dtype: auto takes what the hardware multiplies")
    else:
        draft.put(key, "train.dtype", "bfloat16")


def _validation(draft: Draft, key: str, value: Any) -> None:
    to("split.validation_fraction", share)(draft, key, value)


def _no_checkpointing(draft: Draft, key: str, value: Any) -> None:
    draft.put(key, "train.gradient_checkpointing", is_off(value))


def _on_prompt(draft: Draft, key: str, value: Any) -> None:
    if is_off(value):
        draft.not_needed(key, "the answer's tokens alone carry loss anyway")
    else:
        draft.lacks(key, "loss on the question too; the nearest is the question inside train.prompt.answer")


def _last_turn(draft: Draft, key: str, value: Any) -> None:
    draft.put(key, "train.loss_on", "all_assistant" if is_off(value) else "last")


RULES: dict[str, Rule] = {
    **LEARNING,
    "model_name_or_path": base_model,
    "model_revision": skip("part of the base model"),
    "stage": _stage,
    "do_train": skip("`tunegate run` trains"),
    "do_eval": skip("every candidate is judged on held-out tickets"),
    "do_predict": skip("every candidate is judged on held-out tickets"),
    "predict_with_generate": skip("held-out tickets are answered in any case"),
    "finetuning_type": _finetuning_type,
    "quantization_bit": _bits,
    "quantization_method": never("method: qlora quantises by bitsandbytes, NF4"),
    "double_quantization": to("train.quantization.double_quant", bool),
    "lora_rank": to("train.adapter.rank", whole),
    "lora_alpha": to("train.adapter.alpha", number_of),
    "lora_dropout": to("train.adapter.dropout", share),
    "lora_target": target_modules,
    "use_rslora": to("train.adapter.rslora", bool),
    "use_dora": to("train.adapter.dora", bool),
    "adapter_name_or_path": never("a training starts from the base model; the champion is who it is compared with"),
    "additional_target": never("whole modules beside an adapter are not trained; method: full trains all"),
    "dataset": llamafactory_datasets,
    "dataset_dir": skip("where dataset_info.json was looked for"),
    "eval_dataset": never("held-out tickets are cut from the source: split.test_fraction"),
    "template": skip("the tokenizer's own template is the one that is used, in training as in serving"),
    "cutoff_len": to("train.max_length", whole),
    "max_samples": to("train.max_examples", whole, note="the newest"),
    "per_device_train_batch_size": to("train.batch_size", whole),
    "micro_batch_size": to("train.batch_size", whole),
    "per_device_eval_batch_size": to("evaluate.batch_size", whole),
    "max_new_tokens": to("evaluate.max_new_tokens", whole),
    "num_train_epochs": to("train.epochs", whole),
    "lr_scheduler_type": schedule,
    "optim": optimizer,
    "val_size": _validation,
    "bf16": _bfloat16,
    "pure_bf16": _bfloat16,
    "fp16": never("train.dtype: bfloat16, or float32"),
    "gradient_checkpointing": to("train.gradient_checkpointing", bool),
    "disable_gradient_checkpointing": _no_checkpointing,
    "use_reentrant_gc": skip(OWN_KERNELS),
    "train_on_prompt": _on_prompt,
    "mask_history": _last_turn,
    "packing": skip(NO_PADDING),
    "neat_packing": skip(NO_PADDING),
    "group_by_length": lambda draft, key, value: draft.put(
        key, "train.batching", "random" if is_off(value) else "length_grouped"
    ),
    "eval_strategy": skip("validation is once an epoch unless train.validate_every says otherwise"),
    "overwrite_cache": skip(OWN_STATE),
    "overwrite_output_dir": skip(OWN_STATE),
    "tokenized_path": skip(OWN_STATE),
    "preprocessing_num_workers": skip("the program's own readers"),
    "plot_loss": skip("`tunegate report` draws the curves"),
    "flash_attn": skip(OWN_KERNELS),
    "use_unsloth": skip(OWN_KERNELS),
    "enable_liger_kernel": skip(OWN_KERNELS),
    "use_v1_kernels": skip(OWN_KERNELS),
    "deepspeed": never(ONE_MACHINE),
    "use_ray": never(ONE_MACHINE),
    "loraplus_lr_ratio": never("one learning rate for all weights: train.learning_rate"),
    "new_special_tokens_config": never("the tokenizer stays as it is, so that training ids are serving ids"),
    "infer_backend": skip("`tunegate endpoint` serves; vLLM by `tunegate export -f vllm`"),
    "push_to_hub": never("nothing is pushed: `tunegate export` writes a folder to hand out"),
    "model": base_model,
    "train_dataset": never("name the files under source.paths"),
    "dist_config": never(ONE_MACHINE),
    "kernel_config": skip(OWN_KERNELS),
    "mixed_precision": never("train.dtype: bfloat16"),
    "peft_config": never("train.adapter: rank, alpha, dropout, target_modules"),
    "quant_config": never("method: qlora"),
    "optim_config": never("train.optimizer: adamw"),
    "init_config": skip(OWN_KERNELS),
    "batching_strategy": skip(NO_PADDING),
    "model_class": skip("told from the model's own configuration"),
    "sample_backend": skip("held-out tickets are answered by the program's own generation"),
    "dataset_shards": skip("the program's own readers"),
    "use_swanlab": skip(OWN_LOGS),
}
RULE_FAMILIES: dict[str, Rule] = {
    **FAMILIES,
    "pref_": never(PREFERENCES),
    "kto_": never(PREFERENCES),
    "ppo_": never(PREFERENCES),
    "reward_": never(PREFERENCES),
    "pissa_": never("LoRA starts from zero as published"),
    "galore_": never("train.optimizer: adamw_8bit saves memory"),
    "apollo_": never("train.optimizer: adamw_8bit saves memory"),
    "badam_": never("train.optimizer: adamw_8bit saves memory"),
    "use_galore": never("train.optimizer: adamw_8bit saves memory"),
    "use_apollo": never("train.optimizer: adamw_8bit saves memory"),
    "use_badam": never("train.optimizer: adamw_8bit saves memory"),
    "use_": never("there is nothing like it"),
    "oft_": never("method: lora"),
    "freeze_": never("train.adapter.top_layers adapts the last layers alone"),
    "image_": never(TEXT_ONLY),
    "video_": never(TEXT_ONLY),
    "ray_": never(ONE_MACHINE),
    "kt_": never(ONE_MACHINE),
    "export_": never("`tunegate export` writes a candidate for other programs"),
}


def alpha_without_key(draft: Draft) -> None:
    """Where only the rank is given, alpha is twice the rank there."""
    rank = draft.settings.get("train.adapter.rank")
    if rank is not None and "train.adapter.alpha" not in draft.settings:
        draft.settings["train.adapter.alpha"] = 2 * rank
