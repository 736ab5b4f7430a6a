"""The content of exports for OpenAI and vLLM, and models that cannot be exported."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.artifacts import DatasetRef, ModelRef, RowCounts, Splits
from schemas.errors import ConfigError, StorageError
from schemas.release import ServingSpec
from schemas.tables import TICKET_COLUMNS
from schemas.training import EncodeSpec, PromptSpec
from tasks.model.chat_format import encode_examples
from tasks.release.export_adapter import check_servable, launch_script
from tasks.release.openai_file import write_openai_files
from tasks.sources.readers.turns import read_turns

PROMPT = PromptSpec(system="", user="{body}", answer="{reply}")
TALK = [
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "How can we help?"},
    {"role": "user", "content": "My parcel is late."},
    {"role": "assistant", "content": "We are sorry."},
]


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    out = tmp_path / "splits"
    out.mkdir()
    for split, name in (("train", "T-1"), ("validation", "T-2"), ("test", "T-3")):
        columns: dict[str, Any] = {column: pa.nulls(1, pa.string()) for column in TICKET_COLUMNS}
        columns |= {"ticket_id": [name], "body": ["My parcel is late."], "reply": ["We are sorry."]}
        columns["messages"] = [json.dumps(TALK)]
        pq.write_table(pa.table(columns), out / f"{split}.parquet")
    return Splits(root=out, rows=RowCounts(n_in=3, n_out=3), n_train=1, n_validation=1, n_test=1)


def _encode(splits: Splits, model: ModelRef, out: Path, **changes: Any) -> DatasetRef:
    out.mkdir()
    fields = {"format": "instruction", "prompt": PROMPT, "max_length": 256, "overflow": "drop", "max_examples": None}
    return encode_examples(splits=splits, model=model, encoding=EncodeSpec(**(fields | changes)), out=out)


@pytest.mark.parametrize(
    ("loss_on", "weights"), [("all_assistant", [None, None]), ("last", [0, 1]), ("flagged", [0, 1])]
)
def test_answers_without_loss_have_weight_0(
    splits: Splits, tiny_model: ModelRef, tmp_path: Path, loss_on: str, weights: list[int | None]
) -> None:
    dataset = _encode(splits, tiny_model, tmp_path / "dataset", loss_on=loss_on)
    (tmp_path / "out").mkdir()
    assert write_openai_files(dataset, splits, PROMPT, tmp_path / "out") == {"train": 1, "validation": 1}
    (line,) = (tmp_path / "out" / "train.jsonl").read_text().splitlines()
    turns = json.loads(line)["messages"]
    assert [(turn["role"], turn["content"]) for turn in turns] == [(turn["role"], turn["content"]) for turn in TALK]
    assert [turn.get("weight") for turn in turns if turn["role"] == "assistant"] == weights
    assert not any("weight" in turn for turn in turns if turn["role"] != "assistant")


def test_a_completion_is_one_question_and_one_answer(splits: Splits, tiny_model: ModelRef, tmp_path: Path) -> None:
    dataset = _encode(splits, tiny_model, tmp_path / "dataset", format="completion")
    (tmp_path / "out").mkdir()
    write_openai_files(dataset, splits, PROMPT, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "train.jsonl").read_text())["messages"] == [
        {"role": "user", "content": "My parcel is late."},
        {"role": "assistant", "content": "We are sorry."},
    ]


def test_a_training_set_whose_tickets_were_removed_is_refused(
    splits: Splits, tiny_model: ModelRef, tmp_path: Path
) -> None:
    dataset = _encode(splits, tiny_model, tmp_path / "dataset")
    (splits.root / "train.parquet").write_bytes((splits.root / "test.parquet").read_bytes())
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match=r"TG0510.*training used ticket T-1"):
        write_openai_files(dataset, splits, PROMPT, tmp_path / "out")


def test_a_conversation_that_openai_would_refuse_is_refused(
    splits: Splits, tiny_model: ModelRef, tmp_path: Path
) -> None:
    dataset = _encode(splits, tiny_model, tmp_path / "dataset", format="completion")
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match=r"TG0547.*reads back differently: TG0301"):
        write_openai_files(dataset, splits, PromptSpec(system="", user="{subject}", answer="{reply}"), tmp_path / "out")


def test_an_exported_line_that_reads_back_differently_is_refused(
    splits: Splits, tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def misread(talk: list[dict[str, str]]) -> object:
        return read_turns([*talk[:-1], {**talk[-1], "content": "We are glad."}])

    dataset = _encode(splits, tiny_model, tmp_path / "dataset")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("tasks.release.openai_file.read_turns", misread)
    with pytest.raises(StorageError, match="TG0547"):
        write_openai_files(dataset, splits, PROMPT, tmp_path / "out")


def _serving(method: str = "lora") -> ServingSpec:
    trained = {
        "root": ".", "digest": "d", "method": method, "format": "instruction", "base_digest": "b", "n_trainable": 1,
        "n_steps": 1, "n_tokens": 1, "train_loss": 1.0,
    }  # fmt: skip
    base = {"root": ".", "uri": "hf://org/it's@1", "n_parameters": 1, "vocab_size": 2, "context_length": 2048}
    decoding = {"max_new_tokens": 4, "batch_size": 1, "threads": 1, "dtype": "auto"}
    return ServingSpec.model_validate(
        {"name": "n", "trained": trained, "prompt": {}, "decoding": decoding, "base": base, "base_files": {}}
    )


@pytest.mark.parametrize(("rank", "wanted"), [(4, 8), (16, 16), (65, 128), (512, 512)])
def test_vllm_gets_a_supported_rank(tmp_path: Path, rank: int, wanted: int) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": rank, "use_dora": False}))
    assert check_servable(_serving(), tmp_path) == wanted


def test_the_launch_script_runs_in_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "serve.sh"
    text = launch_script(
        _serving(), [("champion", "adapter"), ("version-3", "adapter")], max_rank=16, has_template=True
    )
    script.write_text(text)
    subprocess.run(["sh", "-n", str(script)], check=True)
    fake = tmp_path / "vllm"
    fake.write_text('#!/bin/sh\nfor each; do echo "$each"; done\n')
    fake.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "BASE": "/a b"}
    done = subprocess.run(["sh", str(script)], check=True, capture_output=True, text=True, env=environ)
    lines = done.stdout.splitlines()
    assert lines == [
        "serve", "/a b", "--host", "127.0.0.1", "--enable-lora", "--max-lora-rank", "16", "--lora-modules",
        "champion=adapter", "version-3=adapter", "--max-model-len", "2048", "--chat-template", "chat_template.jinja",
    ]  # fmt: skip
    unset = subprocess.run(["sh", str(script)], check=False, capture_output=True, env={"PATH": "/usr/bin:/bin"})
    assert b"set it to the folder of the base model" in unset.stderr


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("full", {}, "has no adapter"),
        ("qlora", {"r": 8}, "needs its 4-bit base"),
        ("lora", {"r": 8, "use_dora": True}, "does not support DoRA"),
        ("lora", {"r": 1024}, "rank 1024 exceeds"),
    ],
)
def test_adapters_that_vllm_would_serve_differently_are_refused(
    tmp_path: Path, method: str, settings: dict[str, Any], message: str
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=rf"TG0185.*{message}"):
        check_servable(_serving(method), tmp_path)
