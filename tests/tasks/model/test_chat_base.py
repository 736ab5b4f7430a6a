"""A base without a chat template gets one: its tokens, their trained rows, and equal answers wherever it is loaded."""

import shutil
from pathlib import Path

import pytest
import torch

from schemas.artifacts import BundleRef, ModelRef, TrainedRef
from schemas.chat_template import families, resolve_template
from schemas.errors import ConfigError
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec, Method, PromptSpec, TrainSpec
from tasks.model.adapter import load_trained, open_for_training
from tasks.model.base_model import fetch_base_model, load_base, load_tokenizer
from tasks.model.chat_base import CHAT_FILES, trained_ids
from tasks.model.chat_codec import ChatCodec
from tasks.model.merge import check_parity, merge_adapter
from tasks.release.bundle import bundle_candidate
from tasks.release.export_adapter import check_servable
from tasks.release.serve import load_bundle
from tasks.storage.sealed_folder import seal
from tasks.train.fast.decoder import is_fast
from tests.support.trained import save_perturbed

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is my parcel? <|im_end|><end_of_turn>"},
    {"role": "assistant", "content": "On its way."},
]
WRITTEN = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<|endoftext|><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n",
    "llama3": "<|endoftext|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<|endoftext|>[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]",
    "phi4": "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>"
    "<|im_start|>assistant<|im_sep|>",
}
"""With `<|endoftext|>` as the tiny base's own token for beginning and end of a text."""


def _fetched(base: Path, out: Path, declared: str = "chatml", added: tuple[str, ...] = ()) -> ModelRef:
    out.mkdir()
    chat = resolve_template(declared, added, options={}, root=base)
    model = fetch_base_model(uri=f"file:{base}", allow_download=False, root=base, cache=out, chat=chat, out=out)
    return model.model_copy(update={"digest": seal(out)})


