"""GGUF files that are written here answer as the model they came from: read by us, by transformers, by llama.cpp."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.artifacts import ModelRef, TrainedRef
from schemas.errors import ConfigError, StorageError, TrainingError
from schemas.export import GgufType
from schemas.training import TrainSpec
from tasks.model.adapter import load_trained, open_for_training, save_trained, trainable_tensors
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.convert import convert_gguf
from tasks.model.to_gguf import write_gguf
from tasks.model.turn_texts import read_turn_texts
from tasks.model.whole import check_same_tokens, write_gguf_of, write_merged
from tasks.release.modelfile import ollama_template

pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")

TALK = [{"role": "user", "content": "Where is my parcel NB-10234?\n\n1000 thanks \U0001f642"}]
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _texts(model: ModelRef) -> list[list[int]]:
    codec = ChatCodec.of(load_tokenizer(model), "instruction")
    return [[*codec.prompt_ids(TALK), *codec.answer_ids("We are sorry to hear that.")]]


def _logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        out: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return out


@pytest.fixture(scope="module")
def tiny_f32(tiny_model: ModelRef, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("f32") / "tiny.gguf"
    write_gguf(tiny_model, path, kind="f32", name="tiny")
    return path


def _trained(model: ModelRef, out: Path, method: str = "lora") -> TrainedRef:
    out.mkdir()
    spec = TrainSpec.model_validate({"base_model": "x", "method": method, "dtype": "float32", "learning_rate": 1e-4})
    opened = open_for_training(model, spec)
    torch.manual_seed(7)
    with torch.no_grad():
        for tensor in trainable_tensors(opened).values():
            tensor.add_(torch.randn_like(tensor) * 0.05)
    save_trained(opened, spec, base=model, out=out)
    return TrainedRef(
        root=out, method=spec.method, format="instruction", base_digest=model.digest, n_trainable=1, n_steps=1,
        n_tokens=1, train_loss=0.0,
    )  # fmt: skip


def test_read_back_the_logits_and_tokens_are_equal(tiny_model: ModelRef, tiny_f32: Path, tmp_path: Path) -> None:
    convert_gguf(tiny_f32, tmp_path)
    back = tiny_model.model_copy(update={"root": tmp_path})
    one, two = (load_base(model, dtype=torch.float32) for model in (tiny_model, back))
    (text,) = _texts(tiny_model)
    assert torch.equal(_logits(one, text), _logits(two, text))
    check_same_tokens(tiny_model, back, texts=[text], where=tiny_f32)
    codec = ChatCodec.of(load_tokenizer(back), "instruction")
    assert [*codec.prompt_ids(TALK), *codec.answer_ids("We are sorry to hear that.")] == text


@pytest.mark.filterwarnings("ignore")  # of transformers' GGUF reader about itself
def test_transformers_reads_the_same_model(tiny_model: ModelRef, tiny_f32: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, name = str(tiny_f32.parent), tiny_f32.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
    )
    (text,) = _texts(tiny_model)
    assert torch.equal(_logits(model, text), _logits(load_base(tiny_model, dtype=torch.float32), text))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    said = "My parcel NB-10234 has not arrived <|im_end|>"
    assert tokenizer.encode(said) == load_tokenizer(tiny_model).encode(said)
    assert tokenizer.chat_template == load_tokenizer(tiny_model).chat_template


LLAMA_CPP = """
import json, sys, xllamacpp
settings, asked = xllamacpp.CommonParams(), json.loads(sys.argv[2])
settings.model.path, settings.n_ctx, settings.n_parallel = sys.argv[1], 256, 1
settings.cpuparams.n_threads, settings.warmup = 1, False
server = xllamacpp.Server(settings)
first = server.handle_completions({"temperature": 0, "n_probs": 3, "cache_prompt": False, **asked["completion"]})
chats = [server.handle_chat_completions({"temperature": 0, **chat}) for chat in asked["chats"]]
print(json.dumps({"tokens": first["choices"][0]["logprobs"]["content"], "chats": chats}))
"""
if importlib.util.find_spec("xllamacpp"):  # a binding of llama.cpp; there are no wheels of it for every machine

    def test_llama_cpp_answers_the_same(tiny_model: ModelRef, tiny_f32: Path) -> None:
        talk = [{"role": "user", "content": "Where is my parcel 12?"}]
        codec, model = (
            ChatCodec.of(load_tokenizer(tiny_model), "instruction"),
            load_base(tiny_model, dtype=torch.float32),
        )
        prompt = codec.prompt_ids(talk)
        with torch.inference_mode():
            said = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=8)[0, len(prompt) :].tolist()
        wanted = torch.log_softmax(_logits(model, prompt)[-1], -1)

        asked = {
            "completion": {"prompt": prompt, "n_predict": 8},
            "chats": [{"messages": talk, "max_tokens": 8}, {"messages": TALK, "max_tokens": 1}],
        }
        command = [sys.executable, "-c", LLAMA_CPP, str(tiny_f32), json.dumps(asked)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
        assert [token["id"] for token in told["tokens"]] == said
        for token in told["tokens"][0]["top_logprobs"]:
            assert token["logprob"] == pytest.approx(float(wanted[token["id"]]), abs=0.02)  # it keeps f16 in its cache
        # The template in the file writes the same prompts: as many tokens, the same answer.
        assert told["chats"][0]["choices"][0]["message"]["content"] == codec.tokenizer.decode(said)
        assert told["chats"][1]["usage"]["prompt_tokens"] == len(codec.prompt_ids(TALK))


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_an_adapter_goes_along_in_every_number_format(tiny_model: ModelRef, tmp_path: Path, kind: GgufType) -> None:
    trained, paths = _trained(tiny_model, tmp_path / "trained"), [tmp_path / "one.gguf", tmp_path / "two.gguf"]
    for path in paths:
        scratch = tmp_path / path.stem
        scratch.mkdir()
        parity = write_gguf_of(
            tiny_model, trained, texts=_texts(tiny_model), kind=kind, dtype="float32", name="n", path=path,
            scratch=scratch,
        )  # fmt: skip
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert parity.adapter_effect > 0.1
    assert parity.max_logit_difference < (1e-4 if kind == "f32" else 0.2)


def test_a_fully_trained_model_is_compared_with_itself(tiny_model: ModelRef, tmp_path: Path) -> None:
    trained = _trained(tiny_model, tmp_path / "trained", "full")
    (tmp_path / "out").mkdir()
    parity = write_merged(
        tiny_model, trained, texts=_texts(tiny_model), stored="float32", dtype="float32", out=tmp_path / "out"
    )
    assert parity.max_logit_difference == 0.0
    assert parity.adapter_effect > 0.1
    other = tiny_model.model_copy(update={"root": tmp_path / "out"})
    (text,) = _texts(tiny_model)
    told = load_trained(tiny_model, trained, dtype="float32")
    assert torch.equal(_logits(load_base(other, dtype=torch.float32), text), _logits(told, text))


def test_a_file_that_lost_the_adapter_is_refused(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, scratch = _trained(tiny_model, tmp_path / "trained"), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tasks.model.whole.merge_adapter", lambda *_, **__: tiny_model)
    with pytest.raises(TrainingError, match="does not answer as its parts"):
        write_gguf_of(
            tiny_model, trained, texts=_texts(tiny_model), kind="f16", dtype="float32", name="n",
            path=tmp_path / "x.gguf", scratch=scratch,
        )  # fmt: skip


def test_another_tokenizer_is_refused(tiny_model: ModelRef, tmp_path: Path) -> None:
    shutil.copytree(tiny_model.root, tmp_path / "other")
    stored = json.loads((tmp_path / "other" / "tokenizer.json").read_text())
    stored["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(stored))
    other = tiny_model.model_copy(update={"root": tmp_path / "other"})
    with pytest.raises(ConfigError, match="splitting is not SmolLM's") as caught:
        write_gguf(other, tmp_path / "x.gguf", kind="f16", name="n")
    assert caught.value.code == "TG0194"
    (tmp_path / "other" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    with pytest.raises(StorageError, match="differs in the chat template") as damaged:
        check_same_tokens(tiny_model, other, texts=[], where=tmp_path)
    assert damaged.value.code == "TG0546"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "architecture 'qwen2'"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "rotary embeddings of type 'llama3'"),
        ({"attention_bias": True}, "attention_bias"),
    ],
)
def test_a_model_that_could_not_be_checked_is_not_written(
    tiny_model: ModelRef, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    shutil.copytree(tiny_model.root, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ConfigError, match=message):
        write_gguf(
            tiny_model.model_copy(update={"root": tmp_path / "other"}), tmp_path / "x.gguf", kind="f16", name="n"
        )
    assert not (tmp_path / "x.gguf").exists()


def _as_go(template: str, turns: list[dict[str, str]]) -> str:
    """The few actions of Go's text/template that a Modelfile of ours uses, on what Ollama hands over."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    head, rest = template.split("{{ range .Messages }}")
    told, bare = head.removeprefix("{{ if .System }}").removesuffix("{{ end }}").split("{{ else }}")
    body, end = rest.rsplit("{{ end }}{{ end }}", 1)
    user, assistant = body.removeprefix('{{ if eq .Role "user" }}').split('{{ else if eq .Role "assistant" }}')
    around = {"user": user, "assistant": assistant, "system": ""}
    said = "".join(around[turn["role"]].replace("{{ .Content }}", turn["content"]) for turn in turns)
    return (told.replace("{{ .System }}", system) if system else bare) + said + end


@pytest.mark.parametrize("template", [None, SMOLLM2_TEMPLATE])
def test_ollama_writes_the_training_template(tiny_model: ModelRef, template: str | None) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = template or tokenizer.chat_template
    codec = ChatCodec.of(tokenizer, "instruction")
    go = ollama_template(read_turn_texts(codec))
    for roles in (["user"], ["system", "user"], ["system", "user", "assistant", "user"]):
        turns = [{"role": role, "content": f"{role} {number}\nmore"} for number, role in enumerate(roles)]
        assert _as_go(go, turns) == codec.text(turns, generation=True)


def test_a_template_that_does_more_than_turns_has_no_form_for_ollama(tiny_model: ModelRef) -> None:
    tokenizer = load_tokenizer(tiny_model)
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "message['content']", "(message['content'] if loop.last or loop.first else '...')"
    )
    with pytest.raises(ConfigError, match="not a plain sequence of turns") as caught:
        read_turn_texts(ChatCodec.of(tokenizer, "instruction"))
    assert caught.value.code == "TG0194"
