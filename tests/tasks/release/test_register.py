"""MLflow's registry on a real store: one version per candidate, tags that follow the verdict, aliases that follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from schemas.artifacts import BundleRef
from schemas.errors import ServiceError, StorageError
from schemas.release import RunRecord
from tasks.files import verify
from tasks.release.register import VERSION_TAG, alias_version, find_version, move_alias, register_version
from tasks.release.tracking import begin_run, open_client

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = pytest.mark.filterwarnings(  # of mlflow about itself, when it is first imported
    "ignore:The ..noload.. loader strategy:DeprecationWarning", "ignore:.*Any type hint is inferred:UserWarning"
)

Make = Callable[[str], BundleRef]
Register = Callable[..., str]


@pytest.fixture
def register(client: MlflowClient, uri: str, make_record: Callable[..., RunRecord]) -> Register:
    """Register a bundle as a version of a name, with a verdict."""

    def register(bundle: BundleRef, *, name: str, version: str, verdict: str = "HOLD") -> str:
        run = begin_run(client, make_record(f"{name}-{version}"), experiment="tunegate", uri=uri)
        tags = {"tunegate.verdict": verdict}
        return register_version(client, bundle, name=name, version=version, mlflow_run=run, tags=tags, uri=uri)

    return register


def test_registering_twice_makes_one_version_and_its_tags_follow_the_verdict(
    client: MlflowClient, uri: str, register: Register, make_bundle: Make
) -> None:
    bundle = make_bundle("one")
    first = register(bundle, name="twice", version="4", verdict="HOLD")
    assert register(bundle, name="twice", version="4", verdict="PROMOTE") == first == "1"
    [version] = client.search_model_versions("name = 'twice'")
    assert (version.tags["tunegate.verdict"], version.tags[VERSION_TAG]) == ("PROMOTE", "4")
    assert find_version(client, name="twice", version="4", uri=uri) == "1"
    assert find_version(client, name="twice", version="1", uri=uri) is None
    assert find_version(client, name="nobody", version="1", uri=uri) is None


def test_versions_are_found_by_verdict(client: MlflowClient, register: Register, make_bundle: Make) -> None:
    for number, verdict in enumerate(("PROMOTE", "BLOCK", "BLOCK"), 1):
        register(make_bundle(str(number)), name="verdicts", version=str(number), verdict=verdict)
    found = client.search_model_versions("name = 'verdicts' and tags.`tunegate.verdict` = 'BLOCK'")
    assert sorted(version.tags[VERSION_TAG] for version in found) == ["2", "3"]


def test_aliases_move_and_say_the_ledgers_version(
    client: MlflowClient, uri: str, register: Register, make_bundle: Make
) -> None:
    assert alias_version(client, name="aliases", alias="champion", uri=uri) is None
    numbers = {version: register(make_bundle(version), name="aliases", version=version) for version in ("7", "9")}
    assert alias_version(client, name="aliases", alias="champion", uri=uri) is None
    for version in ("7", "9", "7"):
        move_alias(client, name="aliases", alias="champion", mlflow_version=numbers[version], uri=uri)
        assert alias_version(client, name="aliases", alias="champion", uri=uri) == version


def test_the_bundle_arrives_whole_and_nothing_of_it_is_pickled(
    client: MlflowClient, register: Register, make_bundle: Make, store_home: Path
) -> None:
    register(make_bundle("whole"), name="whole", version="1")
    [version] = client.search_model_versions("name = 'whole'")
    artifacts = Path(version.source.removeprefix("file://"))
    assert artifacts.is_relative_to(store_home)
    verify(artifacts / "data" / "bundle-whole")
    assert not [path for path in store_home.rglob("*") if path.suffix in {".pkl", ".pickle", ".joblib", ".pt", ".bin"}]


def test_a_bundle_that_was_tampered_with_is_not_registered(
    client: MlflowClient, register: Register, make_bundle: Make
) -> None:
    bundle = make_bundle("tampered")
    (bundle.root / "serving.json").write_text("another\n")
    with pytest.raises(StorageError, match=r"TG0512.*serving\.json|serving\.json"):
        register(bundle, name="tampered", version="1")
    assert client.search_registered_models("name = 'tampered'") == []


def test_a_server_that_is_down_is_no_missing_alias() -> None:
    uri = "http://127.0.0.1:9"
    with pytest.raises(ServiceError, match="TG0710"):
        alias_version(open_client(uri), name="x", alias="champion", uri=uri)
