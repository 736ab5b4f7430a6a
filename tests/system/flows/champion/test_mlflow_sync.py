"""MLflow follows the ledger to the same state: repeated, late, in parts, after a kill, or by two processes at once."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flows.champion.mlflow_sync import reconcile, synchronise
from flows.ledger.rows import RunVerdict
from flows.registry.address import registry_address
from flows.workspace.login import read_login
from flows.workspace.servers import ensure_mlflow, stop_all
from tasks.release.register import MODEL_TAG
from tasks.release.tracking import open_client
from tasks.storage.failpoint import PLACES
from tests.support.place import Place, alias_version

KILLED = [*(name for name in PLACES if name.startswith(("ledger.promote", "mlflow."))), "mlflow.synced:2"]
MOVED = {"mlflow.champion", "mlflow.challenger", "mlflow.marked", "mlflow.synced:2"}
"""Places at which MLflow's champion has already moved. The first change is the candidate, the second the champion."""
HALF = "half a file"
"""An extra place: MLflow has copied half of the bundle's only file."""
PROMOTE_AND_SYNC = """
import json, os, shutil, sys
from pathlib import Path
import mlflow.pyfunc  # once, for all of the children
from flows.ledger.rows import RunVerdict
from flows.ledger.ledger import Ledger
from flows.champion.mlflow_sync import synchronise
from flows.workspace.settings import Settings

def promote_and_tell(home):
    ledger, settings = Ledger(home), Settings(home=home, cache=home, prefect_api_url=None, mlflow_tracking_uri=None)
    ledger.promote("replies", expected="1", version="2", verdict=RunVerdict("run-2", "better"))
    synchronise(ledger, settings)

def copy_half(source, target, **_named):
    Path(target).write_bytes(Path(source).read_bytes()[:1])
    if Path(target).name == "serving.json" and not os.environ.pop("SPARE", None):
        os.kill(os.getpid(), 9)
    return copy(source, target)

copy = shutil.copyfile
ended = {}
for place in sys.argv[2:]:
    child = os.fork()
    if not child:
        if place == "half a file":
            os.environ["SPARE"] = "the copy that is made before MLflow's"
            shutil.copyfile = copy_half
        else:
            os.environ["TUNEGATE_FAILPOINT"] = place
        try:
            promote_and_tell(Path(sys.argv[1]) / place)
        finally:
            os._exit(1)
    ended[place] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""


def test_after_a_kill_anywhere_between_verdict_and_alias_a_rerun_reaches_the_same_state(
    place: Place, project: Path
) -> None:
    for name, left in killed_at(KILLED, place, project).items():
        assert left.ledger.pending_projections() != ()
        assert left.mlflow_state()["champion"] == ("2" if name in MOVED else "1"), name
        for _ in range(2):  # repeated runs change nothing
            left.ledger.promote("replies", expected="1", version="2", verdict=RunVerdict("run-2", "better"))
            assert synchronise(left.ledger, left.settings) is None
        assert [event.action for event in left.ledger.history()] == ["promote", "promote"]
        assert left.mlflow_state() == {
            "versions": [("1", "PROMOTE"), ("2", "PROMOTE")], "previous": "1", "champion": "2", "challenger": None,
            "runs": [("run-1", "FINISHED"), ("run-2", "FINISHED")],
        }, name  # fmt: skip
        assert left.models() == [
            {
                "version": number, "status": "READY", "verdict": "PROMOTE", "aliases": [alias],
                "params": {"train.seed": number}, "scores": [(f"run-{number}", "exact", 0.5, "small-held-out")],
                "made_by": [f"run-{number}"], "judged_by": [],
            }
            for number, alias in (("1", "previous"), ("2", "champion"))
        ], name  # fmt: skip


def test_after_a_kill_during_registration_reconcile_reaches_the_same_state(place: Place, project: Path) -> None:
    killed = killed_at(
        ["mlflow.run", "mlflow.model", HALF, "mlflow.artifacts", "mlflow.scored", "mlflow.version"], place, project
    )
    whole = place.at(place.home.with_name("whole"))
    shutil.copytree(place.home, whole.home)
    whole.ledger.promote("replies", expected="1", version="2", verdict=RunVerdict("run-2", "better"))
    assert reconcile(whole.ledger, whole.settings).late is None
    for name, left in killed.items():
        assert left.mlflow_state() != whole.mlflow_state(), name
        for _ in range(2):
            assert reconcile(left.ledger, left.settings).late is None, name
            assert left.mlflow_state() == whole.mlflow_state(), name
            assert left.models() == whole.models(), name
            assert registered_files(left) == registered_files(whole), name


def test_after_a_kill_between_a_second_verdicts_files_and_its_tags_a_rerun_reaches_the_same_state(
    place: Place, project: Path
) -> None:
    names = ["mlflow.run", "mlflow.attached", "mlflow.scored", "mlflow.version"]
    for name, left in killed_at(names, place, project, held_before=True).items():
        expected = ("2", "PROMOTE" if name in ("mlflow.scored", "mlflow.version") else "HOLD")
        assert left.mlflow_state()["versions"] == [("1", "PROMOTE"), expected], name
        for _ in range(2):
            assert reconcile(left.ledger, left.settings).late is None
            assert left.mlflow_state() == {
                "versions": [("1", "PROMOTE"), ("2", "PROMOTE")], "previous": "1", "champion": "2", "challenger": None,
                "runs": [("run-1", "FINISHED"), ("run-2", "FINISHED"), ("run-held", "FINISHED")],
            }, name  # fmt: skip
            assert left.models()[1]["judged_by"] == ["run-2"]
            assert left.verdicts() == {"run-2": "# PROMOTE\n", "run-held": "# HOLD\n"}, name


def killed_at(names: Sequence[str], place: Place, project: Path, *, held_before: bool = False) -> dict[str, Place]:
    """Homes with champion version 1 in which the promotion of version 2 was killed at each place."""
    place.promote(1, after=None)
    if held_before:
        place.record(2, "HOLD", run_id="run-held")
    assert synchronise(place.ledger, place.settings) is None
    place.record(2, "PROMOTE")
    folder = place.home.with_name("killed")
    for name in names:
        shutil.copytree(place.home, folder / name)
    done = subprocess.run(
        [sys.executable, "-c", PROMOTE_AND_SYNC, str(folder), *names],
        env={**os.environ, "PYTHONPATH": str(project)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(names, -9)
    return {name: place.at(folder / name) for name in names}


def registered_files(place: Place) -> dict[str, bytes]:
    """MLflow's files of version 2; only the names of its own files, which contain a time and an id."""
    (version,) = [
        found for found in place.client.search_model_versions("name = 'replies'") if str(found.version) == "2"
    ]
    folder = Path(str(version.source).removeprefix("file://"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() if "data" in path.parts else b"" for path in files}


@pytest.fixture
def server(place: Place) -> Iterator[str]:
    """The MLflow server of `tunegate ops up` on the place's files."""
    yield ensure_mlflow(place.home).url
    stop_all(place.home)


def fetch(url: str, login: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {b64encode(login.encode()).decode()}"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return bytes(response.read())


@pytest.mark.server
def test_a_server_and_direct_access_to_the_same_files_can_alternate(
    place: Place, server: str, capfd: pytest.CaptureFixture[str]
) -> None:
    served, login = replace(place.settings, mlflow_tracking_uri=server), read_login(place.home / "mlflow")
    assert login is not None
    address = registry_address("", served)
    turns = [(place.settings, "tunegate"), (served, "tunegate"), (served, "second"), (place.settings, "second")]
    for number, (settings, experiment) in enumerate(turns, 1):
        place.promote(number, after=str(number - 1) if number > 1 else None, experiment=experiment)
        assert synchronise(place.ledger, settings) is None
    assert place.mlflow_state()["versions"] == [(str(number), "PROMOTE") for number in (1, 2, 3, 4)]
    alias = alias_version(open_client(address), name="replies", alias="champion", uri=server)
    assert place.mlflow_state()["champion"] == alias
    assert place.mlflow_state()["champion"] == "4"
    for number in (1, 2, 3, 4):  # as the UI reads files
        file = f"data/{number:064x}/serving.json"
        run = place.ledger.run(f"run-{number}").mlflow_run_id
        model = open_client(address).get_model_version("replies", str(number)).tags[MODEL_TAG]
        shown = fetch(
            f"{server}/ajax-api/2.0/mlflow/logged-models/{model}/artifacts/files?artifact_file_path={file}", login
        )
        version = fetch(f"{server}/model-versions/get-artifact?path={file}&name=replies&version={number}", login)
        assert shown == version == f"{number}\n".encode()
        for uri in (place.uri, address):
            listed = [entry.path for entry in open_client(uri).list_artifacts(str(run))]
            assert listed == ["decision.md", "verdicts"]
    assert capfd.readouterr() == ("", "")
