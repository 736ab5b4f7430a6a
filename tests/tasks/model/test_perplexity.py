"""Perplexity in batches equals that of one row at a time, in any order; rows without a body have none."""

import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Regex, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from schemas.artifacts import ModelRef, PromptSet, RowCounts, TicketTable, TrainedRef
from schemas.curation_steps import QualityStep
from schemas.errors import DataError
from schemas.evaluation import DecodingSpec
from tasks.curate.quality import score_quality
from tasks.curate.rows import read_rows, ticket_table, write_removed, write_tickets
from tasks.model import perplexity
from tasks.model.divergence import measure_divergence
from tasks.model.perplexity import measure_perplexity

BODIES = {
    "a": "Hello, my parcel NB-10234 has not arrived.",
    "b": "My parcel",
    "c": "x",
    "d": "Hello, my parcel NB-10234 has not arrived.",
    "e": "The lamp does not turn on after the update; what shall I do next? " * 12,
    "f": "Überraschung: 荷物が届いていません 👍",
    "g": None,
    "h": "",
    "i": "it was billed twice<|im_end|> yes",
}
MAX_TOKENS = 60


def tickets(root: Path, names: str) -> TicketTable:
    root.mkdir()
    rows = [
        {"ticket_id": name, "body": BODIES[name], "source": "test", "source_line": line}
        for line, name in enumerate(names)
    ]
    n_rows = write_tickets(ticket_table(rows), root)
    return TicketTable(root=root, rows=RowCounts(n_in=n_rows, n_out=n_rows))


def plain(model: ModelRef) -> dict[str, float]:
    """One row at a time, by cross-entropy over all logits."""
    loaded = AutoModelForCausalLM.from_pretrained(model.root).eval()
    tokenizer = AutoTokenizer.from_pretrained(model.root)
    found = {}
    for name, body in BODIES.items():
        if body:
            ids = tokenizer.encode(body, add_special_tokens=False)[:MAX_TOKENS]
            whole = torch.tensor([[tokenizer.bos_token_id, *ids]])
            with torch.no_grad():
                logits = loaded(whole).logits[0, :-1]
            found[name] = torch.nn.functional.cross_entropy(logits, whole[0, 1:]).exp().item()
    return found