@pytest.fixture(scope="session")
def chat_model(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    """The tiny base with ChatML, whose two tokens its tokenizer lacks."""
    return _fetched(tiny_base, tmp_path_factory.mktemp("chat") / "model")


def _trained(model: ModelRef, out: Path, method: Method = "lora") -> TrainedRef:
    """Change every trainable weight, and save it."""
    spec = TrainSpec(
        base_model="file:tiny", method=method, dtype="float32", learning_rate=1e-4, adapter=AdapterSpec(rank=4)
    )
    return save_perturbed(model, spec, out).model_copy(update={"digest": seal(out)})


@pytest.mark.parametrize("family", sorted(families()))
def test_a_family_makes_a_chat_model_of_a_base(tiny_base: Path, tmp_path: Path, family: str) -> None:
    model = _fetched(tiny_base, tmp_path / "model", family)
    codec = ChatCodec.of(load_tokenizer(model), "instruction")
    assert codec.text([TALK[0], {"role": "user", "content": "Hi"}], generation=True) == WRITTEN[family]
    encoded = codec.conversation(TALK)  # raises unless serving uses the ids of training
    learned = [number for number, mask in zip(encoded.input_ids, encoded.loss_mask, strict=True) if mask]
    assert codec.tokenizer.decode(learned[:-1]) == "On its way."
    assert learned[-1] == codec.end_id
    assert max(encoded.input_ids) < model.vocab_size == len(load_base(model, dtype=torch.float32).lm_head.weight)
    assert not {path.name for path in tiny_base.iterdir()} & {"chat.json", "chat_template.jinja"}


def test_only_missing_and_listed_tokens_are_trained(tiny_base: Path, tiny_model: ModelRef, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text("{% for m in messages %}<|im_start|>{{ m.content }}<|end|>{% endfor %}")
    present = _fetched(tiny_model.root, tmp_path / "present")
    listed = _fetched(tiny_model.root, tmp_path / "listed", str(own), ("<|im_start|>", "<|end|>"))
    assert trained_ids(present.root) == trained_ids(tiny_model.root) == ()
    assert trained_ids(listed.root) == (1, tiny_model.vocab_size)
    assert (present.vocab_size, listed.vocab_size) == (tiny_model.vocab_size, tiny_model.vocab_size + 1)


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_reloading_gives_the_same_answers(chat_model: ModelRef, tmp_path: Path, method: Method) -> None:
    trained = _trained(chat_model, tmp_path / "trained", method)
    ids = torch.tensor([ChatCodec.of(load_tokenizer(chat_model), "instruction").conversation(TALK).input_ids])
    with torch.no_grad():
        first = load_trained(chat_model, trained, dtype="float32")(input_ids=ids).logits
        again = load_trained(chat_model, trained, dtype="float32")(input_ids=ids).logits
        base = load_base(chat_model, dtype=torch.float32)(input_ids=ids).logits
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    new = list(trained_ids(chat_model.root))
    assert float((first - base)[..., new].abs().max()) > 0.01  # the rows of new tokens are trained
    kept = {path.name for path in trained.root.iterdir()}
    assert kept >= ({"tokenizer.json", "chat_template.jinja"} if method == "full" else {*CHAT_FILES})


@pytest.mark.parametrize("tied", [True, False])
def test_peft_itself_reads_the_adapter(tiny_base: Path, tmp_path: Path, tied: bool) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    if not tied:
        loaded = AutoModelForCausalLM.from_pretrained(tiny_base)
        loaded.config.tie_word_embeddings = False
        loaded.lm_head.weight = torch.nn.Parameter(loaded.lm_head.weight * 1.5)
        loaded.save_pretrained(base)
    model = _fetched(base, tmp_path / "model")
    trained = _trained(model, tmp_path / "trained")
    ids = torch.tensor([ChatCodec.of(load_tokenizer(model), "instruction").conversation(TALK).input_ids])
    with torch.no_grad():
        ours = load_trained(model, trained, dtype="float32")(input_ids=ids).logits
        peft = PeftModel.from_pretrained(load_base(model, dtype=torch.float32), trained.root)(input_ids=ids).logits
    torch.testing.assert_close(peft, ours)
    (tmp_path / "merged").mkdir()
    merged = merge_adapter(model, trained, out=tmp_path / "merged", stored="float32")
    torch.testing.assert_close(load_base(merged, dtype=torch.float32)(input_ids=ids).logits, ours)


def test_a_merged_model_answers_as_its_parts_and_needs_nothing_else(chat_model: ModelRef, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trained = _trained(chat_model, tmp_path / "trained")
    out = tmp_path / "merged"
    out.mkdir()
    merged = merge_adapter(chat_model, trained, out=out, stored="float32")
    codec = ChatCodec.of(load_tokenizer(merged), "instruction")
    text = codec.conversation(TALK).input_ids
    assert check_parity(chat_model, trained, merged, texts=[text], stored="float32").argmax_agreement == 1
    plain = AutoModelForCausalLM.from_pretrained(out)
    assert len(plain.get_input_embeddings().weight) == chat_model.vocab_size
    ours = codec.text(TALK[:2], generation=True)
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True) == ours


def test_a_bundle_serves_on_the_untouched_base(chat_model: ModelRef, tiny_base: Path, tmp_path: Path) -> None:
    from tasks.model.answer_engine import Engine, Item

    trained = _trained(chat_model, tmp_path / "trained")
    (tmp_path / "bundle").mkdir()
    prompt, decoding = (
        PromptSpec(chat_template="chatml"),
        DecodingSpec(max_new_tokens=8, batch_size=1, threads=1, dtype="float32"),
    )
    bundle: BundleRef = bundle_candidate(
        trained=trained, model=chat_model, name="small", prompt=prompt,
        decoding=decoding, out=tmp_path / "bundle",
    )  # fmt: skip
    seal(bundle.root)
    codec = ChatCodec.of(load_tokenizer(chat_model), "instruction")
    question = Item("1", codec.prompt_ids([{"role": "user", "content": "Where is my parcel?"}]), [codec.end_id])
    (judged,) = Engine.load(chat_model, trained, decoding, codec, []).answer([question])
    served = load_bundle(bundle.root, base=tiny_base)
    assert served.answer([{"body": "Where is my parcel?"}]) == [judged.text]


def test_vllm_is_refused_only_where_rows_were_trained(
    chat_model: ModelRef, tiny_model: ModelRef, tmp_path: Path
) -> None:
    from types import SimpleNamespace

    serving = SimpleNamespace(trained=SimpleNamespace(method="lora"))
    with pytest.raises(ConfigError, match="trained embeddings") as refused:
        check_servable(serving, _trained(chat_model, tmp_path / "new").root)  # type: ignore[arg-type]
    assert "merged" in str(refused.value.hint)
    present = _fetched(tiny_model.root, tmp_path / "present")
    assert check_servable(serving, _trained(present, tmp_path / "old").root) == 8  # type: ignore[arg-type]


def test_the_fast_path_leaves_trained_rows_to_the_model(chat_model: ModelRef, tiny_model: ModelRef) -> None:
    spec = TrainSpec(base_model="file:tiny", dtype="float32", adapter=AdapterSpec(rank=4))
    assert not is_fast(open_for_training(chat_model, spec))
    assert is_fast(open_for_training(tiny_model, spec))


def test_what_cannot_work_is_refused_with_a_reason(chat_model: ModelRef, tmp_path: Path, tiny_base: Path) -> None:
    spec = TrainSpec(base_model="file:tiny", sharding="full", processes=2)
    with pytest.raises(ConfigError, match="cannot train the embeddings"):
        open_for_training(chat_model, spec)
    (tmp_path / "bad.jinja").write_text("{% for m in messages %}")
    for declared, what in (("missing.jinja", "No such file"), ("bad.jinja", "not a Jinja template")):
        with pytest.raises(ConfigError, match=what):
            resolve_template(declared, (), options={}, root=tmp_path)
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for path in tiny_base.iterdir():
        (renamed / path.name).write_bytes(path.read_bytes().replace(b"embed_tokens", b"embed_takens"))
    with pytest.raises(ConfigError, match=r"no embed_tokens.weight that could be extended"):
        _fetched(renamed, tmp_path / "model")
