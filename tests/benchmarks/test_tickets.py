"""The tickets of the curation benchmark: repeatable, readable for the language step, with work for each step."""

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.curate import as_table, run_stage, summary
from benchmarks.measure import Cost
from benchmarks.tickets import Row, Writer, ticket_files


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return Writer(1500).rows()


def test_equal_seeds_give_equal_rows_and_other_seeds_others(rows: list[Row]) -> None:
    assert Writer(1500).rows() == rows
    assert Writer(1500, seed=1).rows() != rows


def test_some_bodies_repeat_and_most_do_not(rows: list[Row]) -> None:
    n_distinct = len({row["body"] for row in rows})
    assert 0.89 < n_distinct / len(rows) < 0.97


def test_customers_and_threads_have_several_tickets_close_in_time(rows: list[Row]) -> None:
    threads = Counter(row["thread_id"] for row in rows)
    assert 0.2 < sum(count - 1 for count in threads.values()) / len(rows) < 0.4
    assert len({row["customer_id"] for row in rows}) < len(rows) / 2
    assert [row["created_at"] for row in rows] == sorted(str(row["created_at"]) for row in rows)


def test_every_slot_of_a_sentence_is_filled(rows: list[Row]) -> None:
    texts = [str(row[column]) for row in rows for column in ("subject", "body", "reply")]
    assert not [text for text in texts if re.search(r"(?<!{)\{\w+\}", text)]


def test_both_files_contain_the_same_tickets(tmp_path: Path) -> None:
    parquet, jsonl = ticket_files(300, tmp_path)
    assert [json.loads(line) for line in jsonl.read_text().splitlines()] == pq.read_table(parquet).to_pylist()


def test_every_step_of_the_stage_finds_something(tmp_path: Path) -> None:
    files = ticket_files(1500, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    lines = {line.step: line for line in run_stage(*files, out)}
    assert lines["extract Parquet"].n_out == lines["extract JSONL"].n_out == 1500
    for step in ("rules", "length", "language", "quality", "exact and near duplicates", "decontaminate"):
        assert lines[step].missing or lines[step].n_out < lines[step].n_in, step
    assert lines["exact and near duplicates"].n_out < lines["exact duplicates alone"].n_out
    assert all(line.cpu_s > 0 for line in lines.values() if not line.missing)


def test_the_sum_covers_the_stage_without_steps_that_are_timed_apart() -> None:
    lines = [
        {"step": "read", "counts": False, "cpu_s": 5.0, "wall_s": 5.0, "n_in": 100, "n_out": 100, "missing": ""},
        {"step": "one", "counts": True, "cpu_s": 1.0, "wall_s": 0.5, "n_in": 100, "n_out": 90, "missing": ""},
        {
            "step": "two",
            "counts": True,
            "cpu_s": None,
            "wall_s": None,
            "n_in": None,
            "n_out": None,
            "missing": "not there",
        },
        {"step": "three", "counts": True, "cpu_s": 3.0, "wall_s": 1.5, "n_in": 90, "n_out": 80, "missing": ""},
    ]
    figures = summary(lines, [Cost(8.0, 10.0, 500.0, 0, "", "", 400.0)], 100)
    assert (figures["cpu_s"], figures["tickets_per_cpu_s"], figures["tickets_per_s"]) == (4.0, 25, 50)
    assert figures["not_there"] == ["two"]
    assert "| two | not there |" in as_table(lines, 100)