@pytest.mark.parametrize("batch_tokens", [1, 100, 4096])
def test_batches_give_the_values_of_a_plain_loop(tiny_model: ModelRef, tmp_path: Path, batch_tokens: int) -> None:
    found = measure_perplexity(
        tickets=tickets(tmp_path / "in", "abcdefghi"),
        model=tiny_model,
        out=tmp_path,
        max_tokens=MAX_TOKENS,
        batch_tokens=batch_tokens,
        dtype="float32",
    )
    table = pq.read_table(found.root / "perplexities.parquet")
    rows = {row["ticket_id"]: row["perplexity"] for row in table.to_pylist()}
    assert list(rows) == sorted(BODIES)
    assert {name for name, value in rows.items() if value is None} == {"g", "h"}
    wanted = plain(tiny_model)
    assert {name: rows[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
    assert rows["a"] == rows["d"]
    assert found.n_tickets == 9
    assert found.n_tokens > MAX_TOKENS


def test_values_do_not_depend_on_the_order_of_rows(tiny_model: ModelRef, tmp_path: Path) -> None:
    names = list(BODIES)
    random.Random(3).shuffle(names)
    written = []
    for number, order in enumerate(("abcdefghi", "".join(names))):
        out = tmp_path / f"out{number}"
        out.mkdir()
        table = tickets(tmp_path / f"in{number}", order)
        found = measure_perplexity(tickets=table, model=tiny_model, out=out, max_tokens=MAX_TOKENS, dtype="float32")
        written.append((found.root / "perplexities.parquet").read_bytes())
    assert written[0] == written[1]


def test_a_body_longer_than_the_context_is_cut(tiny_model: ModelRef, tmp_path: Path) -> None:
    table = tickets(tmp_path / "in", "e")
    short = tiny_model.model_copy(update={"context_length": 40})
    found = measure_perplexity(tickets=table, model=short, out=tmp_path, dtype="float32")
    assert found.n_tokens == 39


def test_without_a_body_no_model_is_loaded(tiny_model: ModelRef, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for file in tiny_model.root.iterdir():
        if "safetensors" not in file.name:
            (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    bare = tiny_model.model_copy(update={"root": tmp_path / "model"})
    found = measure_perplexity(tickets=tickets(tmp_path / "in", "gh"), model=bare, out=tmp_path)
    assert (found.n_tickets, found.n_tokens) == (2, 0)


@pytest.mark.parametrize("function", ["_encoded", "perplexities_of"])
def test_a_body_on_which_the_model_fails_is_quarantined(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    table = tickets(tmp_path / "in", "abcdefghi")
    write_removed([], table.root)
    (tmp_path / "sound").mkdir()
    sound = measure_perplexity(tickets=table, model=tiny_model, max_tokens=MAX_TOKENS, out=tmp_path / "sound")
    real = getattr(perplexity, function)
    bad = AutoTokenizer.from_pretrained(tiny_model.root).encode(BODIES["b"], add_special_tokens=False)

    def planted(*given: object, **named: object) -> object:
        if any(
            item == BODIES["b"] or item == tuple(bad) for item in (given[0] if function == "_encoded" else given[1])
        ):  # type: ignore[union-attr]
            raise KeyError("my secret text")
        return real(*given, **named)

    monkeypatch.setattr(perplexity, function, planted)
    for folder in ("faulty", "scored"):
        (tmp_path / folder).mkdir()
    found = measure_perplexity(tickets=table, model=tiny_model, max_tokens=MAX_TOKENS, out=tmp_path / "faulty")
    rows = pq.read_table(found.root / "perplexities.parquet").to_pylist()
    assert [(row["ticket_id"], row["fault"]) for row in rows if row["fault"]] == [("b", "KeyError")]
    expected = {row["ticket_id"]: row for row in pq.read_table(sound.root / "perplexities.parquet").to_pylist()}
    assert all(row["perplexity"] == expected[row["ticket_id"]]["perplexity"] for row in rows if not row["fault"])
    scored = score_quality(
        tickets=table, step=QualityStep(uses="quality", perplexity=True), perplexities=found, out=tmp_path / "scored"
    )
    (removed,) = read_rows(scored.removed).to_pylist()
    assert (removed["ticket_id"], removed["outcome"]) == ("b", "quarantined")
    assert (removed["code"], removed["reason"]) == ("TG0218", "KeyError in step perplexity.")
    assert (scored.rows.n_in, scored.rows.n_out, scored.rows.n_quarantined) == (9, 8, 1)


def test_a_body_on_which_the_tokenizer_gives_up_is_quarantined(
    tiny_model: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = never_ending(tiny_model, tmp_path / "model")
    monkeypatch.setitem(BODIES, "z", "x" * 60)
    table = tickets(tmp_path / "in", "az")
    write_removed([], table.root)
    (tmp_path / "scored").mkdir()
    found = measure_perplexity(tickets=table, model=hostile, out=tmp_path, dtype="float32")
    measured = {row["ticket_id"]: row for row in pq.read_table(found.root / "perplexities.parquet").to_pylist()}
    assert (measured["z"]["perplexity"], measured["z"]["fault"]) == (None, "TG0314")
    assert measured["a"]["perplexity"] > 1
    scored = score_quality(
        tickets=table, step=QualityStep(uses="quality", perplexity=True), perplexities=found, out=tmp_path / "scored"
    )
    (removed,) = read_rows(scored.removed).to_pylist()
    assert (removed["ticket_id"], removed["reason"]) == ("z", "TG0314 in step perplexity.")


def test_a_tokenizer_that_gives_up_on_a_neutral_text_is_a_named_error(tiny_model: ModelRef, tmp_path: Path) -> None:
    hostile = never_ending(tiny_model, tmp_path / "model")
    pq.write_table(pa.table({"text": ["Hello", "x" * 60]}), tmp_path / "neutral.parquet")
    suite = PromptSet.model_construct(root=tmp_path)
    with pytest.raises(DataError, match="TG0314"):
        measure_divergence(
            tmp_path,
            suite=suite,
            model=hostile,
            trained=TrainedRef.model_construct(),
            decoding=DecodingSpec(max_new_tokens=8, batch_size=1, threads=1, dtype="float32"),
        )


def never_ending(model: ModelRef, folder: Path) -> ModelRef:
    """A copy of the model whose tokenizer gives up on sixty times x."""
    shutil.copytree(model.root, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    never = pre_tokenizers.Split(Regex(r"(x+x+)+y"), "isolated")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([never, pre_tokenizers.ByteLevel()])
    tokenizer.save_pretrained(folder)
    return model.model_copy(update={"root": folder})
