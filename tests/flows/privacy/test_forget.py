"""What is found of a customer, what happens to it, and that copies and new data do not bring it back."""

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli.tracing import forget as command
from flows.graph.store import Store
from flows.ledger.rows import RunVerdict
from flows.privacy.forget import apply_tombstones, forget, plan_forgetting
from flows.privacy.index import index_new_results
from flows.privacy.keys import KEY_FILE, TOMBSTONES, VARIABLE, load_forgotten, load_hashes
from flows.registry.feedback import feedback_database
from flows.workspace.lock import pipeline_lock
from schemas.artifacts import Splits, TrainedRef
from schemas.errors import LockedError, SecurityError, StorageError
from schemas.forget import ForgetCertificate
from tasks.cluster.depot import mark
from tasks.cluster.shared import Shared
from tasks.monitor.feedback import FeedbackRules, feedback_state, ingest_feedback, latest_decisions
from tasks.storage.sealed_folder import seal, verify
from tests.support.forgetful_workspace import CUSTOMER, OTHER, TEXT, WORDS, Workspace, pseudonym
from tests.support.traces import traces


def forget_customer(
    workspace: Workspace, customer: str = CUSTOMER, *, reason: str = "case 17", unknown: bool = False
) -> ForgetCertificate:
    return forget(
        workspace.settings,
        workspace.specs,
        customer,
        root=workspace.root,
        reason=reason,
        actor="a person",
        unknown=unknown,
    )


def traces_left(workspace: Workspace) -> list[str]:
    return [*traces(workspace.settings.home, WORDS), *traces(workspace.settings.forgotten, WORDS)]


def test_a_plan_finds_pseudonyms_and_what_models_inherited(workspace: Workspace) -> None:
    holdings = plan_forgetting(workspace.settings, workspace.specs, CUSTOMER, root=workspace.root)
    fates = {
        (each.kind, each.place.split("/")[1] if "/" in each.place else each.place): each.fate
        for each in holdings.held
        if "/train/" not in each.place
    }
    assert fates == {
        ("result", "extract"): "removed", ("result", "redact"): "removed", ("result", "encode"): "removed",
        ("result", "prompts"): "removed", ("result", "split"): "rewritten",
        ("feedback", "small"): "rewritten", ("source", "tickets.jsonl"): "yours",
    }  # fmt: skip
    training_fates = sorted(each.fate for each in holdings.held if "/train/" in each.place)
    assert training_fates == ["removed", "rewritten", "rewritten"], "a trial is not a version"
    assert [(each.version, each.how, each.n_rows) for each in holdings.versions] == [
        ("1", "directly", 1), ("2", "by inheritance", 1),
    ]  # fmt: skip
    assert holdings.n_tickets == 2
    assert plan_forgetting(workspace.settings, workspace.specs, "unknown", root=workspace.root).held == ()


def test_only_the_customers_rows_are_removed_and_versions_are_marked(workspace: Workspace) -> None:
    weights = workspace.made["one"].root / "adapter.bin"
    before = weights.read_bytes()
    certificate = forget_customer(workspace)
    assert traces_left(workspace) == []
    store = Store(workspace.settings.home)
    split = store.look("split", workspace.made["split"].root.name, Splits, deep=True)
    assert isinstance(split, Splits)
    assert (split.n_train, split.n_validation, split.n_test, split.rows.n_merged) == (1, 0, 1, 1)
    [removed_row] = pq.read_table(split.removed).to_pylist()
    assert (removed_row["ticket_id"], removed_row["kept_id"], removed_row["shared_run"]) == ("t-3", None, None)
    groups = pq.read_table(split.assignments).column("group").to_pylist()
    assert groups == [f"customer_id={pseudonym(OTHER)}"] * 2
    assert weights.read_bytes() == before
    row = workspace.ledger.candidate("small", "1")
    assert row is not None
    assert verify(row.ref.trained.root) == row.ref.trained.digest
    assert isinstance(store.look("train", row.ref.trained.root.name, TrainedRef, deep=True), TrainedRef)
    assert {mark.version: mark.how for mark in workspace.ledger.marked("small")} == {
        "1": "directly",
        "2": "by inheritance",
    }
    assert list(latest_decisions(feedback_database(workspace.settings.home, "small"), upto=9)) == [pseudonym("t-1")]
    assert [each.fate for each in certificate.removals].count("removed") == 5
    assert certificate.sources == ("tickets.jsonl: 2 rows",)
    again = forget_customer(workspace)
    assert (again.removals, len(again.versions)) == ((), 2)
    with pytest.raises(SecurityError, match="TG0832"):
        workspace.ledger.promote("small", expected="1", version="2", verdict=RunVerdict("r", "better"))
    assert (
        workspace.ledger.promote("small", expected="1", version="3", verdict=RunVerdict("r", "better")).to_version
        == "3"
    )
    with pytest.raises(SecurityError, match="TG0832"):
        workspace.ledger.rollback("small", reason="worse")


