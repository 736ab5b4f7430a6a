"""MLflow follows the ledger to the same state: repeated, late, in parts, after a kill, or by two processes at once."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.champion import mlflow_sync
from flows.champion.mlflow_sync import SyncResult, reconcile, synchronise
from flows.ledger.promotions import Waits
from flows.ledger.rows import RunVerdict
from schemas.errors import ConfigError, ServiceError, StorageError
from schemas.release import RunRecord
from schemas.verdicts import Verdict
from tasks.release import register
from tasks.release.register import ALIAS_TAG, BUNDLE_TAG, MODEL_TAG
from tasks.release.tracking import RUN_TAG, begin_run, open_client
from tests.support.place import alias_version, verdicts_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow import MlflowClient

    from flows.ledger.ledger import Ledger
    from flows.ledger.rows import Projection
    from flows.workspace.settings import Settings
    from tests.support.place import Place

NOWHERE = "http://127.0.0.1:9"


def test_sending_twice_registers_once(place: Place) -> None:
    place.promote(1, after=None)
    place.record(2, "BLOCK")
    assert synchronise(place.ledger, place.settings) is None
    first = place.mlflow_state()
    assert first == {
        "versions": [("1", "PROMOTE"), ("2", "BLOCK")], "previous": None, "champion": "1", "challenger": None,
        "runs": [("run-1", "FINISHED"), ("run-2", "FINISHED")],
    }  # fmt: skip
    assert place.ledger.pending_projections() == ()
    place.forget()
    assert synchronise(place.ledger, place.settings) is None
    assert place.mlflow_state() == first
    assert place.ledger.run("run-1").mlflow_run_id
    row = place.ledger.candidate("replies", "1")
    assert row is not None
    assert row.mlflow_version == "1"


def test_a_reason_that_names_a_label_in_markdown_is_text_in_mlflow(place: Place) -> None:
    place.record(1, "BLOCK", reason="worse in category=![x](https://evil/p.png)")
    assert synchronise(place.ledger, place.settings) is None
    version = place.client.get_model_version("replies", "1")
    assert str(version.description).startswith("**BLOCK**\n\nworse in category=!\\[x\\](")
    assert "https://" not in str(version.description)


def test_syncing_without_changes_touches_nothing(place: Place) -> None:
    before = sorted(place.home.rglob("*"))
    assert synchronise(place.ledger, replace(place.settings, mlflow_tracking_uri=NOWHERE)) is None
    assert sorted(place.home.rglob("*")) == before


def test_an_unreachable_mlflow_is_tried_once_and_synced_later(place: Place) -> None:
    place.promote(1, after=None)
    for number in (2, 3, 4):
        place.promote(number, after=None, name=f"other-{number}")
    unreachable = replace(place.settings, mlflow_tracking_uri=NOWHERE)
    start = time.monotonic()
    late = synchronise(place.ledger, unreachable)
    assert time.monotonic() - start < 20
    assert isinstance(late, ServiceError)
    assert late.exit_code == 7
    champion = place.ledger.champion("replies")
    assert champion is not None
    assert champion.version == "1"
    assert len(place.ledger.pending_projections()) == 8

    assert synchronise(place.ledger, place.settings) is None
    assert place.mlflow_state()["champion"] == place.mlflow_state("other-3")["champion"] == "1"


def test_a_later_verdict_updates_the_tags_and_adds_its_own_run(place: Place) -> None:
    place.record(1, "HOLD", reason="few items")
    assert synchronise(place.ledger, place.settings) is None
    assert place.record(1, "BLOCK", run_id="run-later", reason="worse") == "1"
    assert synchronise(place.ledger, place.settings) is None
    assert place.mlflow_state()["versions"] == [("1", "BLOCK")]
    assert place.mlflow_state()["runs"] == [("run-1", "FINISHED"), ("run-later", "FINISHED")]
    [version] = place.client.search_model_versions("tags.`tunegate.verdict` = 'BLOCK'")
    assert version.tags["tunegate.reason"] == "worse"
    assert (version.tags["tunegate.code"], version.tags[RUN_TAG]) == ("code of run-later", "run-later")
    assert place.client.search_model_versions("tags.`tunegate.verdict` = 'HOLD'") == []


@pytest.mark.parametrize("first", ["HOLD", "BLOCK"])
def test_a_held_version_that_a_second_verdict_promotes_becomes_champion_with_the_files_of_both(
    place: Place, first: Verdict
) -> None:
    place.record(1, first)
    assert synchronise(place.ledger, place.settings) is None
    place.record(1, "PROMOTE", run_id="run-later", reason="better")
    place.ledger.promote("replies", expected=None, version="1", verdict=RunVerdict("run-later", "better"))
    for _ in range(2):
        assert synchronise(place.ledger, place.settings) is None
        assert place.mlflow_state()["versions"] == [("1", "PROMOTE")]
        assert place.mlflow_state()["champion"] == "1"
        assert place.verdicts() == {"run-1": f"# {first}\n", "run-later": "# PROMOTE\n"}
        assert reconcile(place.ledger, place.settings) == SyncResult()
        place.forget()


def test_tags_are_those_of_the_newest_verdict_even_if_an_earlier_one_is_sent_last(place: Place) -> None:
    place.record(1, "HOLD", reason="few items")
    record = place.home / "runs" / "run-1.json"
    kept = record.read_bytes()
    with place.ledger.write() as db:
        db.execute("UPDATE runs SET run_id = 'lost' WHERE run_id = 'run-1'")
    record.unlink()
    place.promote(1, after=None, run_id="run-later")
    assert isinstance(synchronise(place.ledger, place.settings), ConfigError)
    assert place.verdicts() == {"run-later": "# PROMOTE\n"}
    with place.ledger.write() as db:
        db.execute("UPDATE runs SET run_id = 'run-1' WHERE run_id = 'lost'")
    record.write_bytes(kept)
    assert reconcile(place.ledger, place.settings).late is None
    assert place.verdicts() == {"run-1": "# HOLD\n", "run-later": "# PROMOTE\n"}
    tags = place.client.get_model_version_by_alias("replies", "champion").tags
    assert (tags["tunegate.verdict"], tags["tunegate.code"]) == ("PROMOTE", "code of run-later")


def test_an_alias_is_not_moved_to_a_version_that_holds_other_files(place: Place) -> None:
    place.record(1, "HOLD")
    assert synchronise(place.ledger, place.settings) is None
    place.client.set_model_version_tag("replies", "1", BUNDLE_TAG, "0" * 64)
    place.promote(1, after=None, run_id="run-later")
    result = reconcile(place.ledger, place.settings)
    assert isinstance(result.late, StorageError)
    assert result.late.code == "TG0581"
    assert place.client.get_registered_model("replies").aliases == {}


def test_changes_of_two_addresses_set_the_aliases_at_both(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Runs before and after the tracking server was changed."""
    place.promote(1, after=None)
    place.promote(2, after="1")
    place.promote(3, after="2")
    first = next(each for each in place.ledger.pending_projections() if each.kind == "champion")
    before, moved, load = f"sqlite:///{tmp_path / 'before.db'}", list[str](), mlflow_sync._record_of

    def record_of(projection: Projection, ledger: Ledger, settings: Settings) -> RunRecord:
        record = load(projection, ledger, settings)
        return record.model_copy(update={"tracking_uri": before}) if projection == first else record

    def move(_name: str, _ledger: Ledger, _settings: Settings, uri: str) -> list[str]:
        moved.append(uri)
        return []

    monkeypatch.setattr(mlflow_sync, "_record_of", record_of)
    monkeypatch.setattr(mlflow_sync, "_move_aliases", move)
    assert synchronise(place.ledger, place.settings) is None
    assert (len(moved), moved[0], before in moved[1:]) == (2, before, False)
    assert place.ledger.pending_projections() == ()


