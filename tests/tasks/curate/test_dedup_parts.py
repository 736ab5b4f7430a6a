"""Redaction and dedup in parts give the bytes of one process, however many parts there are."""

import random
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.curation_steps import DedupStep, RedactStep
from schemas.errors import DataError
from tasks.curate import dedup_parts
from tasks.curate.dedup import drop_duplicates
from tasks.curate.dedup_parts import decide_in_parts
from tasks.curate.redact import redact_tickets
from tasks.curate.redaction import batches
from tasks.curate.rows import ticket_table
from tasks.curate.similarity.families import decide
from tasks.curate.similarity.shingles import shingles_of_texts
from tasks.storage.files import seal
from tests.support.plain_spread import PlainSpread

START = datetime(2026, 6, 1)
WORDS = [f"w{number}" for number in range(12)]
FIELDS = ("kept", "score", "exact", "empty", "component")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup_parts, "LEAST_ROWS", 1)
    monkeypatch.setattr(batches, "BATCH_ROWS", 16)


def step_of(**settings: Any) -> DedupStep:
    return DedupStep(uses="dedup", ignore=(), **settings)


def in_batches(table: pa.Table) -> Iterator[pa.Table]:
    """As row groups come: their borders are not those of parts."""
    return (table.slice(start, 7) for start in range(0, max(1, table.num_rows), 7))


