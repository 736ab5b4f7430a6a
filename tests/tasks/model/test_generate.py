"""Batched answers with a shared prefix equal those of a plain loop; a killed run continues."""

import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from schemas.artifacts import ModelRef, Predictions, PromptSet, TrainedRef
from schemas.errors import DataError, TrainingError
from schemas.evaluation import DecodingSpec
from schemas.training import AdapterSpec, TrainSpec
from tasks.model.adapter import attach_adapter
from tasks.model.answer_engine import CancelledError, Engine, greedy
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.decoder import Decoder
from tasks.model.decoding.fused_decoder import FusedDecoder, is_fusable, open_decoder
from tasks.model.decoding.fused_layer import JoinedLinear, packs
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.model.generate import AnswerJob, each_batch, generate_answers, shared_prefix
from tasks.storage.sealed_folder import seal
from tasks.tickets.prompts import dump_messages
from tests.support.trained import save_perturbed, shake

BODIES = (
    "My parcel NB-10234 has not arrived.",
    "I was billed twice for order NB-20411, please refund the second charge to my card as soon as you can.",
    "The lamp does not turn on.",
    "How do I change my password? The reset mail never comes, although I have tried three times since Monday.",
    "Thank you, all is well.",
    "Cancel my subscription",
    "Where is the invoice for May?",
)
SPEC = DecodingSpec(max_new_tokens=24, batch_size=3, threads=1, dtype="float32")


def prompt_set(folder: Path, *, form: Literal["instruction", "completion"] = "instruction", n: int = 7) -> PromptSet:
    folder.mkdir()
    system = {"role": "system", "content": "You are the support desk of Northbeam. Answer in one sentence."}
    messages = [dump_messages([system, {"role": "user", "content": body}]) for body in BODIES[:n]]
    texts = [f"Ticket: {body}\nReply:" for body in BODIES[:n]]
    table = {
        "item_id": [f"i{number}" for number in range(n)],
        "messages" if form == "instruction" else "text": messages if form == "instruction" else texts,
        "answer": [f"We are sorry to hear that, courier {'will ' * number}come." for number in range(n)],
    }
    pq.write_table(pa.table(table), folder / "prompts.parquet")
    return PromptSet(root=folder, arm="zero_shot", format=form, n_items=n)


def answers(
    tmp_path: Path,
    prompts: PromptSet,
    model: ModelRef,
    spec: DecodingSpec,
    name: str,
    trained: TrainedRef | None = None,
) -> Predictions:
    out, scratch = tmp_path / f"{name}-out", tmp_path / f"{name}-scratch"
    out.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    return generate_answers(prompts=prompts, model=model, decoding=spec, trained=trained, out=out, scratch=scratch)


def rows(predictions: Predictions) -> list[dict[str, Any]]:
    return pq.read_table(predictions.root / "predictions.parquet").to_pylist()


def stock_answers(model: ModelRef, prompts: PromptSet, spec: DecodingSpec) -> list[dict[str, Any]]:
    """Answer one item after another with plain transformers."""
    tokenizer = load_tokenizer(model)
    codec = ChatCodec.of(tokenizer, prompts.format)
    loaded = load_base(model, dtype=torch.float32)
    wanted = []
    for row in pq.read_table(prompts.root / "prompts.parquet").to_pylist():
        asked = row["text"] if prompts.format == "completion" else orjson.loads(row["messages"])
        ids = torch.tensor([codec.prompt_ids(asked)])
        mask = torch.ones_like(ids)
        with torch.inference_mode():
            whole = loaded.generate(
                ids, attention_mask=mask, do_sample=False, max_new_tokens=spec.max_new_tokens, pad_token_id=0
            )
            new = whole[0, ids.shape[1] :].tolist()
            answer = torch.tensor([codec.answer_ids(row["answer"])])
            logits = loaded(torch.cat([ids, answer], 1)).logits[0, ids.shape[1] - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits, answer[0]).item()
        finished = new[-1] == codec.end_id
        text = tokenizer.decode(new[:-1] if finished else new, skip_special_tokens=True)
        wanted.append(
            {"item_id": row["item_id"], "text": text, "n_new_tokens": len(new), "finished": finished, "loss": loss}
        )
    return wanted


def assert_same(got: list[dict[str, Any]], wanted: list[dict[str, Any]], *, tolerance: float = 1e-4) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=tolerance)
        assert {**one, "loss": 0} == {**other, "loss": 0}