def test_aliases_follow_a_rollback_once_if_all_changes_are_sent_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked, mark_models = list[str](), register.mark_models

    def mark(client: MlflowClient, *, name: str, numbers: Mapping[str, str | None], uri: str) -> None:
        marked.append(name)
        mark_models(client, name=name, numbers=numbers, uri=uri)

    monkeypatch.setattr("flows.champion.mlflow_sync.mark_models", mark)
    place.promote(1, after=None)
    place.promote(2, after="1")
    place.ledger.rollback("replies", reason="customers complain")
    place.promote(3, after=None, name="drafts")
    assert len(place.ledger.pending_projections()) == 7
    assert synchronise(place.ledger, place.settings) is None
    assert place.ledger.pending_projections() == ()
    assert marked == ["replies", "drafts"]
    assert (place.mlflow_state()["champion"], place.mlflow_state()["previous"]) == ("1", None)
    place.ledger.rollback("replies", reason="a second look", to="2")
    assert synchronise(place.ledger, place.settings) is None
    assert (place.mlflow_state()["champion"], place.mlflow_state()["previous"]) == ("2", "1")
    assert place.mlflow_state()["versions"] == [("1", "PROMOTE"), ("2", "PROMOTE")]


def test_a_new_mlflow_gets_the_champion_it_has_never_seen(place: Place, tmp_path: Path, empty_store: Path) -> None:
    place.promote(1, after=None)
    place.promote(2, after="1")
    assert synchronise(place.ledger, place.settings) is None
    shutil.copy(empty_store, tmp_path / "another.db")
    another = f"sqlite:///{tmp_path / 'another.db'}"
    place.ledger.rollback("replies", reason="customers complain")
    assert synchronise(place.ledger, replace(place.settings, mlflow_tracking_uri=another)) is None
    assert alias_version(open_client(another), name="replies", alias="champion", uri=another) == "1"