def both_ways(texts: list[str], order: list[int], step: DedupStep, n_parts: int) -> tuple[Any, Any]:
    """The decisions of one process and those of so many parts."""
    sets = shingles_of_texts(texts, n_words=step.shingle_words)
    one = decide(
        sets, order=np.array(order, np.int64), near=step.near, threshold=step.threshold,
        max_comparisons=step.max_comparisons, where="a test",
    )  # fmt: skip
    rows = [{"ticket_id": str(row), "source": "t", "source_line": row, "body": text} for row, text in enumerate(texts)]
    table = ticket_table(rows).select(["subject", "body"])
    spread = PlainSpread(n_parts)
    return one, decide_in_parts(in_batches(table), step, order=np.array(order, np.int64), spread=spread, where="a test")


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Texts that stem from each other by a few changed words (chains), and others: short, empty, equal, unlike."""
    texts = draw(st.lists(st.sampled_from(["", "!?", "w1", "w1 w2", "w3 w4 w5"]), max_size=4))
    for _ in range(draw(st.integers(1, 4))):
        text = draw(st.lists(st.sampled_from(WORDS), min_size=4, max_size=24))
        for _ in range(draw(st.integers(1, 8))):
            texts.append(" ".join(text))
            if draw(st.booleans()):
                text = list(text)
                text[draw(st.integers(0, len(text) - 1))] = draw(st.sampled_from([*WORDS, "rare1", "rare2", "rare3"]))
    return texts


@given(
    texts=families(),
    n_parts=st.integers(1, 7),
    threshold=st.sampled_from([0.3, 0.5, 0.7, 0.8, 0.95]),
    n_words=st.integers(1, 3),
    near=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_number_of_parts_decides_as_one_process(
    texts: list[str], n_parts: int, threshold: float, n_words: int, near: bool, seed: int
) -> None:
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    step = step_of(threshold=threshold, shingle_words=n_words, near=near)
    one, many = both_ways(texts, order, step, n_parts)
    for field in FIELDS:
        assert getattr(one, field).tolist() == getattr(many, field).tolist(), field


def test_no_rows_are_decided_in_parts_too() -> None:
    one, many = both_ways([], [], step_of(), 4)
    assert [getattr(many, field).tolist() for field in FIELDS] == [getattr(one, field).tolist() for field in FIELDS]


def long_texts(n_families: int, seed: int) -> list[str]:
    """Tickets of 40 words from a small vocabulary: many similar ones, some in chains of several steps."""
    chance = random.Random(seed)
    texts = []
    for _ in range(n_families):
        text = [f"v{chance.randrange(400)}" for _ in range(40)]
        for _ in range(chance.choice([1, 1, 2, 3, 9])):
            texts.append(" ".join(text))
            text[chance.randrange(40)] = f"v{chance.randrange(400)}"
    chance.shuffle(texts)
    return texts


def test_thousands_of_texts_decide_as_one_process() -> None:
    texts = long_texts(1500, seed=5)
    one, many = both_ways(texts, list(range(len(texts))), step_of(threshold=0.7), 8)
    assert (one.kept != np.arange(len(texts))).sum() > 500
    for field in FIELDS:
        assert getattr(one, field).tolist() == getattr(many, field).tolist(), field


@pytest.fixture
def mixed_tickets(make_tickets: Any) -> Any:
    """300 tickets with mail, replies, personal data and families of near duplicates."""
    chance = random.Random(3)
    rows = []
    for number, text in enumerate(long_texts(120, seed=2)):
        body = f"Hello,\n\n{text} call +49 151 2345678{number % 10}\n\nBest regards\nAnn Miller"
        rows.append(
            {
                "ticket_id": f"t{number:04d}",
                "subject": None if number % 3 else f"order for user{number % 7}@example.org",
                "body": None if number % 50 == 49 else body,
                "reply": f"Dear Ann, wrote to user{number}@example.org" if number % 2 else None,
                "messages": '[{"role": "user", "content": "user@example.org"}]' if number % 5 == 0 else None,
                "created_at": START + timedelta(hours=chance.randrange(500)),
            }
        )
    return make_tickets(rows)


@pytest.mark.parametrize("n_parts", [3, 16])
@pytest.mark.parametrize("compare", ["question", "question_and_answer"])
def test_dedup_in_parts_seals_the_same_folder(mixed_tickets: Any, new_folder: Any, n_parts: int, compare: str) -> None:
    step = DedupStep(uses="dedup", threshold=0.6, compare=compare)
    one = drop_duplicates(tickets=mixed_tickets, step=step, out=new_folder())
    many = drop_duplicates(tickets=mixed_tickets, step=step, out=new_folder(), spread=PlainSpread(n_parts))
    assert seal(one.root) == seal(many.root)
    assert (one.rows, one.notes) == (many.rows, many.notes)
    assert one.rows.n_merged > 20


@pytest.mark.parametrize("n_parts", [3, 16])
def test_redaction_in_parts_seals_the_same_folder(
    mixed_tickets: Any, new_folder: Any, n_parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_PSEUDONYM_KEY", "0123456789abcdef")
    step = RedactStep(uses="redact", pseudonymise=("customer_id",))
    one = redact_tickets(tickets=mixed_tickets, step=step, out=new_folder())
    spread = PlainSpread(n_parts)
    many = redact_tickets(tickets=mixed_tickets, step=step, out=new_folder(), spread=spread)
    assert seal(one.root) == seal(many.root)
    assert (one.rows, one.notes) == (many.rows, many.notes)
    assert one.notes["redacted_email"] > 50
    assert spread.n_done >= min(n_parts, 10)


def test_a_crowded_family_is_named_as_in_one_process(make_tickets: Any, new_folder: Any) -> None:
    chance = random.Random(1)
    shared = [f"s{number}" for number in range(30)]
    texts = [" ".join([*shared, *(f"x{chance.randrange(40)}" for _ in range(14))]) for _ in range(120)]
    tickets = make_tickets([{"ticket_id": f"t{number:03d}", "body": text} for number, text in enumerate(texts)])
    step = DedupStep(uses="dedup", threshold=0.75, shingle_words=1, max_comparisons=1000)
    with pytest.raises(DataError, match="TG0250") as caught:
        drop_duplicates(tickets=tickets, step=step, out=new_folder(), spread=PlainSpread(4))
    assert int(re.findall(r"(\d+) tickets like t0", caught.value.message)[0]) > 20
