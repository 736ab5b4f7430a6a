"""Estimates for sizes that cannot be run: the simulated shuffle counts correctly, the arithmetic is right."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale_model import (
    Counting,
    Curation,
    buckets_met,
    curation_row,
    measured_curation,
    moved_at,
    play,
    table_rows,
    training_row,
)
from schemas.curation_steps import DedupStep
from tasks.curate.dedup_parts import decide_in_parts
from tasks.curate.rows import ticket_table, write_tickets
from tasks.curate.similarity.families import decide
from tasks.curate.similarity.shingles import shingles_of_texts

TABLE = """
| tickets | step | engine | wall s | CPU s driver | CPU s nodes | without the store |
|---|---|---|---|---|---|---|
| 1,000 | redact | ray | 1.0 | 9.0 | 9.0 | 900 |
| 2,000 | redact | ray | 1.0 | 2.0 | 6.0 | 1,000 |
| 1,000 | dedup | ray | 1.0 | 2.0 | 4.0 | 1,500 |
| 2,000 | dedup | local | 1.0 | 7.0 | 0.0 | 8,000 |
| 2,000 | dedup | ray | 1.0 | 4.0 | 8.0 | 2,000 |
| 5,000 | dedup | ray | did not end: over 900 s | | | |
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 tickets, of which a third are near copies of another third."""
    rng = np.random.default_rng(5)
    words = np.array([f"word{number}" for number in range(4000)])
    bodies = [" ".join(rng.choice(words, 40)) for _ in range(2000)]
    bodies += [f"{body} again" for body in bodies[:1000]]
    out = tmp_path_factory.mktemp("table")
    rows = [
        {"ticket_id": f"T-{n:05}", "body": body, "source": "s", "source_line": n + 1} for n, body in enumerate(bodies)
    ]
    write_tickets(ticket_table(rows), out)
    return out / "tickets.parquet"


def test_the_simulated_shuffle_decides_like_a_single_process(table: Path) -> None:
    from tasks.curate.rows import read_batches, read_columns
    from tasks.curate.similarity.compared import compared_columns

    step = DedupStep(uses="dedup")
    rows = read_columns(table, compared_columns(step))
    order = np.arange(rows.num_rows)
    simulated = decide_in_parts(
        read_batches(table, compared_columns(step)), step, order=order, spread=Counting(3), where="here"
    )
    texts = [body or "" for body in rows.column("body").to_pylist()]
    single = decide(
        shingles_of_texts(texts, n_words=step.shingle_words), order=order, near=True, threshold=step.threshold,
        max_comparisons=10**6, where="here",
    )  # fmt: skip
    assert (simulated.kept == single.kept).all()
    assert (simulated.kept != order).sum() == 1000


def test_bytes_are_counted_and_grow_with_the_number_of_buckets(table: Path) -> None:
    few, many = play(table, n_buckets=2), play(table, n_buckets=3)  # a part has at least 1,024 rows
    assert (few.n_tickets, few.n_buckets, many.n_buckets) == (3000, 2, 3)
    notices = {each.what: each.bytes_per_ticket for each in few.shuffles}["notices of texts"]
    assert notices > 8 * few.prefixes.sum() / 3000  # at least the shingles themselves
    assert few.per_ticket > few.texts_per_ticket > 40 * 6
    assert all(1 <= each.largest < 1.5 for each in few.shuffles)
    assert moved_at(few, 3) == pytest.approx(many.per_ticket, rel=0.05)  # the estimate matches the simulation


def test_a_text_visits_at_most_as_many_buckets_as_exist_and_as_it_has_shingles() -> None:
    prefixes = np.array([5, 10, 20])
    assert buckets_met(prefixes, 2) < 2
    assert buckets_met(prefixes, 1e9) == pytest.approx(35 / 3, rel=1e-6)


def test_figures_come_from_the_largest_size_that_finished() -> None:
    steps = dict.fromkeys(
        ("extract Parquet", "validate", "rules", "length", "language", "quality", "split", "decontaminate", "cap"), 1.0
    )
    per_ticket = measured_curation({"n_tickets": 100, "steps": steps}, list(table_rows(TABLE)), moved_bytes=4000.0)
    assert per_ticket == Curation(8 / 100 + 6 / 2000, 14 / 2000, 5e5, 4000.0, base_bytes=1e9)


def test_the_bottleneck_is_named() -> None:
    def of(**changed: float) -> object:
        per_ticket = {"driver_cpu_s": 1e-9, "nodes_cpu_s": 1e-9, "driver_bytes": 1.0, "moved_bytes": 1.0, **changed}
        return curation_row(10**9, Curation(**per_ticket), nodes=4)["bottleneck"]

    assert of(driver_cpu_s=1e-3) == "driver: processor"
    assert of(nodes_cpu_s=1.0) == "nodes: processors"
    assert of(moved_bytes=1e6) == "nodes: network"
    assert of(driver_bytes=2000.0) == "driver: memory"


def test_a_model_too_large_for_a_card_takes_several() -> None:
    lora, qlora = (training_row("llama-3.1-70b", method, 1000, 4.0) for method in ("lora", "qlora"))
    assert (lora["bottleneck"], qlora["bottleneck"]) == ("memory", "arithmetic")
    assert int(lora["cards"]) >= 2
    assert lora["USD"] == qlora["USD"]