def test_a_new_mlflow_gets_every_verdict_on_the_champion(place: Place, tmp_path: Path, empty_store: Path) -> None:
    place.record(1, "HOLD")
    place.promote(1, after=None, run_id="run-later")
    assert synchronise(place.ledger, place.settings) is None
    shutil.copy(empty_store, tmp_path / "another.db")
    another = f"sqlite:///{tmp_path / 'another.db'}"
    moved = replace(place.settings, mlflow_tracking_uri=another)
    assert reconcile(place.ledger, moved).repaired == ("replies@champion",)
    assert verdicts_of(open_client(another), "replies") == {"run-1": "# HOLD\n", "run-later": "# PROMOTE\n"}
    assert reconcile(place.ledger, moved) == SyncResult()


def test_the_challenger_is_the_version_that_waits_for_approval(place: Place) -> None:
    place.promote(1, after=None)
    version = place.record(2, "PROMOTE")
    place.ledger.promote(
        "replies", expected="1", version=version, verdict=RunVerdict("run-2", "better"), waits=Waits(approval=True)
    )
    assert synchronise(place.ledger, place.settings) is None
    assert [place.mlflow_state()[alias] for alias in ("previous", "champion", "challenger")] == [None, "1", "2"]
    place.ledger.approve("run-2", actor="ada")
    assert synchronise(place.ledger, place.settings) is None
    assert [place.mlflow_state()[alias] for alias in ("previous", "champion", "challenger")] == ["1", "2", None]
    version = place.record(3, "BLOCK")
    place.ledger.force("replies", expected="2", version=version, reason="urgent", actor="bob")
    assert synchronise(place.ledger, place.settings) is None
    tags = place.client.get_model_version_by_alias("replies", "champion").tags
    assert tags["tunegate.verdict"] == "BLOCK"
    assert tags["tunegate.promotion"].startswith("force by bob at ")


def test_an_alias_moved_in_mlflow_is_corrected(place: Place) -> None:
    place.promote(1, after=None)
    place.promote(2, after="1")
    assert reconcile(place.ledger, place.settings).n_synced == 4
    place.client.set_registered_model_alias("replies", "champion", "1")
    place.client.delete_registered_model_alias("replies", "previous")
    place.client.set_registered_model_alias("replies", "challenger", "2")
    result = reconcile(place.ledger, place.settings)
    assert (result.n_synced, result.late) == (0, None)
    assert result.repaired == ("replies@previous", "replies@champion", "replies@challenger")
    assert [place.mlflow_state()[alias] for alias in ("previous", "champion", "challenger")] == ["1", "2", None]
    assert reconcile(place.ledger, place.settings).repaired == ()
    late = reconcile(place.ledger, replace(place.settings, mlflow_tracking_uri=NOWHERE)).late
    assert isinstance(late, ServiceError)


def test_a_damaged_earlier_champion_does_not_block_the_new_one(place: Place) -> None:
    place.promote(1, after=None)
    (place.home / "store" / "bundle" / f"{1:064x}" / "serving.json").write_text("tampered\n")
    place.promote(2, after="1")
    assert isinstance(synchronise(place.ledger, place.settings), StorageError)
    assert [place.mlflow_state()[alias] for alias in ("previous", "champion")] == [None, "2"]


def test_a_damaged_bundle_blocks_no_other_change(place: Place) -> None:
    place.record(1, "BLOCK")
    (place.home / "store" / "bundle" / f"{1:064x}" / "serving.json").write_text("tampered\n")
    place.promote(2, after=None)
    late = synchronise(place.ledger, place.settings)
    assert isinstance(late, StorageError)
    assert place.mlflow_state()["champion"] == "2"
    assert place.mlflow_state()["versions"] == [("2", "PROMOTE")]
    assert [one.payload["version"] for one in place.ledger.pending_projections()] == ["1"]


