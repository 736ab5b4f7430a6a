"""Two copies of one home folder and one MLflow: the newer one is followed, and the other one changes nothing there."""

from __future__ import annotations

import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.champion.approvals import ApprovalAnswer, answer
from flows.champion.mlflow_sync import SyncResult, decide, reconcile, synchronise
from flows.ledger.promotions import Waits
from flows.ledger.rows import RunVerdict
from flows.registry.owner import check_model
from schemas.errors import StorageError
from tasks.release.register import OWNER_TAG
from tests.flows.champion.test_mlflow_sync import NOWHERE
from tests.support.place import Place

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def shared(place: Place, tmp_path: Path) -> Place:
    """A home with two champions, whose MLflow is not in its folder; it holds a version that waits for a person."""
    shutil.move(place.home / "mlflow" / "mlflow.db", tmp_path / "mlflow.db")
    place.settings = replace(
        place.settings, mlflow_tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", state=tmp_path / "state"
    )
    place.promote(1, after=None)
    place.promote(2, after="1")
    version = place.record(3, "PROMOTE")
    place.ledger.promote(
        "replies", expected="2", version=version, verdict=RunVerdict("run-3", "better"), waits=Waits(approval=True)
    )
    assert synchronise(place.ledger, place.settings) is None
    return place


def copy_of(place: Place, folder: Path) -> Place:
    shutil.copytree(place.home, folder)
    return place.at(folder)


def everything(place: Place) -> dict[str, Any]:
    """All that MLflow has: models, versions, runs and files."""
    client: MlflowClient = place.client
    models = [(m.name, m.tags, m.aliases, m.description) for m in client.search_registered_models()]
    versions = [(v.name, v.version, v.tags, v.description, v.run_id) for v in client.search_model_versions()]
    experiments = sorted(each.experiment_id for each in client.search_experiments())
    runs = [(r.info.run_id, r.info.status, r.data.tags, r.data.metrics) for r in client.search_runs(experiments)]
    folder = Path(place.uri.removeprefix("sqlite:///")).parent / "artifacts"
    return {
        "models": models, "versions": sorted(versions, key=lambda each: each[:2]), "experiments": experiments,
        "runs": sorted(runs, key=lambda each: each[0]),
        "files": {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()},
    }  # fmt: skip


def refuse_all(copy: Place) -> None:
    """Every way from the copy into MLflow ends with TG0581, and changes neither MLflow nor the copy's champion."""
    before, champion = everything(copy), copy.ledger.champion("replies")
    late = reconcile(copy.ledger, copy.settings).late
    assert isinstance(late, StorageError)
    assert late.code == "TG0581"
    ledger, settings = copy.ledger, copy.settings
    for move in (
        lambda: ledger.rollback("replies", reason="r"),
        lambda: ledger.force("replies", expected=None, version="1", reason="r", actor="ada"),
    ):
        with pytest.raises(StorageError, match="TG0581"):
            decide(ledger, settings, "replies", move)
    for given in (ApprovalAnswer(approve=True, by="ada"), ApprovalAnswer(approve=False, by="ada")):
        with pytest.raises(StorageError, match="TG0581"):
            answer(ledger, settings, "run-3", given)
    assert copy.ledger.champion("replies") == champion
    copy.record(9, "HOLD", name="replies", run_id="run-of-the-copy")
    copy.record(9, "HOLD", name="another", run_id="of-another-name")
    late = synchronise(copy.ledger, copy.settings)
    assert isinstance(late, StorageError)
    assert late.code == "TG0581"
    assert everything(copy) == before


def test_a_stale_copy_changes_nothing_in_mlflow(shared: Place, tmp_path: Path) -> None:
    stale = copy_of(shared, tmp_path / "stale")
    shared.ledger.approve("run-3", actor="ada")
    assert synchronise(shared.ledger, shared.settings) is None
    assert shared.mlflow_state()["champion"] == "3"
    refuse_all(stale)
    assert reconcile(shared.ledger, shared.settings) == SyncResult()


