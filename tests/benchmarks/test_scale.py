"""Tickets and arithmetic of the scale benchmark."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks import tickets
from benchmarks.scale import Run, as_table, conclusions, enough_processors, summary
from benchmarks.tickets import scale_table
from schemas.curation_steps import DedupStep
from tasks.curate.dedup import drop_duplicates

LOCAL = Run(1000, "local", 10.0, 0.0, 12.0, 0.0, 0.0, 300.0, 300.0, 1000, "a")
RAY = Run(1000, "ray", 8.0, 3.0, 4.0, 18.0, 50.0, 400.0, 250.0, 1000, "a")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tickets, "N_BASE", 600)
    monkeypatch.setattr(tickets, "BATCH_ROWS", 250)
    return scale_table(1500, tmp_path).root


def test_each_dialect_has_the_same_share_of_duplicates_and_few_across_dialects(table: Path, tmp_path: Path) -> None:
    rows = pq.read_table(table / "tickets.parquet")
    ids = rows.column("ticket_id").to_pylist()
    assert len(set(ids)) == 1500
    assert ids == sorted(ids)
    out = tmp_path / "out"
    out.mkdir()
    drop_duplicates(tickets=scale_table(1500, tmp_path), step=DedupStep(uses="dedup"), out=out)
    removed = pq.read_table(out / "removed.parquet").to_pylist()
    shares = [sum(row["ticket_id"][:3] == f"00{n}" for row in removed) / size for n, size in enumerate((600, 600, 300))]
    across = [row for row in removed if row["ticket_id"][:3] != row["kept_id"][:3]]
    assert len(across) < 0.1 * len(removed)  # "see above" is the same in every dialect
    assert 0.03 < shares[0] < 0.3
    assert abs(shares[0] - shares[1]) < 0.05


def test_different_digests_are_reported() -> None:
    assert summary([LOCAL, RAY])["equal"] is True
    other = replace(RAY, digest="b")
    assert summary([LOCAL, other])["equal"] is False
    assert as_table([LOCAL, other]).endswith("| NO |")


def test_driver_time_is_subtracted_before_processors_are_counted() -> None:
    assert enough_processors(LOCAL, RAY) == pytest.approx(18 / 6)
    assert enough_processors(LOCAL, replace(RAY, driver_cpu_s=11.0)) is None
    assert enough_processors(replace(LOCAL, wall_s=99.0), RAY) == pytest.approx(18 / 8)  # a busy machine
    assert "Ray was faster at 1,000 tickets" in conclusions([LOCAL, RAY])


def test_an_unfinished_run_has_no_figures() -> None:
    unfinished = replace(RAY, failure="did not end: over 900 s")
    assert "over 900 s" in as_table([LOCAL, unfinished])
    assert summary([LOCAL, unfinished])["steps"] == {}