def test_a_lost_record_is_rebuilt_from_the_ledger(place: Place) -> None:
    place.promote(1, after=None)
    (place.home / "runs" / "run-1.json").unlink()
    assert synchronise(place.ledger, place.settings) is None
    late = place.client.get_experiment_by_name("late")
    [run] = place.client.search_runs([late.experiment_id])
    assert run.data.params == {"train.seed": "1"}
    assert place.mlflow_state()["champion"] == "1"


def test_an_unknown_run_is_an_error_and_blocks_no_other_change(place: Place) -> None:
    place.record(1, "HOLD")
    place.promote(2, after=None)
    (place.home / "runs" / "run-1.json").unlink()
    with place.ledger.write() as db:
        db.execute("DELETE FROM runs WHERE run_id = 'run-1'")
    assert isinstance(synchronise(place.ledger, place.settings), ConfigError)
    assert place.mlflow_state()["champion"] == "2"


def test_concurrent_syncs_register_each_version_once(place: Place) -> None:
    place.promote(1, after=None)
    place.record(2, "HOLD")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: synchronise(place.ledger, place.settings), range(4)))
    assert results == [None] * 4
    assert place.mlflow_state()["versions"] == [("1", "PROMOTE"), ("2", "HOLD")]
    assert len(place.mlflow_state()["runs"]) == 2


