"""Likelihoods of labels by the trie over the answer's own pass are those of whole passes, and change no answer."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from schemas.artifacts import LabelSet, ModelRef
from schemas.evaluation import DecodingSpec
from tasks.model.answer_engine import KeptRows, greedy
from tasks.model.base_model import load_base, load_tokenizer
from tasks.model.chat_codec import ChatCodec
from tasks.model.decoding.decoder import Decoder
from tasks.model.decoding.fused_decoder import FusedDecoder
from tasks.model.decoding.plain_decoder import PlainDecoder
from tasks.model.generate import generate_answers, read_items
from tasks.model.label_likelihood import LabelFinder, LabelPlace, trie_of
from tests.tasks.model.decoding.test_kernel_layers import model_of
from tests.tasks.model.test_generate import SPEC, prompt_set

LABELS = ((5, 9), (5, 7, 9), (5, 7, 3, 9), (8, 9), (6,), (4, 2, 9))
"""With common beginnings, and of several lengths."""


def whole_pass(model: Any, context: list[int], label: tuple[int, ...]) -> float:
    """The label's log-likelihood by the model's own forward over all of it."""
    ids = torch.tensor([[*context, *label]])
    with torch.inference_mode():
        logs = torch.log_softmax(model(ids).logits[0].double(), -1)
    return sum(float(logs[len(context) - 1 + place, token]) for place, token in enumerate(label))


@pytest.mark.parametrize("kind", ["torch", "kernels", "plain"])
def test_answers_and_labels_have_the_likelihood_of_whole_passes(kind: str) -> None:
    dtype = torch.bfloat16 if kind == "kernels" else torch.float32
    prompts = [[1, 2, 30, 40, 50, 60, 70], [1, 2, 31], [1, 2, 32, 42, 52]]
    decoder: Decoder
    if kind == "plain":
        decoder = PlainDecoder(model_of(4, 2, dtype=dtype))
    else:
        decoder = FusedDecoder(model_of(4, 2, dtype=dtype), [1, 2])
        assert (decoder.by_kernels is not None) == (kind == "kernels")
    with torch.inference_mode():
        kept = KeptRows()
        tokens = greedy(decoder.read(prompts, room=6), 3, 6, frozenset(), kept=kept)
        assert greedy(decoder.read(prompts, room=6), 3, 6, frozenset()) == tokens
        contexts = [[*prompt, *new[:n]] for prompt, new, n in zip(prompts, tokens, (5, 0, 3), strict=True)]
        kinds = [LABELS, LABELS, ((3, 9), (2, 9))]
        found = decoder.label_logs(contexts, [kept.memories[row] for row in range(3)], kinds)
    exact = model_of(4, 2, dtype=torch.float32)
    for context, labels, logs in zip(contexts, kinds, found, strict=True):
        wanted = [whole_pass(exact, context, label) for label in labels]
        assert logs == pytest.approx(wanted, abs=0.15 if kind == "kernels" else 1e-4)
    for prompt, new, mean in zip(prompts, tokens, kept.mean_logs(tokens), strict=True):
        wanted = whole_pass(exact, prompt, tuple(new)) / len(new)
        assert mean == pytest.approx(wanted, abs=0.05 if kind == "kernels" else 1e-4)


def test_a_beginning_that_labels_share_is_one_node() -> None:
    root = trie_of(LABELS)
    assert set(root.after) == {5, 8, 6, 4}
    assert set(root.after[5].after) == {9, 7}
    assert root.after[6].ends == [4]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_answers_stay_as_they_are_and_have_the_likelihood_of_each_label(
    tmp_path: Path, tiny_model: ModelRef, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    spec = DecodingSpec.model_validate(SPEC.model_dump() | {"dtype": dtype})
    prompts = prompt_set(tmp_path / "prompts")

    def answers(name: str, labels: LabelSet | None) -> list[dict[str, Any]]:
        out, scratch = tmp_path / name, tmp_path / f"{name}-scratch"
        out.mkdir()
        scratch.mkdir()
        found = generate_answers(
            prompts=prompts, model=tiny_model, decoding=spec, labels=labels, out=out, scratch=scratch
        )
        return pq.read_table(found.root / "predictions.parquet").to_pylist()

    plain = answers("plain", None)
    written = sorted({row["text"][2:5] for row in plain})
    assert len(written) > 2
    labels = LabelSet(
        root=tmp_path, field="category", pattern=r"^(?s:..)(?P<category>(?s:...))", labels=(*written[1:], "zebra")
    )
    found: dict[str, tuple[list[int], LabelPlace]] = {}
    find = LabelFinder.find

    def recorded(self: LabelFinder, tokens: list[int], text: str) -> LabelPlace | None:
        place = find(self, tokens, text)
        if place is not None:
            found[text] = tokens, place
        return place

    monkeypatch.setattr(LabelFinder, "find", recorded)
    rows = answers("labels", labels)
    assert [{key: row[key] for key in plain[0]} for row in rows] == plain
    assert all(row["answer_log"] < 0 for row in rows)
    assert {row["text"] for row in rows if row["label_logs"] is not None} == set(found)
    assert len(found) > 1
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    model = load_base(tiny_model, dtype=torch.float32)
    for item, row in zip(read_items(prompts, codec), rows, strict=True):
        if row["label_logs"] is not None:
            tokens, place = found[row["text"]]
            context = [*item.prompt, *tokens[: place.n_before]]
            wanted = [whole_pass(model, context, label) for label in place.labels]
            assert row["label_logs"] == pytest.approx(wanted, abs=0.3 if dtype == "bfloat16" else 1e-3)


def test_a_label_is_found_by_its_tokens_up_to_the_one_that_closes_it(tiny_model: ModelRef, tmp_path: Path) -> None:
    codec = ChatCodec.of(load_tokenizer(tiny_model), "instruction")
    labels = LabelSet(
        root=tmp_path, field="category", pattern=r"\[(?P<category>[a-z_]+)\]", labels=("card", "card_lost")
    )
    finder = LabelFinder(labels, codec)
    text = "Sorry. [card] Bye"
    tokens = codec.answer_ids(text)
    place = finder.find(tokens, text)
    assert place is not None
    card, lost = place.labels
    assert tuple(tokens[place.n_before : place.n_before + len(card)]) == card
    assert lost[: len(card)] != card
    for other in ("Sorry. [cash] Bye", "Sorry.", "[card] or [card_lost]"):
        assert finder.find(codec.answer_ids(other), other) is None