def test_a_restored_backup_is_cleared_again(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both removals begin in the same second, and the restored ledger counts the second one as its first.
    monkeypatch.setattr("flows.ledger.erasures.now", lambda: "2026-06-02T10:00:00+00:00")
    home, backup = workspace.settings.home, tmp_path / "backup"
    shutil.copytree(home, backup)
    forget_customer(workspace)
    shutil.rmtree(home)
    shutil.copytree(backup, home)
    assert not (home / KEY_FILE).exists(), "the backup is older than the key"
    assert traces_left(workspace)
    with pytest.raises(StorageError, match="TG0581"):
        apply_tombstones(workspace.settings)  # nothing is written to an older ledger until a person accepts it
    workspace.ledger.accept("restored", reason="the backup of Monday", actor="ada")
    [certificate] = apply_tombstones(workspace.settings)
    assert traces_left(workspace) == []
    assert [each.version for each in certificate.versions] == ["1", "2"]
    assert {mark.version for mark in workspace.ledger.marked("small")} == {"1", "2"}
    assert apply_tombstones(workspace.settings) == ()
    assert len(list((workspace.settings.forgotten / "certificates").glob("*.json"))) == 2


def test_feedback_on_a_forgotten_customers_tickets_is_refused(workspace: Workspace) -> None:
    forget_customer(workspace)
    database = feedback_database(workspace.settings.home, "small")
    line = b'{"ticket_id": "vq-2", "version": "1", "outcome": "accepted", "at": "2026-06-02"}'
    rules = FeedbackRules(frozenset("1"), forgotten=load_forgotten(workspace.settings))
    done = ingest_feedback([line], rules, source="f", database=database)
    assert done.refused == ((1, "the customer was forgotten"),)
    state = feedback_state(database)
    assert state is not None
    assert state.last == 2
    assert traces_left(workspace) == []


def test_a_removal_that_leaves_rows_is_an_error(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    # Private, because every other way to make a removal fail raises another error.
    monkeypatch.setattr("flows.privacy.forget._remove_noted", lambda *_: None)
    with pytest.raises(StorageError, match="TG0566") as error:
        forget_customer(workspace)
    assert "store/" in error.value.message
    assert workspace.ledger.tombstones(), "the tombstone keeps them out anyway"


def test_a_result_that_cannot_be_read_stops_a_removal_and_no_run(workspace: Workspace) -> None:
    [tickets] = (workspace.settings.home / "store").glob("extract/*/tickets.parquet")
    tickets.chmod(0o600)
    tickets.write_bytes(tickets.read_bytes()[:-12])
    tickets.parent.chmod(0o700)
    seal(tickets.parent)  # intact by its manifest
    index_new_results(workspace.settings)
    with pytest.raises(StorageError, match=r"TG0510.*extract/\w+ cannot be read: tickets.parquet") as error:
        forget_customer(workspace)
    assert error.value.hint == "remove the folder: the next run that needs it makes it again"


def test_an_ambiguous_request_is_refused(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for reason in ("", f"{CUSTOMER} wrote to us"):
        with pytest.raises(SecurityError, match="TG0833"):
            forget_customer(workspace, reason=reason)
    with pytest.raises(SecurityError, match="TG0833"):
        forget_customer(workspace, "someone else")
    assert workspace.ledger.tombstones() == ()
    assert forget_customer(workspace, "someone else", unknown=True).removals == ()
    config = tmp_path / "pipelines.yaml"
    options = {"reason": "", "by": None, "unknown": False, "config": config, "as_json": False}
    for flags in ({"plan": True, "apply": True}, {}, {"again": True}):
        with pytest.raises(SecurityError, match="TG0833"):
            command(customer=CUSTOMER, **{"plan": False, "apply": False, "again": False, **flags, **options})  # type: ignore[arg-type]
    with (
        pipeline_lock(workspace.settings.home, "small", wait_s=0, run_id="r1"),
        pytest.raises(LockedError, match="TG0520"),
    ):
        forget_customer(workspace)
    capsys.readouterr()


def test_tombstones_without_their_key_stop_everything(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_customer(workspace)
    with monkeypatch.context() as other:
        other.setenv(VARIABLE, "another key than that of the file")
        with pytest.raises(SecurityError, match="TG0830"):
            apply_tombstones(workspace.settings)
        other.setenv(VARIABLE, "short")
        with pytest.raises(SecurityError, match="TG0830"):
            load_hashes(workspace.settings)
    key = workspace.settings.forgotten / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    with pytest.raises(SecurityError, match="TG0830"):
        load_hashes(workspace.settings)
    key.chmod(0o600)
    (workspace.settings.forgotten / TOMBSTONES).write_text("{]\n")
    with pytest.raises(StorageError, match="TG0566"):
        load_forgotten(workspace.settings)
    other_folder = replace(workspace.settings, forgotten_at=workspace.settings.home.parent / "safe")
    assert load_forgotten(other_folder), "the ledger has them too"


def test_the_workspace_contains_the_customers_text(workspace: Workspace) -> None:
    found = traces_left(workspace)
    for step in ("extract", "redact", "split", "encode", "prompts", "train"):
        assert any(name.startswith(f"store/{step}/") for name in found), step
    assert any(name.startswith("feedback/") and TEXT in name for name in found)


def test_files_of_an_interrupted_training_on_shared_storage_are_removed(workspace: Workspace, tmp_path: Path) -> None:
    shared = Shared(f"file://{tmp_path / 'shared'}")
    scratch, dataset = workspace.settings.home / "scratch" / "train" / "key", tmp_path / "dataset"
    scratch.mkdir(parents=True)
    dataset.mkdir()
    (dataset / "ids").write_text("token ids")
    mark(scratch, shared.url, "k1", shared.put(dataset))
    forget_customer(workspace)
    assert list((tmp_path / "shared").iterdir()) == []
    assert not scratch.exists()
