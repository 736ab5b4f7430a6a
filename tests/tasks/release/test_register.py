"""MLflow's registry on a real store: one version per candidate, with tags and aliases that follow the verdict."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.artifacts import BundleRef
from schemas.errors import ConfigError, DataError, ServiceError, StorageError
from schemas.release import RunRecord
from tasks.release.register import (
    BUNDLE_TAG,
    MODEL_TAG,
    NAME_TAG,
    OWNER_TAG,
    PROMOTION_TAG,
    VERSION_TAG,
    NewVersion,
    Owner,
    check_owner,
    claim_model,
    find_version,
    move_alias,
    register_version,
    tag_version,
)
from tasks.release.registered import RESULTS_TAG, fetch_registered, fetch_results, find_registered
from tasks.release.tracking import begin_run, open_client
from tasks.storage.sealed_folder import verify
from tests.support.place import alias_version, verdicts_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

Make = Callable[[str], BundleRef]
Register = Callable[..., str]
OURS = Owner("ours", "entry-2", frozenset({"entry-1", "entry-2"}).__contains__)


def models_of(client: MlflowClient, name: str) -> list[LoggedModel]:
    """The logged models of a name."""
    experiments = [each.experiment_id for each in client.search_experiments()]
    return list(client.search_logged_models(experiments, f"tags.`{NAME_TAG}` = '{name}'"))


@pytest.fixture
def register(client: MlflowClient, uri: str, make_record: Callable[..., RunRecord]) -> Register:
    """Register a bundle as a version of a name, with a verdict of a run."""

    def register(
        bundle: BundleRef,
        *,
        name: str,
        version: str,
        verdict: str = "HOLD",
        owner: Owner = OURS,
        run_id: str = "",
        **tags: str,
    ) -> str:
        run_id = run_id or f"{name}-{version}"
        run = begin_run(client, make_record(run_id), experiment="tunegate", uri=uri)
        folder = bundle.root.with_name(f"decision-{run_id}")
        folder.mkdir(exist_ok=True)
        (folder / "decision.md").write_text(f"# {verdict}\n")
        new = NewVersion(
            version, bundle, run, {"tunegate.verdict": verdict, **tags},
            verdict_files={run_id: (folder / "decision.md",)},
        )  # fmt: skip
        return register_version(client, new, name=name, owner=owner, uri=uri)

    return register


def test_registering_twice_makes_one_version_whose_tags_follow_the_verdict(
    client: MlflowClient, uri: str, register: Register, make_bundle: Make
) -> None:
    bundle = make_bundle("one")
    first = register(bundle, name="twice", version="4", verdict="HOLD")
    assert register(bundle, name="twice", version="4", verdict="PROMOTE") == first == "1"
    [version] = client.search_model_versions("name = 'twice'")
    assert (version.tags["tunegate.verdict"], version.tags[VERSION_TAG]) == ("PROMOTE", "4")
    assert find_version(client, name="twice", version="4", bundle=bundle, owner=OURS, uri=uri) == "1"
    assert find_version(client, name="twice", version="1", bundle=bundle, owner=OURS, uri=uri) is None
    assert find_version(client, name="nobody", version="1", bundle=bundle, owner=OURS, uri=uri) is None
    other = make_bundle("other files")
    assert find_version(client, name="twice", version="4", bundle=other, owner=OURS, uri=uri) is None


def test_a_second_verdict_adds_its_files_and_leaves_no_tag_of_the_first(
    client: MlflowClient, uri: str, register: Register, make_bundle: Make
) -> None:
    bundle = make_bundle("judged twice")
    number = register(bundle, name="second", version="1", run_id="monday", **{"tunegate.score": "exact 0.5"})
    client.set_model_version_tag("second", number, "team", "support")
    tag_version(client, name="second", mlflow_version=number, tags={PROMOTION_TAG: "event-1"}, uri=uri)
    for _ in range(2):
        assert register(bundle, name="second", version="1", verdict="PROMOTE", run_id="tuesday") == number
        move_alias(client, name="second", alias="champion", mlflow_version=number, uri=uri)
        (found,) = models_of(client, "second")
        assert verdicts_of(client, "second") == {"monday": "# HOLD\n", "tuesday": "# PROMOTE\n"}
        assert client.get_model_version("second", number).tags == {
            "tunegate.verdict": "PROMOTE", VERSION_TAG: "1", OWNER_TAG: "ours", BUNDLE_TAG: bundle.digest,
            PROMOTION_TAG: "event-1", "team": "support", MODEL_TAG: found.model_id,
        }  # fmt: skip


def test_a_registered_model_follows_one_ledger(
    client: MlflowClient, uri: str, register: Register, make_bundle: Make
) -> None:
    theirs = Owner("theirs", "entry-9", OURS.knows)
    register(make_bundle("ours"), name="owned", version="1")
    assert client.get_registered_model("owned").tags[OWNER_TAG] == "ours"
    bundle = make_bundle("theirs")
    with pytest.raises(StorageError, match=r"TG0581.*follows ledger ours"):
        register(bundle, name="owned", version="1", owner=theirs)
    assert len(client.search_model_versions("name = 'owned'")) == 1
    # A person accepted their ledger instead of ours, so it starts with its own versions.
    taken = replace(theirs, former=frozenset({"ours"}))
    assert register(bundle, name="owned", version="1", owner=taken) == "2"
    assert client.get_registered_model("owned").tags[OWNER_TAG] == "theirs"
    assert find_version(client, name="owned", version="1", bundle=bundle, owner=taken, uri=uri) == "2"
    with pytest.raises(StorageError, match="TG0581"):
        check_owner(client, name="owned", owner=OURS, uri=uri)


def test_a_version_without_the_tag_of_its_model_gets_it_back(
    client: MlflowClient, register: Register, make_bundle: Make
) -> None:
    bundle = make_bundle("untagged")
    number = register(bundle, name="untagged.name", version="1")
    (model,) = models_of(client, "untagged.name")
    assert model.name == "untagged_name-v1"
    client.delete_model_version_tag("untagged.name", number, MODEL_TAG)
    assert register(bundle, name="untagged.name", version="1") == number
    assert [each.model_id for each in models_of(client, "untagged.name")] == [model.model_id]
    assert client.get_model_version("untagged.name", number).tags[MODEL_TAG] == model.model_id


def test_other_files_under_a_version_are_an_error(client: MlflowClient, register: Register, make_bundle: Make) -> None:
    register(make_bundle("first"), name="files", version="1", run_id="of a copy of the home folder")
    second = make_bundle("second")
    with pytest.raises(StorageError, match=r"TG0581.*holds other files"):
        register(second, name="files", version="1", run_id="ours")
    assert len(client.search_model_versions("name = 'files'")) == 1


def test_another_whole_folder_in_the_bundles_place_is_not_registered(
    client: MlflowClient, register: Register, make_bundle: Make
) -> None:
    bundle, other = make_bundle("mine"), make_bundle("another")
    swapped = bundle.model_copy(update={"root": other.root})
    with pytest.raises(StorageError, match="TG0549"):
        register(swapped, name="swapped", version="1")
    assert client.search_registered_models("name = 'swapped'") == []


def test_a_copy_of_the_ledger_without_the_last_entry_that_mlflow_has_is_refused_unless_it_was_accepted(
    client: MlflowClient, uri: str, register: Register, make_bundle: Make
) -> None:
    claim_model(client, name="entries", owner=OURS, uri=uri)
    check_owner(client, name="entries", owner=OURS, uri=uri)  # no owner yet
    register(make_bundle("entry"), name="entries", version="1")
    check_owner(client, name="entries", owner=OURS, uri=uri)
    restored = Owner("ours", "entry-1", frozenset({"entry-1"}).__contains__)
    with pytest.raises(StorageError, match=r"TG0581.*\(entry-2\) that is not here"):
        check_owner(client, name="entries", owner=restored, uri=uri)
    check_owner(client, name="entries", owner=restored, uri=uri, accepted=True)
    claim_model(client, name="entries", owner=restored, uri=uri)
    check_owner(client, name="entries", owner=restored, uri=uri)


def test_versions_are_found_by_verdict(client: MlflowClient, register: Register, make_bundle: Make) -> None:
    for number, verdict in enumerate(("PROMOTE", "BLOCK", "BLOCK"), 1):
        register(make_bundle(str(number)), name="verdicts", version=str(number), verdict=verdict)
    found = client.search_model_versions("name = 'verdicts' and tags.`tunegate.verdict` = 'BLOCK'")
    assert sorted(version.tags[VERSION_TAG] for version in found) == ["2", "3"]


def test_aliases_move_and_name_the_ledgers_version(
    client: MlflowClient, uri: str, register: Register, make_bundle: Make
) -> None:
    assert alias_version(client, name="aliases", alias="champion", uri=uri) is None
    numbers = {version: register(make_bundle(version), name="aliases", version=version) for version in ("7", "9")}
    assert alias_version(client, name="aliases", alias="champion", uri=uri) is None
    for version in ("7", "9", "7"):
        move_alias(client, name="aliases", alias="champion", mlflow_version=numbers[version], uri=uri)
        assert alias_version(client, name="aliases", alias="champion", uri=uri) == version


def test_the_registered_bundle_is_complete_and_contains_no_pickle(
    client: MlflowClient, register: Register, make_bundle: Make, store_home: Path
) -> None:
    register(make_bundle("whole"), name="whole", version="1")
    [version] = client.search_model_versions("name = 'whole'")
    artifacts = Path(version.source.removeprefix("file://"))
    assert artifacts.is_relative_to(store_home)
    verify(artifacts / "data" / "bundle-whole")
    assert not [path for path in store_home.rglob("*") if path.suffix in {".pkl", ".pickle", ".joblib", ".pt", ".bin"}]


def test_a_tampered_bundle_is_not_registered(client: MlflowClient, register: Register, make_bundle: Make) -> None:
    bundle = make_bundle("tampered")
    (bundle.root / "serving.json").write_text("another\n")
    with pytest.raises(StorageError, match=r"TG0510.*serving\.json|serving\.json"):
        register(bundle, name="tampered", version="1")
    assert client.search_registered_models("name = 'tampered'") == []


def test_an_unreachable_server_is_not_a_missing_alias() -> None:
    uri = "http://127.0.0.1:9"
    with pytest.raises(ServiceError, match="TG0710"):
        alias_version(open_client(uri), name="x", alias="champion", uri=uri)


def test_a_version_that_another_program_registered_is_found_by_alias_or_number(
    client: MlflowClient, uri: str, tmp_path: Path
) -> None:
    """Its files come from where it says, whatever the alias names later."""
    client.create_registered_model("theirs")
    for number in (1, 2):
        folder = tmp_path / f"version-{number}"
        folder.mkdir()
        (folder / "adapter_config.json").write_text(str(number))
        client.create_model_version("theirs", source=folder.as_uri())
    client.set_registered_model_alias("theirs", "best", "1")
    found = find_registered("models:/theirs@best", uri=uri)
    assert (found.name, found.version) == ("theirs", "1")
    client.set_registered_model_alias("theirs", "best", "2")
    assert find_registered("models:/theirs@best", uri=uri) == find_registered("models:/theirs/2", uri=uri) != found
    out = tmp_path / "out"
    out.mkdir()
    fetched = fetch_registered(out, source=found.source, uri=uri)
    assert [path.read_text() for path in fetched.root.rglob("adapter_config.json")] == ["1"]
    for address in ("models:/theirs@worst", "models:/theirs/3", "models:/nobody@best"):
        with pytest.raises(ConfigError, match=f"MLflow has no {address}"):
            find_registered(address, uri=uri)
    gc.collect()  # MLflow's own cycles keep the threads of its downloads


def test_the_results_of_a_version_are_the_only_table_of_its_run_or_what_its_tag_names(
    client: MlflowClient, uri: str, tmp_path: Path
) -> None:
    """Which results are meant is never guessed."""
    client.create_registered_model("judged")
    experiment = client.create_experiment("judged", artifact_location=(tmp_path / "artifacts").as_uri())

    def register(*tables: str, run_id: str | None = None, **tags: str) -> str:
        run_id = run_id or client.create_run(experiment).info.run_id
        for table in tables:
            client.log_dict(run_id, {"columns": ["id", "exact"], "data": [["t1", len(table)]]}, table)
        client.create_model_version("judged", source="runs:/unused", run_id=run_id, tags=tags)
        return str(run_id)

    def read(version: int) -> tuple[str, str]:
        out = tmp_path / f"results-{version}"
        out.mkdir(exist_ok=True)
        artifact, path = fetch_results(find_registered(f"models:/judged/{version}", uri=uri), out)
        return artifact, path.read_text()

    run_id = register("test_eval_results_table.json")
    artifact, text = read(1)
    assert (artifact, "28" in text) == ("test_eval_results_table.json", True)
    register("test_eval_results_table.json", "val_eval_results_table.json")
    with pytest.raises(DataError, match=r"has the tables test_.*, val_.*") as refused:
        read(2)
    assert "tag `results`" in str(refused.value.hint)
    register("own.json")
    with pytest.raises(DataError, match=r"has no eval_results_table\.json"):
        read(3)
    register("eval/rows.json", "eval_results_table.json", **{RESULTS_TAG: "eval/rows.json"})
    assert read(4)[0] == "eval/rows.json"
    register(run_id=run_id)
    with pytest.raises(DataError, match="has 2 versions of the name"):
        read(1)
    client.create_model_version("judged", source=tmp_path.as_uri())
    with pytest.raises(DataError, match="comes from no run"):
        read(6)
    gc.collect()  # MLflow's own cycles keep the threads of its downloads
