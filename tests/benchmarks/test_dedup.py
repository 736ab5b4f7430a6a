"""The deduplication benchmark: accuracy checked by hand, its contestants, and a corpus with the claimed properties."""

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.dedup import (
    CONTESTANTS,
    LIMIT_S,
    QUICK,
    first_of_each,
    not_run,
    pair_accuracy,
    plan,
    planted_share,
    removal_accuracy,
    share_of,
)
from benchmarks.dedup_corpus import SIZES, Size, Ticket, by_brute_force, by_sql, corpus_file, write_tickets
from benchmarks.engines.dedup import LIBRARIES, write_answer
from benchmarks.measure import PEERS, MissingError, find_python, pinned

TRUTH = np.array([0, 0, 0, 3, 3, 5])
"""Four pairs: three in the first cluster, one in the second; three tickets should be removed."""


@pytest.mark.parametrize(
    ("clusters", "accuracy"),
    [
        ([0, 0, 0, 3, 3, 5], (1.0, 1.0)),
        ([7, 7, 7, 2, 2, 0], (1.0, 1.0)),
        ([0, 0, 2, 3, 3, 5], (1.0, 0.5)),
        ([0, 0, 0, 0, 0, 5], (0.4, 1.0)),  # one cluster of five tickets has ten pairs, four of them right
        ([0, 1, 2, 3, 4, 5], (1.0, 0.0)),
    ],
    ids=["the truth", "other ids", "a cluster in two", "two clusters in one", "nothing joined"],
)
def test_precision_and_recall_of_pairs(clusters: list[int], accuracy: tuple[float, float]) -> None:
    assert pair_accuracy(np.array(clusters), TRUTH) == accuracy


@pytest.mark.parametrize(
    ("removed", "accuracy"),
    [
        ({1, 2, 4}, (1.0, 1.0)),
        ({1, 2, 3, 4}, (3 / 4, 1.0)),  # the cluster of 3 and 4 keeps none, so one of its two is wrongly removed
        ({2, 4}, (1.0, 2 / 3)),
        ({1, 2, 4, 5}, (3 / 4, 1.0)),
    ],
    ids=["the truth", "all of a cluster", "a duplicate stays", "a unique ticket"],
)
def test_precision_and_recall_of_removals(removed: set[int], accuracy: tuple[float, float]) -> None:
    keep = np.array([row not in removed for row in range(6)])
    assert removal_accuracy(keep, TRUTH) == pytest.approx(accuracy)


def test_the_first_ticket_of_each_cluster_is_kept() -> None:
    assert first_of_each(np.array([4, 4, 1, 4, 1])).tolist() == [True, False, True, False, False]


def test_flags_are_judged_ticket_by_ticket() -> None:
    assert share_of(np.array([True, True, False, False]), np.array([True, False, True, False])) == (0.5, 0.5)


def test_planted_copies_count_within_their_band_and_with_their_original() -> None:
    original, kind = np.array([0, 0, 0, 1, 1]), np.array(["original", "near", "near", "near", "original"])
    jaccard = np.array([1.0, 0.75, 0.72, 0.9, 1.0])
    clusters = np.array([9, 9, 2, 3, 3])
    assert planted_share(clusters, original, kind, jaccard, 0.7, 0.8) == 0.5
    assert planted_share(clusters, original, kind, jaccard, 0.8, 1.0) == 1.0
    assert np.isnan(planted_share(clusters, original, kind, jaccard, 0.1, 0.2))


def test_every_engine_has_a_function_and_a_list_of_pins() -> None:
    for engine in CONTESTANTS:
        if engine.environment == "project":
            assert engine.name.split()[0].lower() in LIBRARIES, engine.name
        else:
            assert engine.environment in LIBRARIES, engine.name
            assert pinned(engine.environment), engine.name


def test_the_lists_pin_exact_versions_without_addresses() -> None:
    for path in PEERS.glob("*.txt"):
        for line in path.read_text().splitlines():
            assert re.fullmatch(r"[a-z0-9._-]+==[A-Za-z0-9.]+", line), f"{path.name}: {line}"


def test_every_corpus_has_a_limit_and_every_planned_corpus_exists() -> None:
    assert set(LIMIT_S) == set(SIZES)
    assert {name for engine in CONTESTANTS for name in engine.rounds} <= set(SIZES)


def test_an_engine_left_out_of_a_corpus_gives_a_reason() -> None:
    everywhere = {"20k", "200k", "1m", "flood"}
    reasons = "\n".join(not_run())
    assert "NeMo Curator" in reasons
    for engine in CONTESTANTS:
        assert set(engine.rounds) == everywhere or f"{engine.name}: " in reasons, engine.name


def test_the_quick_plan_has_tunegate_the_baseline_and_rensa() -> None:
    chosen = plan("200k", quick=True)
    assert {engine.environment for engine in chosen} == {"project", "rensa"}
    assert {engine.name for engine in chosen if engine.environment == "project"} == set(QUICK)


def test_a_missing_python_is_named() -> None:
    assert find_python(f"{sys.version_info.major}.{sys.version_info.minor}") == sys.executable
    with pytest.raises(MissingError, match=r"no Python 3\.99"):
        find_python("3.99")


SMALL = Size("small", 600)


@pytest.fixture(scope="module")
def tickets() -> list[Ticket]:
    return write_tickets(SMALL)


def test_equal_seeds_give_equal_texts_and_other_seeds_others(tickets: list[Ticket]) -> None:
    assert write_tickets(SMALL) == tickets
    assert write_tickets(SMALL, seed=1) != tickets


def test_the_texts_of_this_version_are_the_same_on_every_machine(tickets: list[Ticket]) -> None:
    digest = hashlib.sha256("\0".join(ticket.text for ticket in tickets).encode()).hexdigest()
    assert digest == "4c58dc2204fb7394fe09df6aec40229f9fc6c505965a422e5a60ff12a5b4445a", (
        "the texts changed: raise benchmarks.dedup_corpus.VERSION"
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


def test_the_flood_is_one_auto_reply_with_a_changed_id_and_word() -> None:
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


def test_the_oracle_puts_the_flood_into_one_cluster(tmp_path: Path) -> None:
    corpus = corpus_file(Size("wave", 300, n_flood=200), tmp_path)
    kind = np.array(pq.read_table(corpus)["kind"].to_pylist())
    assert len(set(by_brute_force(corpus, chunk=64)[kind == "flood"])) == 1


def test_every_corpus_of_a_command_has_its_own_file_name() -> None:
    assert all(name == size.name for name, size in SIZES.items())


def _three_word_runs(text: str) -> set[str]:
    """Lower-cased letters and digits in threes, independent of the corpus's own code."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return {" ".join(words[start : start + 3]) for start in range(len(words) - 2)}


@pytest.mark.parametrize("values", [np.array([0, 0, 2]), np.array([True, False, True]), [True, False, False]])
def test_an_answer_has_one_row_per_ticket(tmp_path: Path, values: np.ndarray | list[bool]) -> None:
    write_answer(tmp_path / "answer.parquet", "found", values)
    answer = pq.read_table(tmp_path / "answer.parquet")
    assert answer.to_pydict() == {"id": [0, 1, 2], "found": list(values)}
