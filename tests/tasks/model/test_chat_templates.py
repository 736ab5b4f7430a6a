"""The chat templates of published models: ids are their own, and what is trained continues what serving asks with.

TRL's wheel has them. Nothing of TRL is imported.
"""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from schemas.artifacts import ModelRef
from schemas.chat_template import ChatTemplate, resolve_template
from schemas.errors import TunegateError
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec, PromptSpec, TrainSpec
from tasks.model.answer_engine import Engine, Item
from tasks.model.base_model import fetch_base_model, load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec, training_template
from tasks.model.merge import merge_adapter
from tasks.model.tunegate_loader import LoadedModel
from tasks.release.bundle import bundle_candidate
from tasks.release.serve import load_bundle
from tasks.storage.sealed_folder import seal
from tasks.tickets.prompts import Message
from tasks.train.base_fit import FoundBase, base_faults, find_base
from tests.support.trained import save_perturbed

_TRL = importlib.util.find_spec("trl")
if _TRL is None or _TRL.origin is None:
    pytest.skip("TRL, whose wheel has the templates, is not installed", allow_module_level=True)
TEMPLATES = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted((Path(_TRL.origin).parent / "chat_templates").glob("*.jinja"))
    if not path.stem.endswith("_training")
}
"""Family -> template."""
REFUSED = {
    "deepseek_r1_distill": "ends a prompt with",  # it opens a thought, which its conversations do not have
    "deepseekv3": "ends a prompt with",
    "llava_next": "rejects turns",  # a content is a list of parts here, and in the next two
    "idefics3": "does not end an assistant's turn",
    "smolvlm": "does not end an assistant's turn",
}
NO_THOUGHT = {"enable_thinking": False}
NEEDS_NO_THOUGHT = ("nemotron_3_5_lightning", "nemotron_3_nano", "nemotron_3_super", "nemotron_3_ultra")
REWRITES = ("gptoss", "qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6")
"""Families that write an earlier answer differently from the last one."""
CONTROL = re.compile(
    r"<\|[A-Za-z0-9_/ ]+\|>|<｜[^｜<>]+｜>|</?(?:start_of_turn|end_of_turn|end_of_utterance|s|turn\|?)>"
    r"|<\|[a-z]+>|<[a-z]+\|>|\[/?[A-Z_]+\]"
)


def turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


QUESTION = [turn("user", "Where is NB-10234?"), turn("assistant", "On its way.")]
TALKS = {
    "one question": QUESTION,
    "system": [turn("system", "Be kind."), *QUESTION],
    "three answers": [*QUESTION, turn("user", "When?"), turn("assistant", "Soon."), *QUESTION],
}


def tokens_of(template: str) -> list[str]:
    return sorted({"<bos>", "<eos>", *CONTROL.findall(template)})