@pytest.mark.parametrize("form", ["instruction", "completion"])
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_batches_answer_like_stock_generate(
    tmp_path: Path, tiny_model: ModelRef, form: Literal["instruction", "completion"], batch_size: int
) -> None:
    spec = SPEC.model_copy(update={"batch_size": batch_size})
    prompts = prompt_set(tmp_path / "prompts", form=form)
    got = rows(answers(tmp_path, prompts, tiny_model, spec, "a"))
    assert_same(got, stock_answers(tiny_model, prompts, spec))
    assert len({row["text"] for row in got}) > 1, "the answers must differ to prove anything"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parallel_batches_give_the_answers_of_sequential_ones(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    spec = SPEC.model_copy(update={"threads": 2, "batch_size": 2, "dtype": dtype})
    prompts, before = prompt_set(tmp_path / "prompts"), torch.get_num_threads()
    at_once: list[int] = []
    plain = Engine.answer

    def failing_answer(engine: Engine, items: Any) -> Any:
        at_once.append(torch.get_num_threads())
        return plain(engine, items)

    monkeypatch.setattr(Engine, "answer", failing_answer)
    together = rows(answers(tmp_path, prompts, tiny_model, spec, "together"))
    assert at_once == [1] * 4, "two batches at a time, one thread each"
    assert torch.get_num_threads() == before
    monkeypatch.setattr("tasks.model.generate.MAX_PARALLEL_BATCHES", 1)
    alone = rows(answers(tmp_path, prompts, tiny_model, spec, "alone"))
    assert at_once[4:] == [2] * 4
    assert [row["text"] for row in together] == [row["text"] for row in alone]
    assert [row["loss"] for row in together] == pytest.approx([row["loss"] for row in alone], rel=1e-3)


def test_the_rest_of_a_killed_run_is_answered_with_as_many_threads_per_batch(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"threads": 2, "batch_size": 2})
    prompts = prompt_set(tmp_path / "prompts")
    whole = answers(tmp_path, prompts, tiny_model, spec, "a")
    (tmp_path / "a-scratch" / "answers-000004.json").unlink()
    used: list[int] = []
    plain = Engine.answer
    monkeypatch.setattr(
        Engine, "answer", lambda engine, items: (used.append(torch.get_num_threads()), plain(engine, items))[1]
    )
    first = (whole.root / "predictions.parquet").read_bytes()
    again = answers(tmp_path, prompts, tiny_model, spec, "a")
    assert used == [1], "a single batch would use both threads and give other bits"
    assert (again.root / "predictions.parquet").read_bytes() == first


def test_a_process_with_one_batch_at_a_time_uses_the_threads_of_one_batch(tiny_model: ModelRef) -> None:
    job = AnswerJob(tiny_model, None, SPEC, "instruction", (1,), threads=8, n_batches=3)
    alone = job.of_one_batch()
    assert (alone.threads, alone.n_batches) == (4, 1)
    assert alone.of_one_batch() == alone


def test_finished_batches_are_returned_when_another_fails_and_the_rest_stop_at_their_next_token() -> None:
    gone, begun = threading.Event(), threading.Event()

    def answer(items: Sequence[str]) -> str:
        if items[0] == "fails":
            assert begun.wait(120)
            raise MemoryError
        if items[0] == "long":
            begun.set()
            assert gone.wait(120)
            raise CancelledError
        return items[0]

    batches = [(0, ["quick"]), (1, ["long"]), (2, ["fails"]), (3, ["never"])]
    answered = each_batch(answer, batches, n=2, threads=2, cancel=gone.set)
    assert next(answered) == (0, "quick")
    with pytest.raises(MemoryError):
        assert {start for start, _ in answered} <= {3}


def test_a_cancelled_batch_stops_at_its_next_token(tiny_model: ModelRef) -> None:
    with torch.no_grad():
        decoder = FusedDecoder(load_base(tiny_model, dtype=torch.float32), [1])
    asked: list[int] = []

    def third_time() -> bool:
        asked.append(0)
        return len(asked) == 3

    with torch.inference_mode():
        reading = decoder.read([[1, 40, 41]], room=20)
        with pytest.raises(CancelledError):
            greedy(reading, 1, 20, frozenset(), is_cancelled=third_time)
    assert reading.used == 2 + 2


