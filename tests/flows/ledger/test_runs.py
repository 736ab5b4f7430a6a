"""The record of runs: it is read back as written, by any process, in order."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.graph.store import Obtained
from flows.ledger.postgres import LedgerPostgres
from flows.ledger.runs import SeenTickets
from flows.ledger.tables import VERSION
from flows.ledger.ticks import set_mark
from schemas.artifacts import Artifact, RowCounts, TicketTable
from schemas.errors import ConfigError, DataError, StorageError
from schemas.verdicts import NOTHING_JUDGED, Look
from tasks.tickets.draw import item_hash
from tests.support.postgres import errors_of


def begin(ledger, run_id, *, pipeline="support", inputs="in-1", labels="", **of_run):
    ledger.start_run(run_id, pipeline=pipeline, model_name="replies", config_json='{"a": 1}', **of_run)
    ledger.set_digests(run_id, inputs=inputs, labels=labels, code="code-1")


def finish(ledger, run_id, verdict, status="DONE"):
    ledger.finish_run(run_id, status=status, verdict=verdict, reason="because", exit_code=0)


def test_a_run_is_written_and_read_back(ledger):
    begin(ledger, "20260601-a")
    assert ledger.run("20260601-a").status == "RUNNING"
    ledger.name_run("20260601-a", prefect_run_id="p")
    ledger.name_run("20260601-a", mlflow_run_id="m")
    finish(ledger, "20260601-a", "BLOCK")
    row = ledger.run("2026")
    assert (row.status, row.verdict, row.reason, row.exit_code) == ("DONE", "BLOCK", "because", 0)
    assert (row.prefect_run_id, row.mlflow_run_id, row.config_json) == ("p", "m", '{"a": 1}')
    assert (row.input_digest, row.labels_digest, row.code) == ("in-1", "", "code-1")
    assert (row.as_of, row.given) == (None, ())
    assert row.ended_at >= row.started_at


def test_the_day_and_the_settings_of_a_run_are_not_part_of_its_configuration(ledger):
    begin(ledger, "a", as_of="2026-05-31", given=("train.epochs=2", 'a="b"'))
    finish(ledger, "a", "HOLD")
    row = ledger.run("a")
    assert (row.as_of, row.given, row.config) == ("2026-05-31", ("train.epochs=2", 'a="b"'), {"a": 1})
    assert ledger.last_verdicts() == {}  # it says nothing of the tickets of today


def test_a_run_id_is_used_once(ledger):
    begin(ledger, "a")
    with pytest.raises(ConfigError, match="TG0151"):
        begin(ledger, "a")


def test_runs_are_listed_newest_first_whatever_their_ids(ledger):
    for run_id, pipeline in [("c", "x"), ("b", "y"), ("a", "x")]:
        begin(ledger, run_id, pipeline=pipeline)
    assert [row.run_id for row in ledger.runs()] == ["a", "b", "c"]
    assert [row.run_id for row in ledger.runs(pipeline="x")] == ["a", "c"]
    assert [row.run_id for row in ledger.runs(limit=1)] == ["a"]


def test_a_prefix_must_match_one_run(ledger):
    for run_id in ("2026-1", "2026-11", "2026-2_%"):
        begin(ledger, run_id)
    assert ledger.run("2026-1").run_id == "2026-1"
    assert ledger.run("2026-2").run_id == "2026-2_%"
    with pytest.raises(ConfigError, match="TG0151"):
        ledger.run("2026")
    for absent in ("", "x", "2026-1_"):
        with pytest.raises(ConfigError, match="TG0151"):
            ledger.run(absent)


def test_the_last_verdict_is_from_a_finished_run_with_the_same_inputs(ledger):
    assert ledger.last_verdict("support", "in-1") is None
    for run_id, inputs, verdict, status in [
        ("1", "in-1", "HOLD", "DONE"),
        ("2", "in-1", "PROMOTE", "DONE"),
        ("3", "in-2", "BLOCK", "DONE"),
        ("4", "in-1", "ERROR", "DONE"),
        ("5", "in-1", None, "FAILED"),
        ("6", "in-1", "PROMOTE", "SKIPPED"),
    ]:
        begin(ledger, run_id, inputs=inputs)
        finish(ledger, run_id, verdict, status)
    assert ledger.last_verdict("support", "in-1").run_id == "2"
    assert ledger.last_verdict("other", "in-1") is None
    begin(ledger, "7", labels="labels-1")
    finish(ledger, "7", "PROMOTE")
    assert ledger.last_verdict("support", "in-1").run_id == "2"
    assert ledger.last_verdict("support", "in-1", "labels-1").run_id == "7"


def obtained(tmp_path, *, reused=False, seconds=1.0, rows=None):
    artifact = TicketTable(root=tmp_path, digest="d", rows=rows) if rows else Artifact(root=tmp_path, digest="d")
    return Obtained(artifact, "k", reused=reused, seconds=0.0 if reused else seconds)


def test_steps_keep_their_row_counts_and_a_second_try_replaces_the_first(ledger, tmp_path):
    begin(ledger, "a")
    ledger.record_failure("a", "dedup", DataError("no rows are left", code="TG0299"))
    ledger.record_failure("a", "split", ValueError("text of a ticket"))
    ledger.record_step("a", "dedup", obtained(tmp_path, rows=RowCounts(n_in=3, n_out=2, n_merged=1)))
    split, dedup = ledger.steps("a")
    assert (dedup.state, dedup.n_in, dedup.n_out, dedup.key, dedup.error) == ("done", 3, 2, "k", "")
    assert (split.state, split.error, split.n_in) == ("failed", "ValueError", None)


def test_candidates_are_judged_once_a_run_has_ended_by_the_moment(ledger, tmp_path):
    begin(ledger, "a")
    for step in ("items", "train", "gate"):
        ledger.record_step("a", step, obtained(tmp_path))
    finish(ledger, "a", "HOLD")
    ended = ledger.run("a").ended_at
    look = Look(held_out="d", model="d", verdict="HOLD")
    assert ledger.looks() == ledger.looks(before=f"{ended}Z") == (look,)
    assert ledger.looks(before=ended) == ()


def test_the_typical_time_is_the_median_of_the_last_five_successes(ledger, tmp_path):
    assert ledger.typical_seconds("train") is None
    for number, seconds in enumerate([500, 1, 2, 3, 4, 100]):
        begin(ledger, str(number))
        ledger.record_step(str(number), "train", obtained(tmp_path, seconds=seconds))
    begin(ledger, "reused")
    ledger.record_step("reused", "train", obtained(tmp_path, reused=True))
    assert ledger.typical_seconds("train") == 3


def test_a_reader_sees_a_snapshot_and_blocks_no_writer(ledger):
    begin(ledger, "a")
    with ledger.read() as db:
        assert len(db.execute("SELECT * FROM runs").fetchall()) == 1
        begin(ledger, "b")
        assert len(db.execute("SELECT * FROM runs").fetchall()) == 1
    assert len(ledger.runs()) == 2


def test_reading_creates_and_changes_nothing(ledger, tmp_path, tree):
    assert ledger.runs() == ()
    assert ledger.champion("replies") is None
    assert ledger.history() == ()
    assert not ledger.root.exists()
    begin(ledger, "a")
    before = tree(tmp_path)
    ledger.runs()
    ledger.champion("replies")
    ledger.last_verdict("support", "in-1")
    assert tree(tmp_path) == before


def test_a_ledger_of_another_version_is_refused_with_a_hint_and_not_changed(ledger):
    begin(ledger, "a")
    version = VERSION + 1
    if isinstance(ledger.kept, LedgerPostgres):
        with ledger.write() as db:
            db.execute("UPDATE ledger_version SET version = ?", (version,))
    else:
        with closing(sqlite3.connect(ledger.path)) as db:
            db.execute(f"PRAGMA user_version = {version}")
    for act in (ledger.runs, lambda: begin(ledger, "b")):
        with pytest.raises(StorageError, match=f"TG0530.*version {version}, this tunegate reads version {VERSION}"):
            act()


def test_a_failed_transaction_changes_nothing(ledger):
    begin(ledger, "a")

    def fail():
        with ledger.write() as db:
            db.execute("DELETE FROM runs")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert len(ledger.runs()) == 1


def test_the_mark_moves_only_forward_and_only_with_the_verdict(ledger):
    assert (ledger.mark("replies"), ledger.ticks("replies")) == (None, ())

    def close(run_id, seen):
        ledger.start_run(run_id, pipeline="replies", model_name="replies", config_json="{}")
        ledger.finish_run(run_id, status="DONE", verdict="HOLD", exit_code=8, seen=seen)

    close("r1", SeenTickets("snapshot-1", "2026-07-01T10:00:00", 10))
    close("r2", None)
    first = ledger.mark("replies")
    assert first is not None
    assert (first.run_id, first.snapshot_id, first.watermark) == ("r1", "snapshot-1", "2026-07-01T10:00:00")
    close("r3", SeenTickets("snapshot-2", "2026-06-01T10:00:00", 11))  # tickets were removed, or the clock went back
    last = ledger.mark("replies")
    assert last is not None
    assert (last.snapshot_id, last.watermark) == ("snapshot-2", "2026-07-01T10:00:00")
    assert ledger.mark_of("r1") == first

    def fail_at_the_end():
        with ledger.write() as db:
            db.execute("UPDATE runs SET verdict = 'BLOCK' WHERE run_id = 'r3'")
            set_mark(db, run_id="r4", pipeline="replies", snapshot_id="s", watermark="w", n_tickets=12)
            db.execute("no SQL")

    with pytest.raises(errors_of("Error")):
        fail_at_the_end()
    assert ledger.mark("replies") == last
    assert ledger.run("r3").verdict == "HOLD"
    # A run of data alone is a mark, but not of a pipeline that has a model by now.
    ledger.start_run("data", pipeline="replies", model_name="", config_json="{}")
    ledger.finish_run(
        "data", status="DONE", verdict=None, exit_code=0, seen=SeenTickets("snapshot-3", "2026-07-02T10:00:00", 12)
    )
    assert ledger.mark("replies").snapshot_id == "snapshot-3"
    assert ledger.mark("replies", judged=True) == last


def test_what_people_saw_counts_from_the_first_run_of_other_inputs(ledger):
    begin(ledger, "a")
    ledger.record_seen(["T-1", "T-2"])  # the report of a run that is killed now
    begin(ledger, "b", labels="labels-1")
    ledger.record_seen(["T-3"])
    assert not ledger.seen_items("support", "in-1").hashes
    changed = ledger.seen_items("support", "in-2")
    assert {item_hash(item, salt=changed.salt) for item in ("T-1", "T-2", "T-3")} == set(changed.hashes)
    begin(ledger, "c", inputs="in-2")
    ledger.record_seen(["T-3", "T-4"])
    ledger.record_seen(["T-3", "T-4"])
    assert ledger.seen_items("support", "in-2") == changed
    assert len(ledger.seen_items("support", "in-3").hashes) == 4
    assert ledger.held_out_items() == {}
    ledger.check()


def test_items_are_counted_once_some_have_nearly_used_up_their_budget_and_repeats_have_the_same(ledger):
    names = {"monday": ["T-1", "T-2"], "tuesday": ["T-2", "T-3"]}
    for number, items in enumerate(["monday", "monday", "tuesday", "tuesday"]):
        begin(ledger, f"r{number}", inputs=f"in-{number}")
        ledger.record_held_out(items, names[items])
        for step, digest in (("items", items), ("train", f"model-{number}"), ("gate", "g")):
            obtained = Obtained(Artifact(root=Path("/x"), digest=digest), "k", reused=False, seconds=0.0)
            ledger.record_step(f"r{number}", step, obtained)
    assert ledger.judged_items("support", "in-9", budget=20) == NOTHING_JUDGED
    judged = ledger.judged_items("support", "in-9", budget=5)

    def counts(**by_name):
        return {item_hash(name.replace("_", "-"), salt=judged.salt): n for name, n in by_name.items()}

    assert (dict(judged.counts), judged.budget) == (counts(T_1=2, T_2=4, T_3=2), 5)
    assert ledger.judged_items("support", "in-3", budget=5) == NOTHING_JUDGED  # before its first run there were three
    assert dict(ledger.judged_items("support", "in-3", budget=4).counts) == counts(T_1=2, T_2=3, T_3=1)


def test_what_people_saw_after_a_moment_does_not_count_for_it(ledger, monkeypatch):
    for day in (1, 2):
        monkeypatch.setattr("flows.ledger.runs.now", lambda day=day: f"2026-06-0{day}T12:00:00+00:00")
        begin(ledger, f"r{day}", inputs=f"in-{day}")
        ledger.record_seen([f"T-{day}"])
    known = {at: ledger.seen_items("support", "in-3", before=f"2026-06-0{at}T00:00:00+00:00") for at in (1, 2, 3)}
    assert {at: len(seen.hashes) for at, seen in known.items()} == {1: 0, 2: 1, 3: 2}
    assert known[2].hashes == (item_hash("T-1", salt=known[2].salt),)