def test_a_delayed_process_does_not_restore_an_old_champion(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.promote(1, after=None)
    assert synchronise(place.ledger, place.settings) is None
    place.promote(2, after="1")
    move_alias, delayed = register.move_alias, []

    def move_alias_late(client: MlflowClient, *, name: str, alias: str, mlflow_version: str | None, uri: str) -> bool:
        """Before moving the champion, let another host roll back and sync MLflow."""
        if alias == "champion" and not delayed:
            delayed.append(alias)
            place.ledger.rollback("replies", reason="customers complain")
            move_alias(client, name=name, alias=alias, mlflow_version="1", uri=uri)
            place.ledger.mark_projected(place.ledger.pending_projections()[-1].id)
        return move_alias(client, name=name, alias=alias, mlflow_version=mlflow_version, uri=uri)

    monkeypatch.setattr("flows.champion.mlflow_sync.move_alias", move_alias_late)
    assert synchronise(place.ledger, place.settings) is None
    assert delayed == ["champion"]
    assert place.ledger.pending_projections() == ()
    assert (place.mlflow_state()["champion"], place.mlflow_state()["previous"]) == ("1", None)


def test_dead_runs_do_not_look_alive_in_mlflow(place: Place) -> None:
    for run_id, status in (("run-dead", "INTERRUPTED"), ("run-failed", "FAILED"), ("run-alive", None)):
        place.ledger.start_run(run_id, pipeline="small", model_name="replies", config_json="{}")
        begin_run(place.client, RunRecord(run_id=run_id, pipeline="small"), experiment="tunegate", uri=place.uri)
        if status is not None:
            place.ledger.finish_run(run_id, status=status, exit_code=1)  # type: ignore[arg-type]
    place.record(1, "HOLD")
    assert synchronise(place.ledger, place.settings) is None
    assert dict(place.mlflow_state()["runs"]) == {
        "run-dead": "KILLED", "run-failed": "FAILED", "run-alive": "RUNNING", "run-1": "FINISHED",
    }  # fmt: skip


def champions(place: Place) -> list[str]:
    """The ledger's versions of the models that MLflow finds as the champion, as a person searches."""
    experiment = place.client.get_experiment_by_name("tunegate")
    found = place.client.search_logged_models(
        [experiment.experiment_id], "tags.`tunegate.alias.champion` = 'replies' AND metrics.exact >= 0.5",
        datasets=[{"dataset_name": "small-held-out"}],
    )  # fmt: skip
    return [model.tags["tunegate.version"] for model in found]


def test_a_search_for_logged_models_finds_the_champion_through_promotion_and_rollback(place: Place) -> None:
    place.promote(1, after=None)
    place.record(2, "PROMOTE")
    place.ledger.promote(
        "replies", expected="1", version="2", verdict=RunVerdict("run-2", "better"), waits=Waits(approval=True)
    )
    assert synchronise(place.ledger, place.settings) is None
    assert champions(place) == ["1"]
    assert [model["aliases"] for model in place.models()] == [["champion"], ["challenger"]]
    place.ledger.approve("run-2", actor="ada")
    assert synchronise(place.ledger, place.settings) is None
    assert champions(place) == ["2"]
    place.ledger.rollback("replies", reason="customers complain")
    assert synchronise(place.ledger, place.settings) is None
    assert champions(place) == ["1"]
    first = place.models()
    assert first == [
        {
            "version": number, "status": "READY", "verdict": "PROMOTE", "aliases": aliases,
            "params": {"train.seed": number}, "scores": [(f"run-{number}", "exact", 0.5, "small-held-out")],
            "made_by": [f"run-{number}"], "judged_by": [],
        }
        for number, aliases in (("1", ["champion"]), ("2", []))
    ]  # fmt: skip
    place.forget()
    assert synchronise(place.ledger, place.settings) is None
    assert place.models() == first


def test_a_model_has_the_verdict_and_the_scores_of_its_newest_run_and_names_all(place: Place) -> None:
    place.record(1, "HOLD")
    assert synchronise(place.ledger, place.settings) is None
    place.promote(1, after=None, run_id="run-later")
    for _ in range(2):
        assert synchronise(place.ledger, place.settings) is None
        (model,) = place.models()
        assert (model["verdict"], model["made_by"], model["judged_by"]) == ("PROMOTE", ["run-1"], ["run-later"])
        assert [score[0] for score in model["scores"]] == ["run-1", "run-later"]
        place.forget()


def test_tags_of_models_that_someone_changed_are_corrected(place: Place) -> None:
    place.promote(1, after=None)
    place.promote(2, after="1")
    assert synchronise(place.ledger, place.settings) is None
    first = place.models()
    (champion,) = (
        model
        for model in place.client.search_logged_models(
            [place.client.get_experiment_by_name("tunegate").experiment_id], "tags.`tunegate.version` = '2'"
        )
    )
    number = place.client.get_model_version_by_alias("replies", "previous").version
    other = place.client.get_model_version("replies", number).tags[MODEL_TAG]
    place.client.delete_logged_model_tag(champion.model_id, f"{ALIAS_TAG}champion")
    place.client.set_logged_model_tags(other, {f"{ALIAS_TAG}champion": "replies"})
    assert champions(place) == ["1"]
    assert reconcile(place.ledger, place.settings).late is None
    assert champions(place) == ["2"]
    assert place.models() == first


def test_each_change_of_the_registry_is_an_entry_of_the_outbox_until_it_is_sent(place: Place) -> None:
    def pending() -> list[tuple[str, str]]:
        return [(each.kind, each.payload["version"]) for each in place.ledger.pending_projections()]

    def sent() -> list[tuple[str, str]]:
        found = pending()
        assert synchronise(place.ledger, place.settings) is None
        assert place.ledger.pending_projections() == ()
        return found

    place.promote(1, after=None)
    assert synchronise(place.ledger, replace(place.settings, mlflow_tracking_uri=NOWHERE)) is not None
    assert sent() == [("candidate", "1"), ("champion", "1")]
    version = place.record(2, "PROMOTE")
    verdict = RunVerdict("run-2", "better")
    place.ledger.promote("replies", expected="1", version=version, verdict=verdict, waits=Waits(approval=True))
    assert sent() == [("candidate", "2"), ("champion", "2")]
    place.ledger.approve("run-2", actor="ada")
    assert sent() == [("champion", "2")]
    place.ledger.rollback("replies", reason="customers complain")
    assert sent() == [("champion", "1")]
    place.ledger.force("replies", expected="1", version="2", reason="urgent", actor="bob")
    assert sent() == [("champion", "2")]


def test_a_model_that_a_person_deleted_blocks_no_change_and_comes_back_with_the_next_verdict(place: Place) -> None:
    place.promote(1, after=None)
    assert synchronise(place.ledger, place.settings) is None
    deleted = place.client.get_model_version_by_alias("replies", "champion").tags[MODEL_TAG]
    place.client.delete_logged_model(deleted)
    place.promote(2, after="1")
    assert synchronise(place.ledger, place.settings) is None
    assert [(model["version"], model["aliases"]) for model in place.models()] == [("2", ["champion"])]
    place.record(1, "HOLD", run_id="run-later")
    assert synchronise(place.ledger, place.settings) is None
    assert [(model["version"], model["status"]) for model in place.models()] == [("1", "READY"), ("2", "READY")]
    assert reconcile(place.ledger, place.settings).late is None
    assert [model["aliases"] for model in place.models()] == [["previous"], ["champion"]]
