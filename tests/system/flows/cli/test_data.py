"""`tunegate data curate` and the commands that data teams run afterwards."""

import json
from pathlib import Path

import duckdb
import pytest

from tests.flows.cli.test_data import from_file, week, write_tickets
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


def test_a_kill_while_publishing_keeps_the_previous_database_and_a_rerun_publishes(
    empty_workplace: ForkedWorkplace,
) -> None:
    empty_workplace.declare(from_file())
    write_tickets(empty_workplace, week(1) + week(2))
    database = Path(empty_workplace.json("data", "curate", "small")["warehouse"])
    before = database.read_bytes()
    write_tickets(empty_workplace, week(1) + week(2) + week(3))
    killed = empty_workplace.run("data", "curate", "small", TUNEGATE_FAILPOINT="snapshot.copied")
    assert killed.returncode < 0, killed.stderr
    assert database.read_bytes() == before
    after = empty_workplace.json("data", "curate", "small")
    assert after["funnel"][0]["n_in"] == 360
    assert list(database.parent.rglob(".*.tmp")) == []


def test_curate_publishes_tables_that_any_client_can_read(empty_workplace: ForkedWorkplace) -> None:
    curated = empty_workplace.json("data", "curate", "small")
    database = Path(curated["warehouse"])
    assert [row["step"] for row in curated["funnel"]][:3] == ["extract", "validate", "redact"]
    for row in curated["funnel"]:
        assert row["n_in"] == row["n_out"] + row["n_quarantined"] + row["n_dropped"] + row["n_merged"]
    for before, after in zip(curated["funnel"], curated["funnel"][1:], strict=False):
        assert after["n_in"] == before["n_out"]
    with duckdb.connect(str(database), read_only=True) as client:
        n_read, n_curated = client.sql("SELECT n_read, n_curated FROM snapshot").fetchall()[0]
        assert client.sql("SELECT count(*) FROM fate").fetchall() == [(n_read,)]
        assert client.sql("SELECT count(*) FROM curated").fetchall() == [(n_curated,)]
        # A reader blocks nothing: the next run publishes while it reads.
        assert empty_workplace.json("data", "curate", "small")["funnel"] == curated["funnel"]
        assert client.sql("SELECT count(*) FROM curated").fetchall() == [(n_curated,)]
    (snapshot,) = (database.parent / "snapshots").iterdir()
    assert {path.stem for path in snapshot.glob("*.parquet")} == {
        "raw_tickets", "train", "validation", "test", "removed", "duplicates", "splits", "funnel",
    }  # fmt: skip
    assert database.stat().st_mode & 0o077 == 0
    card = json.loads((database.parent / "card.json").read_text())
    assert (card["n_read"], card["n_train"] + card["n_validation"] + card["n_test"]) == (n_read, n_curated)
    page = Path(curated["card"]).read_text()
    assert page.startswith("<!doctype html>")
    assert "<script" not in page