def test_the_plain_decoder_agrees_with_the_fused_one(tiny_model: ModelRef) -> None:
    prompts = [[1, 40, 41, 42, 43], [1, 40, 50], [1, 40, 60, 61, 62, 63, 64, 65], [1, 40, 70, 71]]
    references = [[5, 6, 2], [7, 2], [8, 9, 10, 11, 2], [2]]

    def run(decoder: Decoder) -> tuple[list[list[int]], list[float]]:
        with torch.inference_mode():
            reading = decoder.read(prompts, room=20)
            losses = reading.answer_losses(references)
            return greedy(reading, len(prompts), 20, frozenset({2, 90, 120})), losses

    plain = run(PlainDecoder(load_base(tiny_model, dtype=torch.float32)))
    with torch.no_grad():
        fused = run(FusedDecoder(load_base(tiny_model, dtype=torch.float32), shared_prefix(prompts)))
        unshared = run(FusedDecoder(load_base(tiny_model, dtype=torch.float32), []))
    assert plain[0] == fused[0] == unshared[0]
    assert fused[1] == pytest.approx(plain[1], rel=1e-5)
    assert unshared[1] == pytest.approx(plain[1], rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("bias", [True, False])
def test_a_packed_weight_gives_the_same_product(dtype: torch.dtype, bias: bool) -> None:
    if not packs(torch.ones(1, 1, dtype=dtype)):
        pytest.skip(f"this processor cannot pack {dtype}")
    torch.manual_seed(5)
    layers = [torch.nn.Linear(96, width, bias=bias, dtype=dtype) for width in (64, 32, 160)]
    # The bits in bfloat16; float32 comes from another library, which adds up in another order.
    most = 0.0 if dtype == torch.bfloat16 else 96 * 2.0**-23
    with torch.inference_mode():
        whole = torch.cat([layer.weight for layer in layers])
        added = torch.cat([layer.bias for layer in layers]) if bias else None
        shared, joined = JoinedLinear(layers[0], shared=True), JoinedLinear(*layers)
        for n_rows in (1, 7, 64, 300):
            x = torch.randn(n_rows, 3, 96).to(dtype)
            wanted = torch.nn.functional.linear(x, whole, added)
            torch.testing.assert_close(joined(x), wanted, rtol=0.0, atol=most)
            torch.testing.assert_close(shared(x), wanted[..., :64], rtol=0.0, atol=most)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_answers_are_the_same_without_packing(
    dtype: torch.dtype, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replies() -> list[list[int]]:
        with torch.no_grad():
            decoder = FusedDecoder(load_base(tiny_model, dtype=dtype), [1])
        with torch.inference_mode():
            return greedy(decoder.read([[1, 40, 41], [1, 50]], room=20), 2, 20, frozenset())

    packed = replies()
    monkeypatch.setattr("tasks.model.decoding.fused_layer.packs", lambda _: False)
    assert replies() == packed
    monkeypatch.undo()
    model, ids = load_base(tiny_model, dtype=dtype), torch.tensor([[1, 40, 41]])
    with torch.no_grad():
        before = model(ids).logits
        open_decoder(model, [1], keep_weights=True)
        assert torch.equal(model(ids).logits, before), "a shared base keeps its weights"
    assert not packs(torch.ones(1, 1, dtype=torch.float64))


def test_rows_that_stop_do_not_affect_the_others(tiny_model: ModelRef) -> None:
    """Stop texts taken from the answers, so that rows end at different steps and others move into the gaps."""
    prompts = [[1, 40 + number, 41, 42] for number in range(8)]
    with torch.no_grad():
        decoder = FusedDecoder(load_base(tiny_model, dtype=torch.float32), [1])
    with torch.inference_mode():
        whole = greedy(decoder.read(prompts, room=16), 8, 16, frozenset())
        stops = frozenset(row[3 + number] for number, row in enumerate(whole[::2]))
        cut = greedy(decoder.read(prompts, room=16), 8, 16, stops)
    assert len({len(row) for row in cut}) > 1
    for row, full in zip(cut, whole, strict=True):
        first = next((at for at, token in enumerate(full) if token in stops), len(full) - 1)
        assert row == full[: first + 1]


@pytest.mark.parametrize(
    "adapter",
    [
        AdapterSpec(rank=4, alpha=8),
        AdapterSpec(rank=4, alpha=8, target_modules=("q_proj", "v_proj", "up_proj"), layers=1),
    ],
)
def test_lora_factors_are_applied_like_in_peft(tiny_model: ModelRef, adapter: AdapterSpec) -> None:
    model = shake(attach_adapter(load_base(tiny_model, dtype=torch.float32), adapter, seed=1).eval())
    ids = [1, 40, 41, 42, 43, 44]
    with torch.inference_mode():
        wanted = model(torch.tensor([ids])).logits[0, -1]
    with torch.no_grad():
        got = open_decoder(model, ids[:2]).read([ids], room=1).next_logits()[0]
        bare = open_decoder(load_base(tiny_model, dtype=torch.float32), []).read([ids], room=1).next_logits()[0]
    assert torch.allclose(got, wanted, atol=1e-4)
    assert not torch.allclose(bare, wanted, atol=1e-2)


def test_other_architectures_use_the_plain_decoder(tiny_model: ModelRef) -> None:
    model = load_base(tiny_model, dtype=torch.float32)
    assert is_fusable(model)
    for name, value in (
        ("model_type", "gemma"),
        ("hidden_act", "gelu"),
        ("layer_types", ["sliding_attention"]),
        ("rope_parameters", {"rope_type": "dynamic", "rope_theta": 10000.0}),
    ):
        changed = load_base(tiny_model, dtype=torch.float32)
        changed.config.__dict__[name] = value
        assert not is_fusable(changed), name


def test_a_killed_run_continues_with_the_same_bytes(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = prompt_set(tmp_path / "prompts")
    whole = answers(tmp_path, prompts, tiny_model, SPEC, "whole")
    answered: list[int] = []
    real = Engine.answer

    def dying(self: Engine, items: Any) -> Any:
        if len(answered) == 1:
            raise KeyboardInterrupt
        answered.append(len(items))
        return real(self, items)

    monkeypatch.setattr(Engine, "answer", dying)
    with pytest.raises(KeyboardInterrupt):
        answers(tmp_path, prompts, tiny_model, SPEC, "killed")
    monkeypatch.setattr(Engine, "answer", lambda self, items: answered.append(-1) or real(self, items))
    again = answers(tmp_path, prompts, tiny_model, SPEC, "killed")
    assert answered == [3, -1, -1], "only the two remaining batches are answered"
    assert seal(again.root) == seal(whole.root)


def test_batches_kept_for_other_prompts_or_settings_are_not_reused(tmp_path: Path, tiny_model: ModelRef) -> None:
    short = SPEC.model_copy(update={"max_new_tokens": 2})
    prompts = prompt_set(tmp_path / "prompts")
    answers(tmp_path, prompts, tiny_model, short, "a")
    assert max(row["n_new_tokens"] for row in rows(answers(tmp_path, prompts, tiny_model, SPEC, "a"))) > 2
    (tmp_path / "a-scratch" / "answers-000000.json").write_bytes(b'{"key": "cut off')
    assert answers(tmp_path, prompts, tiny_model, SPEC, "a").n_items == 7


def test_batches_kept_for_other_weights_are_not_reused(tmp_path: Path, tiny_model: ModelRef) -> None:
    spec = TrainSpec(base_model="tiny", dtype="float32", adapter=AdapterSpec(rank=4, alpha=8))
    trained = save_perturbed(tiny_model, spec, tmp_path / "adapter", size=0.5)
    prompts = prompt_set(tmp_path / "prompts", n=2)
    short = SPEC.model_copy(update={"max_new_tokens": 2})
    answers(tmp_path, prompts, tiny_model, short, "a")
    adapted = answers(tmp_path, prompts, tiny_model, short, "a", trained)
    alone = answers(tmp_path, prompts, tiny_model, short, "b", trained)
    assert seal(adapted.root) == seal(alone.root)


def test_items_are_ordered_by_item_id_and_counts_add_up(tmp_path: Path, tiny_model: ModelRef) -> None:
    predictions = answers(tmp_path, prompt_set(tmp_path / "prompts"), tiny_model, SPEC, "a")
    got = rows(predictions)
    assert [row["item_id"] for row in got] == [f"i{number}" for number in range(7)]
    assert predictions.n_items == 7
    assert predictions.n_new_tokens == sum(row["n_new_tokens"] for row in got)
    assert all(row["finished"] or row["n_new_tokens"] == SPEC.max_new_tokens for row in got)
    assert all(math.isfinite(row["loss"]) for row in got)


def test_progress_counts_items(tmp_path: Path, tiny_model: ModelRef) -> None:
    reports: list[tuple[int, int | None, str]] = []

    def listen(done: int, total: int | None, unit: str, **figures: float) -> None:
        reports.append((done, total, unit))

    for name in ("out", "scratch"):
        (tmp_path / name).mkdir()
    generate_answers(
        prompts=prompt_set(tmp_path / "prompts"),
        model=tiny_model,
        decoding=SPEC,
        out=tmp_path / "out",
        scratch=tmp_path / "scratch",
        progress=listen,
    )
    assert reports == [(3, 7, "items"), (6, 7, "items"), (7, 7, "items")]


def test_a_prompt_without_room_for_its_answer_is_refused(tmp_path: Path, tiny_model: ModelRef) -> None:
    spec = SPEC.model_copy(update={"max_new_tokens": 500})
    with pytest.raises(DataError, match="TG0309"):
        answers(tmp_path, prompt_set(tmp_path / "prompts"), tiny_model, spec, "a")


def test_a_model_with_nan_weights_is_an_error(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.model import adapter

    def broken(*args: Any, **options: Any) -> Any:
        model = load_base(tiny_model, dtype=torch.float32)
        model.model.layers[0].mlp.down_proj.weight.data[0, 0] = float("nan")
        return model

    monkeypatch.setattr(adapter, "load_trained", broken)
    with pytest.raises(TrainingError, match="TG0420"):
        answers(tmp_path, prompt_set(tmp_path / "prompts"), tiny_model, SPEC, "a")


def test_biases_are_fused_if_only_some_layers_have_one(tmp_path: Path) -> None:
    """Qwen2 has biases on q, k and v only."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    config = Qwen2Config(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, max_position_embeddings=128, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    assert is_fusable(model)
    ids = [[5, 6, 7, 8], [5, 6, 9, 10, 11, 12]]
    with torch.inference_mode():
        wanted = [model(torch.tensor([row])).logits[0, -1] for row in ids]
    with torch.no_grad():
        got = open_decoder(model, [5, 6]).read(ids, room=1).next_logits()
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(got, wanted, strict=True))


def test_scaled_rotary_angles_match_the_model(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    rope = {
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    config = LlamaConfig(
        vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, initializer_range=0.2, rope_parameters=rope,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    assert is_fusable(model)
    row = [5 + number % 90 for number in range(60)]
    with torch.inference_mode():
        wanted = model(torch.tensor([row])).logits[0, -1]
    with torch.no_grad():
        reading = open_decoder(model, row[:40]).read([row[:-1]], room=1)
        reading.append(torch.tensor([row[-1]]))
    assert torch.allclose(reading.next_logits()[0], wanted, atol=1e-4)


def test_invalid_prompts_are_refused(tmp_path: Path, tiny_model: ModelRef) -> None:
    prompts = prompt_set(tmp_path / "prompts", n=0)
    with pytest.raises(DataError, match="TG0308"):
        answers(tmp_path, prompts, tiny_model, SPEC, "none")


def test_a_prompt_that_was_answered_is_not_answered_again(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SPEC.model_copy(update={"max_new_tokens": 4})
    few, all_of_them = prompt_set(tmp_path / "few", n=3), prompt_set(tmp_path / "all")
    known = answers(tmp_path, few, tiny_model, spec, "few")
    asked: list[str] = []
    answer = Engine.answer

    def counted(self: Engine, items: Sequence[Any]) -> Any:
        asked.extend(item.item_id for item in items)
        return answer(self, items)

    monkeypatch.setattr(Engine, "answer", counted)
    edited = prompt_set(tmp_path / "edited", n=2)  # i1 has another reference answer now
    table = pq.read_table(edited.root / "prompts.parquet").to_pydict()
    pq.write_table(pa.table(table | {"answer": [table["answer"][0], "Another."]}), edited.root / "prompts.parquet")
    out = {}
    for name, before in (("grown", few), ("changed", edited)):
        asked.clear()
        for folder in (tmp_path / name, tmp_path / f"{name}-scratch"):
            folder.mkdir()
        found = generate_answers(
            prompts=all_of_them, model=tiny_model, decoding=spec, known_prompts=before, known=known,
            out=tmp_path / name, scratch=tmp_path / f"{name}-scratch",
        )  # fmt: skip
        out[name] = sorted(asked)
        assert [row["item_id"] for row in rows(found)] == [f"i{number}" for number in range(7)]
        assert rows(found)[0] == rows(known)[0]
    assert out == {"grown": ["i3", "i4", "i5", "i6"], "changed": ["i1", "i2", "i3", "i4", "i5", "i6"]}
