"""What is found of a customer, what becomes of it, and that a kill at any place changes nothing of the end."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli.data import forget as command
from flows.context.feedback import feedback_database
from flows.graph.store import Store
from flows.ledger.rows import RunVerdict
from flows.privacy.forget import apply_tombstones, forget, plan_forgetting
from flows.privacy.keys import KEY_FILE, TOMBSTONES, VARIABLE, load_forgotten, load_hashes
from flows.workspace.lock import pipeline_lock
from schemas.artifacts import Splits, TrainedRef
from schemas.errors import LockedError, SecurityError, StorageError
from schemas.forget import Certificate
from tasks.cluster.depot import mark
from tasks.cluster.shared import Shared
from tasks.files import verify
from tasks.watch.feedback import FeedbackRules, feedback_state, ingest_feedback, latest_decisions
from tests.support.forgetful_workspace import CUSTOMER, KEY, OTHER, TEXT, WORDS, Workspace, build, pseudonym
from tests.support.traces import traces


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("VQ_KEY", KEY)
    return build(tmp_path)


def go(here: Workspace, customer: str = CUSTOMER, *, reason: str = "case 17", unknown: bool = False) -> Certificate:
    return forget(here.settings, here.specs, customer, reason=reason, actor="a person", unknown=unknown)


def left(here: Workspace) -> list[str]:
    return [*traces(here.settings.home, WORDS), *traces(here.settings.forgotten, WORDS)]


def test_a_plan_finds_pseudonyms_and_what_models_inherited(here: Workspace) -> None:
    held = plan_forgetting(here.settings, here.specs, CUSTOMER)
    fates = {
        (each.kind, each.place.split("/")[1] if "/" in each.place else each.place): each.fate
        for each in held.held
        if "/train/" not in each.place
    }
    assert fates == {
        ("result", "extract"): "removed", ("result", "redact"): "removed", ("result", "encode"): "removed",
        ("result", "prompts"): "removed", ("result", "split"): "rewritten",
        ("feedback", "small"): "rewritten", ("source", "tickets.jsonl"): "yours",
    }  # fmt: skip
    of_trainings = sorted(each.fate for each in held.held if "/train/" in each.place)
    assert of_trainings == ["removed", "rewritten", "rewritten"], "the trial is not a version"
    assert [(each.version, each.how, each.n_rows) for each in held.versions] == [
        ("1", "directly", 1), ("2", "by inheritance", 1),
    ]  # fmt: skip
    assert held.n_tickets == 2
    assert plan_forgetting(here.settings, here.specs, "unknown").held == ()


def test_all_rows_go_everybody_elses_stay_and_versions_are_marked(here: Workspace) -> None:
    weights = here.made["one"].root / "adapter.bin"
    before = weights.read_bytes()
    certificate = go(here)
    assert left(here) == []
    store = Store(here.settings.home)
    split = store.look("split", here.made["split"].root.name, Splits, deep=True)
    assert isinstance(split, Splits)
    assert (split.n_train, split.n_validation, split.n_test, split.rows.n_merged) == (1, 0, 1, 1)
    [pointing] = pq.read_table(split.removed).to_pylist()
    assert (pointing["ticket_id"], pointing["kept_id"], pointing["shared_run"]) == ("t-3", None, None)
    groups = pq.read_table(split.assignments).column("group").to_pylist()
    assert groups == [f"customer_id={pseudonym(OTHER)}"] * 2
    assert weights.read_bytes() == before
    row = here.ledger.candidate("small", "1")
    assert row is not None
    assert verify(row.ref.trained.root) == row.ref.trained.digest
    assert isinstance(store.look("train", row.ref.trained.root.name, TrainedRef, deep=True), TrainedRef)
    assert {mark.version: mark.how for mark in here.ledger.marked("small")} == {"1": "directly", "2": "by inheritance"}
    assert list(latest_decisions(feedback_database(here.settings.home, "small"), upto=9)) == [pseudonym("t-1")]
    assert [each.fate for each in certificate.removals].count("removed") == 5
    assert certificate.sources == ("tickets.jsonl: 2 rows",)
    again = go(here)
    assert (again.removals, len(again.versions)) == ((), 2)
    with pytest.raises(SecurityError, match="TG0832"):
        here.ledger.promote("small", expected="1", version="2", verdict=RunVerdict("r", "better"))
    assert here.ledger.promote("small", expected="1", version="3", verdict=RunVerdict("r", "better")).to_version == "3"
    with pytest.raises(SecurityError, match="TG0832"):
        here.ledger.rollback("small", reason="worse")


def test_an_older_copy_of_the_workspace_is_cleared_again(
    here: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both removals begin in one second, and the ledger that is put back counts the second as its first.
    monkeypatch.setattr("flows.ledger.erasures.now", lambda: "2026-06-02T10:00:00+00:00")
    home, backup = here.settings.home, tmp_path / "backup"
    shutil.copytree(home, backup)
    go(here)
    shutil.rmtree(home)
    shutil.copytree(backup, home)
    assert not (home / KEY_FILE).exists(), "it is from before the key"
    assert left(here)
    with pytest.raises(StorageError, match="TG0581"):
        apply_tombstones(here.settings)  # an older ledger is not written to until a person accepts it
    here.ledger.accept("restored", reason="the backup of Monday", actor="ada")
    [certificate] = apply_tombstones(here.settings)
    assert left(here) == []
    assert [each.version for each in certificate.versions] == ["1", "2"]
    assert {mark.version for mark in here.ledger.marked("small")} == {"1", "2"}
    assert apply_tombstones(here.settings) == ()
    assert len(list((here.settings.forgotten / "certificates").glob("*.json"))) == 2


def test_feedback_on_their_tickets_does_not_come_back(here: Workspace) -> None:
    go(here)
    database = feedback_database(here.settings.home, "small")
    line = b'{"ticket_id": "vq-2", "version": "1", "outcome": "accepted", "at": "2026-06-02"}'
    rules = FeedbackRules(frozenset("1"), forgotten=load_forgotten(here.settings))
    done = ingest_feedback([line], rules, source="f", database=database)
    assert done.refused == ((1, "the customer was forgotten"),)
    state = feedback_state(database)
    assert state is not None
    assert state.last == 2
    assert left(here) == []


def test_a_removal_that_leaves_rows_is_found_out(here: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Private: whatever else makes a removal fail raises an error of its own.
    monkeypatch.setattr("flows.privacy.forget._remove_noted", lambda *_: None)
    with pytest.raises(StorageError, match="TG0566") as error:
        go(here)
    assert "store/" in error.value.message
    assert here.ledger.tombstones(), "they stay out all the same"


def test_the_request_has_to_be_clear(here: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for reason in ("", f"{CUSTOMER} wrote to us"):
        with pytest.raises(SecurityError, match="TG0833"):
            go(here, reason=reason)
    with pytest.raises(SecurityError, match="TG0833"):
        go(here, "someone else")
    assert here.ledger.tombstones() == ()
    assert go(here, "someone else", unknown=True).removals == ()
    config = tmp_path / "pipelines.yaml"
    options = {"reason": "", "by": None, "unknown": False, "config": config, "as_json": False}
    for flags in ({"plan": True, "apply": True}, {}, {"again": True}):
        with pytest.raises(SecurityError, match="TG0833"):
            command(customer=CUSTOMER, **{"plan": False, "apply": False, "again": False, **flags, **options})  # type: ignore[arg-type]
    with pipeline_lock(here.settings.home, "small", wait_s=0, run_id="r1"), pytest.raises(LockedError, match="TG0520"):
        go(here)
    capsys.readouterr()


def test_without_their_key_tombstones_stop_everything(here: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    go(here)
    with monkeypatch.context() as other:
        other.setenv(VARIABLE, "another key than that of the file")
        with pytest.raises(SecurityError, match="TG0830"):
            apply_tombstones(here.settings)
        other.setenv(VARIABLE, "short")
        with pytest.raises(SecurityError, match="TG0830"):
            load_hashes(here.settings)
    key = here.settings.forgotten / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(SecurityError, match="TG0830"):
        load_hashes(here.settings)
    key.chmod(0o600)
    (here.settings.forgotten / TOMBSTONES).write_text("{]\n")
    with pytest.raises(StorageError, match="TG0566"):
        load_forgotten(here.settings)
    elsewhere = replace(here.settings, forgotten_at=here.settings.home.parent / "safe")
    assert load_forgotten(elsewhere), "the ledger has them as well"


def test_the_text_was_there_to_be_found(here: Workspace) -> None:
    found = left(here)
    for step in ("extract", "redact", "split", "encode", "prompts", "train"):
        assert any(name.startswith(f"store/{step}/") for name in found), step
    assert any(name.startswith("feedback/") and TEXT in name for name in found)


def test_what_a_training_that_was_cut_off_has_on_a_clusters_storage_goes_too(here: Workspace, tmp_path: Path) -> None:
    shared = Shared(f"file://{tmp_path / 'shared'}")
    scratch, dataset = here.settings.home / "scratch" / "train" / "key", tmp_path / "dataset"
    scratch.mkdir(parents=True)
    dataset.mkdir()
    (dataset / "ids").write_text("token ids")
    mark(scratch, shared.url, "k1", shared.put(dataset))
    go(here)
    assert list((tmp_path / "shared").iterdir()) == []
    assert not scratch.exists()
