"""The benchmark's corpus is the same everywhere, and what it says of its planted copies is true."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.corpus import SIZES, Size, Ticket, corpus_file, write_tickets
from benchmarks.oracle import by_brute_force, by_sql

SMALL = Size("small", 600)


@pytest.fixture(scope="module")
def tickets() -> list[Ticket]:
    return write_tickets(SMALL)


def test_equal_seeds_give_equal_texts_and_other_seeds_others(tickets: list[Ticket]) -> None:
    assert write_tickets(SMALL) == tickets
    assert write_tickets(SMALL, seed=1) != tickets


def test_the_texts_are_those_of_this_version_on_every_machine(tickets: list[Ticket]) -> None:
    digest = hashlib.sha256("\0".join(ticket.text for ticket in tickets).encode()).hexdigest()
    assert digest == "4c58dc2204fb7394fe09df6aec40229f9fc6c505965a422e5a60ff12a5b4445a", (
        "the texts changed: raise benchmarks.corpus.VERSION"
    )


def test_planted_copies_have_the_similarity_they_claim(tickets: list[Ticket]) -> None:
    originals = {ticket.original: ticket.text for ticket in tickets if ticket.kind == "original"}
    near = [ticket for ticket in tickets if ticket.kind == "near" and ticket.original in originals]
    assert len(near) > 50
    for ticket in near:
        one, two = (_three_word_runs(text) for text in (originals[ticket.original], ticket.text))
        shared = sum(run in two for run in one)
        assert ticket.jaccard == pytest.approx(shared / (len(one) + len(two) - shared))
    assert min(ticket.jaccard for ticket in near) < 0.5
    assert max(ticket.jaccard for ticket in near) > 0.9


def test_exact_copies_repeat_every_byte_and_disguised_ones_every_word(tickets: list[Ticket]) -> None:
    originals = {ticket.original: ticket.text for ticket in tickets if ticket.kind == "original"}
    kinds = {"exact": 0, "disguised": 0}
    for ticket in tickets:
        if ticket.kind in kinds and ticket.original in originals:
            kinds[ticket.kind] += 1
            whole = originals[ticket.original]
            assert (ticket.text == whole) == (ticket.kind == "exact")
            assert _three_word_runs(ticket.text) == _three_word_runs(whole)
    assert all(kinds.values())


def test_texts_are_as_long_as_real_tickets(tickets: list[Ticket]) -> None:
    lengths = [len(ticket.text.split()) for ticket in tickets]
    assert 90 < np.mean(lengths) < 110
    assert min(lengths) > 20
    assert max(lengths) < 200


def test_the_flood_is_one_auto_reply_with_an_id_and_a_word_changed() -> None:
    tickets = write_tickets(Size("wave", 60, n_flood=30))
    flood = [ticket for ticket in tickets if ticket.kind == "flood"]
    assert len(tickets) == 60
    assert len({ticket.text for ticket in flood}) == 30
    assert all(ticket.jaccard > 0.8 for ticket in flood)


def test_both_oracles_give_the_same_clusters(tmp_path: Path) -> None:
    corpus = corpus_file(Size("both", 800), tmp_path)
    clusters = by_brute_force(corpus)
    assert (by_sql(corpus) == clusters).all()
    jaccard, kind, original = (pq.read_table(corpus)[name].to_pylist() for name in ("jaccard", "kind", "original"))
    first = {number: row for row, number in enumerate(original) if kind[row] == "original"}
    planted = [row for row, number in enumerate(original) if jaccard[row] >= 0.7 and number in first]
    assert all(clusters[row] == clusters[first[original[row]]] for row in planted)
    assert 1 < len(set(clusters)) < 800


def test_the_oracle_finds_the_flood_in_one_cluster(tmp_path: Path) -> None:
    corpus = corpus_file(Size("wave", 300, n_flood=200), tmp_path)
    kind = np.array(pq.read_table(corpus)["kind"].to_pylist())
    assert len(set(by_brute_force(corpus, chunk=64)[kind == "flood"])) == 1


def test_every_corpus_of_a_command_has_a_name_for_its_file() -> None:
    assert all(name == size.name for name, size in SIZES.items())


def _three_word_runs(text: str) -> set[str]:
    """Without the corpus's own code: letters and digits, lower-cased, in threes."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return {" ".join(words[start : start + 3]) for start in range(len(words) - 2)}
