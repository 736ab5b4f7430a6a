"""Pairs alike in meaning are listed and never merged; opposites show why."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from schemas.curation_steps import DedupStep, SemanticSpec
from schemas.errors import ConfigError
from tasks.curate import dedup
from tasks.curate.similarity import semantic
from tasks.curate.similarity.semantic import embed, similar_meanings

PARAPHRASES = (
    ("How can I get my money back?", "I would like a refund for this purchase."),
    ("My parcel has not arrived yet.", "Still waiting for the delivery of what I ordered."),
    ("I forgot my password and am locked out.", "Cannot sign in any more, please send me new login details."),
    ("The app keeps crashing when I open it.", "Every time the program starts it closes by itself at once."),
    ("You charged me twice for one order.", "There are two debits on my card for a single purchase."),
    ("Please delete my account.", "Remove all of my data and close my profile for good."),
    ("Where can I see my invoices?", "I need a copy of last month's bill."),
    ("The lamp does not turn on.", "No light comes out of the device after plugging it in."),
    ("Do you ship to Norway?", "Is delivery abroad to Scandinavia possible?"),
    ("Your website is very slow today.", "Pages take for ever to load this morning."),
    ("I want to talk to a human.", "Let me speak with a real person instead of the bot."),
    ("The jacket is too small, can I swap it?", "I need a larger size of the coat I bought."),
)
OPPOSITES = (
    ("Please cancel my subscription.", "Please reactivate my subscription."),
    ("How do I enable two-factor authentication?", "How do I disable two-factor authentication?"),
    ("I was charged 15 dollars instead of 51.", "I was charged 51 dollars instead of 15."),
    ("The update fixed my problem.", "The update caused my problem."),
    ("I can log in on my phone but not on my laptop.", "I can log in on my laptop but not on my phone."),
    ("My order arrived before the promised date.", "My order arrived after the promised date."),
    ("Please upgrade my plan from basic to premium.", "Please downgrade my plan from premium to basic."),
    ("I did receive the confirmation mail.", "I did not receive the confirmation mail."),
    ("Increase the limit of my credit card.", "Decrease the limit of my credit card."),
    ("The refund is higher than expected.", "The refund is lower than expected."),
    ("Stop sending me newsletters.", "Start sending me newsletters."),
    ("The discount code was accepted.", "The discount code was rejected."),
)


def cosines(pairs: tuple[tuple[str, str], ...]) -> list[float]:
    vectors = embed([text for pair in pairs for text in pair])
    return [float(one @ two) for one, two in zip(vectors[::2], vectors[1::2], strict=True)]


@pytest.mark.needs_extra("semantic")
def test_opposites_score_higher_than_paraphrases_so_nothing_may_be_merged() -> None:
    alike, opposite = cosines(PARAPHRASES), cosines(OPPOSITES)
    assert np.mean(opposite) > np.mean(alike) + 0.2
    assert min(opposite) > np.median(alike)


@pytest.mark.needs_extra("semantic")
def test_gold_duplicates_of_a_bug_tracker_score_higher_than_other_pairs(shared_data: Path) -> None:
    folder = shared_data / "gitbugs"
    with (folder / "hadoop_bugs.csv").open(newline="", encoding="utf-8") as stream:
        texts = {row["Issue id"]: row["Summary"] for row in csv.DictReader(stream)}
    with (folder / "hadoop_bugs-combined.csv").open(newline="", encoding="utf-8") as stream:
        gold = [
            (row["Issue id"], other.strip())
            for row in csv.DictReader(stream)
            for other in (row["Duplicate id"] or "").split(",")
            if row["Issue id"] in texts and other.strip() in texts and other.strip() != row["Issue id"]
        ]
    assert len(gold) >= 50
    duplicates = cosines(tuple((texts[one], texts[two]) for one, two in gold))
    # The same texts, each next to the duplicate of another.
    others = cosines(tuple((texts[a], texts[b]) for (a, _), (_, b) in pairwise(gold)))
    assert np.median(duplicates) > np.quantile(others, 0.9)


@pytest.mark.needs_extra("semantic")
def test_pairs_are_those_of_all_comparisons_best_first_and_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for pair in (*PARAPHRASES, *OPPOSITES) for text in pair] + ["", "\u200b"]
    vectors = embed(texts).astype(np.float64)
    expected = sorted(
        (-round(float(vectors[a] @ vectors[b]), 6), a, b) for a in range(len(texts)) for b in range(a + 1, len(texts))
    )
    expected = [pair for pair in expected if -pair[0] >= 0.5]
    assert len(expected) > 10
    monkeypatch.setattr(semantic, "BLOCK", 7)
    for max_pairs in (3, 10, 1000):
        found = similar_meanings(texts, threshold=0.5, max_pairs=max_pairs)
        listed = list(zip((-found.cosine).tolist(), found.left.tolist(), found.right.tolist(), strict=True))
        assert listed == expected[:max_pairs]
    assert len(similar_meanings([], threshold=0.5, max_pairs=3).left) == 0


@pytest.mark.needs_extra("semantic")
def test_dedup_lists_pairs_and_merges_none_of_them(make_tickets: Any, new_folder: Any, rows_of: Any) -> None:
    rows = [{"ticket_id": f"{number:02d}", "body": text} for number, text in enumerate(t for p in OPPOSITES for t in p)]
    rows.append({"ticket_id": "24", "body": OPPOSITES[0][0]})  # an exact duplicate: merged, so in no pair
    spec = SemanticSpec(threshold=0.8, max_pairs=100)
    step = DedupStep(uses="dedup", prefer="oldest", semantic=spec)
    out = new_folder()
    result = dedup.drop_duplicates(tickets=make_tickets(rows), step=step, out=out)
    assert list(rows_of(result.removed)) == ["24"]
    pairs = pq.read_table(out / "semantic_pairs.parquet").to_pylist()
    assert {("02", "03"), ("04", "05")} <= {(pair["ticket_id"], pair["other_id"]) for pair in pairs}
    assert all(0.8 <= pair["cosine"] <= 1 and pair["ticket_id"] < pair["other_id"] for pair in pairs)
    assert result.notes["semantic_pairs"] == len(pairs)


def test_without_the_extra_the_step_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, make_tickets: Any, new_folder: Any
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    step = DedupStep(uses="dedup", semantic=SemanticSpec())
    with pytest.raises(ConfigError, match=r"TG0112.*wordllama"):
        dedup.drop_duplicates(tickets=make_tickets([]), step=step, out=new_folder())