def tokenizer_of(template: str, options: dict[str, bool]) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes, with the control tokens that the template writes."""
    bytes_ = Tokenizer(
        models.BPE({each: at for at, each in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    bytes_.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in tokens_of(template)])
    made = PreTrainedTokenizerFast(tokenizer_object=bytes_, bos_token="<bos>", eos_token="<eos>")
    made.chat_template = ChatTemplate(name="", text=template, options=options).written("")
    return made


CASES = [
    pytest.param(name, options, id=f"{name} {options or ''}".strip())
    for name, template in TEMPLATES.items()
    for options in ({}, NO_THOUGHT)
    if name not in REFUSED and (options or name not in NEEDS_NO_THOUGHT)
    if not options or "enable_thinking" in template
]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_what_is_trained_continues_what_serving_asks_with(name: str, options: dict[str, bool]) -> None:
    tokenizer = tokenizer_of(TEMPLATES[name], options)
    codec = ChatCodec.of(tokenizer, "instruction")
    for kind, talk in TALKS.items():
        if name == "gemma" and kind == "system":
            continue  # it refuses a system turn
        encoded = codec.conversation(talk)
        ids, mask = encoded.input_ids, encoded.loss_mask
        if "strftime_now" not in TEMPLATES[name]:  # the date is fixed in training
            own = tokenizer.apply_chat_template(talk, tokenize=True, return_dict=False)
            assert ids == [*own, codec.end_id][: len(ids)]
        answers = [at for at, each in enumerate(talk) if each["role"] == "assistant"]
        kept = answers[-1:] if name in REWRITES else answers
        assert encoded.n_rewritten == len(answers) - len(kept)
        learned = []
        for at in kept:
            prompt = codec.prompt_ids(talk[:at])
            answer = codec.answer_ids(talk[at]["content"])
            assert ids[: len(prompt) + len(answer)] == prompt + answer
            assert sum(mask[: len(prompt)]) == len(learned)
            learned += answer
        assert [each for each, carries in zip(ids, mask, strict=True) if carries] == learned
        assert learned[-1] == codec.end_id

        text, asked = codec.text(talk[:-1], generation=True), codec.prompt_ids(talk[:-1])
        tokenizer.chat_template, own_template = training_template(codec), tokenizer.chat_template
        assert tokenizer.apply_chat_template(talk[:-1], tokenize=False, add_generation_prompt=True) == text
        assert ChatCodec.of(tokenizer, "instruction").prompt_ids(talk[:-1]) == asked
        tokenizer.chat_template = own_template


@pytest.mark.parametrize("name", [*REFUSED, *NEEDS_NO_THOUGHT])
def test_a_prompt_that_no_answer_can_continue_is_refused_with_the_cause(name: str) -> None:
    with pytest.raises(TunegateError, match=REFUSED.get(name, "ends a prompt with")) as refused:
        ChatCodec.of(tokenizer_of(TEMPLATES[name], {}), "instruction")
    if name in NEEDS_NO_THOUGHT:
        assert "template_options: {enable_thinking: false}" in str(refused.value.hint)


def base_with(template: str, base: Path, folder: Path) -> Path:
    """The tiny base as a published model with its own template: its tokens are in the tokenizer."""
    (folder / "own.jinja").write_text(template, encoding="utf-8")
    chat = resolve_template("own.jinja", tuple(tokens_of(template)), options={}, root=folder)
    out = folder / "fetched"
    out.mkdir()
    model = fetch_base_model(uri=f"file:{base}", allow_download=False, root=base, cache=out, chat=chat, out=out)
    own = folder / "base"
    load_base(model, dtype=torch.float32).save_pretrained(own)
    load_tokenizer(model).save_pretrained(own)
    return own


@pytest.mark.parametrize(
    ("name", "options"),
    [("qwen3", {}), ("qwen3_6", NO_THOUGHT), ("gptoss", {}), ("glm4moe", {}), ("nemotron_3_nano", NO_THOUGHT)],
)
def test_a_model_answers_alike_wherever_it_is_loaded(
    tiny_base: Path, tmp_path: Path, name: str, options: dict[str, bool]
) -> None:
    base = base_with(TEMPLATES[name], tiny_base, tmp_path)
    spec = TrainSpec(
        base_model=f"file:{base}",
        dtype="float32",
        adapter=AdapterSpec(rank=4),
        prompt=PromptSpec(template_options=options),
    )
    chat = resolve_template(None, (), options=options, root=tmp_path)
    (tmp_path / "model").mkdir()
    model = fetch_base_model(
        uri=spec.base_model, allow_download=False, root=base, cache=tmp_path, chat=chat, out=tmp_path / "model"
    )
    model = model.model_copy(update={"digest": seal(model.root)})
    trained = save_perturbed(model, spec, tmp_path / "trained")
    trained = trained.model_copy(update={"digest": seal(trained.root)})
    decoding = DecodingSpec(max_new_tokens=6, batch_size=1, threads=1, dtype="float32")
    (tmp_path / "bundle").mkdir()
    bundle = bundle_candidate(
        trained=trained, model=model, name="small", prompt=spec.prompt, decoding=decoding, out=tmp_path / "bundle"
    )
    seal(bundle.root)
    codec = ChatCodec.of(load_tokenizer(model), "instruction")
    asked = [turn("user", "Where is my parcel?")]
    (judged,) = Engine.load(model, trained, decoding, codec, []).answer(
        [Item("1", codec.prompt_ids(asked), [codec.end_id])]
    )
    assert load_bundle(bundle.root, base=base).answer([{"body": "Where is my parcel?"}]) == [judged.text]
    assert LoadedModel(bundle.root, base=str(base)).predict([{"body": "Where is my parcel?"}]) == [judged.text]
    (tmp_path / "merged").mkdir()
    merge_adapter(model, trained, out=tmp_path / "merged", stored="float32")
    assert ChatCodec.of(AutoTokenizer.from_pretrained(tmp_path / "merged"), "instruction").prompt_ids(
        asked
    ) == codec.prompt_ids(asked)


def test_validate_and_plan_give_the_cause_before_anything_runs(tiny_model: ModelRef, tmp_path: Path) -> None:
    def faults(template: str, **prompt: object) -> list[TunegateError]:
        base = tmp_path / "base"
        base.mkdir(exist_ok=True)
        for path in tiny_model.root.iterdir():
            if path.name != "chat_template.jinja":
                (base / path.name).unlink(missing_ok=True)
                (base / path.name).symlink_to(path)
        (base / "chat_template.jinja").write_text(template, encoding="utf-8")
        spec = TrainSpec(base_model="file:base", max_length=256, prompt=PromptSpec.model_validate(prompt))
        chat = resolve_template(
            spec.prompt.chat_template, spec.prompt.added_tokens, options=spec.prompt.template_options, root=tmp_path
        )
        found = find_base("file:base", allow_download=False, root=tmp_path, cache=tmp_path)
        assert isinstance(found, FoundBase)
        return list(base_faults(found, spec, max_new_tokens=8, chat=chat))

    nano = TEMPLATES["nemotron_3_nano"]
    assert ["template_options" in str(fault.hint) for fault in faults(nano)] == [True]
    assert faults(nano, template_options=NO_THOUGHT) == []
    assert faults(TEMPLATES["qwen3"]) == []
    assert faults(TEMPLATES["deepseekv3"], chat_template="chatml") == []
    assert ["end an assistant's turn" in fault.message for fault in faults(TEMPLATES["llama3"])] == [True]  # no tokens