def test_a_copy_with_equal_files_does_not_overwrite_the_verdict_of_the_newer_one(shared: Place, tmp_path: Path) -> None:
    """No champion moved: only a verdict is newer than the copy."""
    copy = copy_of(shared, tmp_path / "copy")
    shared.record(4, "HOLD", reason="few items")
    assert synchronise(shared.ledger, shared.settings) is None
    copy.record(4, "BLOCK", run_id="run-4-of-the-copy", reason="worse")
    refuse_all(copy)
    [version] = shared.client.search_model_versions("name = 'replies' and tags.`tunegate.version` = '4'")
    assert (version.tags["tunegate.verdict"], version.tags["tunegate.reason"]) == ("HOLD", "few items")


def test_of_two_copies_that_went_on_the_first_one_that_updates_mlflow_is_followed(
    shared: Place, tmp_path: Path
) -> None:
    copy = copy_of(shared, tmp_path / "copy")
    shared.ledger.rollback("replies", reason="complaints")
    copy.ledger.approve("run-3", actor="ada")
    assert reconcile(copy.ledger, copy.settings).late is None
    assert copy.mlflow_state()["champion"] == "3"
    refuse_all(shared)


def test_a_copy_that_a_person_accepts_is_followed_even_if_mlflow_is_down_then(shared: Place, tmp_path: Path) -> None:
    stale = copy_of(shared, tmp_path / "stale")
    shared.ledger.approve("run-3", actor="ada")
    assert synchronise(shared.ledger, shared.settings) is None
    stale.ledger.accept("restored", reason="the disk of the other one is gone", actor="ada")
    down = replace(stale.settings, mlflow_tracking_uri=NOWHERE)
    assert reconcile(stale.ledger, down).late is not None
    assert stale.mlflow_state()["champion"] == "3"
    result = reconcile(stale.ledger, stale.settings)
    assert result.late is None
    assert stale.mlflow_state()["champion"] == "2"
    assert reconcile(stale.ledger, stale.settings) == SyncResult()
    refuse_all(shared)


@pytest.mark.parametrize("has_other_owner", [False, True])
def test_an_acceptance_covers_a_model_that_was_first_registered_after_the_backup(
    shared: Place, tmp_path: Path, has_other_owner: bool
) -> None:
    monday = copy_of(shared, tmp_path / "monday")
    shared.record(4, "HOLD", name="later")
    assert synchronise(shared.ledger, shared.settings) is None
    with pytest.raises(StorageError, match="TG0581"):
        check_model("later", "", monday.settings, monday.ledger)
    if has_other_owner:
        shared.client.set_registered_model_tag("later", OWNER_TAG, "another")
    names = {"replies": "", "later": "", "not-in-mlflow": ""}
    monday.ledger.accept("restored", reason="backup of Monday", actor="ada", names=names)
    down = replace(monday.settings, mlflow_tracking_uri=NOWHERE)
    assert reconcile(monday.ledger, down).late is not None
    assert reconcile(monday.ledger, monday.settings).late is None
    assert monday.ledger.pending_projections() == ()
    if has_other_owner:  # which is not what was accepted, and concerns no other model
        with pytest.raises(StorageError, match="TG0581"):
            check_model("later", "", monday.settings, monday.ledger)
        return
    check_model("later", "", monday.settings, monday.ledger)
    monday.record(4, "HOLD", name="later", run_id="run-4-of-monday")
    assert synchronise(monday.ledger, monday.settings) is None
    assert ("1", "HOLD") in monday.mlflow_state("later")["versions"]


def test_a_record_that_cannot_be_read_and_a_server_that_hangs_prevent_no_rollback(shared: Place) -> None:
    record = shared.home / "runs" / "run-2.json"
    record.unlink()
    record.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as hanging:  # it accepts, and never answers
        asked = replace(shared.settings, mlflow_tracking_uri=f"http://127.0.0.1:{hanging.getsockname()[1]}")
        begun, took = time.monotonic(), list[float]()

        def move() -> None:
            took.append(time.monotonic() - begun)
            shared.ledger.rollback("replies", reason="complaints")
            hanging.close()  # what follows fails at once

        _, late = decide(shared.ledger, asked, "replies", move)
    assert late is not None
    assert took[0] < 15
    champion = shared.ledger.champion("replies")
    assert champion is not None
    assert champion.version == "1"
