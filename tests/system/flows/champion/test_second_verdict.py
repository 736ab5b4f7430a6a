"""Several verdicts on the same weights, by labels or by other gates, from the command to a real MLflow server."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.release.register import BUNDLE_TAG, VERDICTS, VERSION_TAG
from tasks.release.tracking import RUN_TAG, open_client
from tests.flows.cli.test_gate_label import labels_are_declared
from tests.support.workplace import AS_GOOD, ForkedWorkplace
from tests.system.flows.champion.test_mlflow_sync_servers import mlflow_server

pytestmark = pytest.mark.server


@pytest.fixture
def mlflow(workplace: ForkedWorkplace, tmp_path: Path) -> Iterator[str]:
    """A server that the commands of the workplace use."""
    with mlflow_server(
        tmp_path / "server", "--backend-store-uri", f"sqlite:///{tmp_path / 'server' / 'mlflow.db'}"
    ) as uri:
        workplace.environ["MLFLOW_TRACKING_URI"] = uri
        yield uri


def judge(workplace: ForkedWorkplace) -> tuple[str, str]:
    """Run the pipeline, MLflow included; return run and verdict."""
    done = workplace.run("run", "small", "--require-mlflow", "--json")
    outcome = json.loads(done.stdout)
    assert outcome["mlflow_pending"] == 0, done.stderr
    assert done.returncode == {"PROMOTE": 0, "BLOCK": 5, "HOLD": 8}[outcome["verdict"]], done.stderr
    return outcome["run_id"], outcome["verdict"]


def mlflow_has(workplace: ForkedWorkplace, uri: str, verdicts: dict[str, str], scratch: Path) -> None:
    """MLflow's champion is the ledger's, has the tags of the newest verdict and the files of all."""
    champion = workplace.json("model", "champion", "small")["champion"]
    client = open_client(uri)
    (version,) = client.search_model_versions("name = 'small'")
    assert str(client.get_model_version_by_alias("small", "champion").version) == str(version.version)
    newest = list(verdicts)[-1]
    assert (version.tags[VERSION_TAG], version.tags[BUNDLE_TAG]) == (champion["version"], champion["bundle"]["digest"])
    assert (version.tags[RUN_TAG], version.tags["tunegate.verdict"]) == (newest, verdicts[newest])
    assert verdicts[newest] in version.description
    run = str(version.run_id)
    assert {Path(each.path).name for each in client.list_artifacts(run, VERDICTS)} == verdicts.keys()
    for judged, verdict in verdicts.items():
        folder = Path(client.download_artifacts(run, f"{VERDICTS}/{judged}", str(scratch)))
        assert {each.name for each in folder.iterdir()} == {
            "decision.json", "decision.md", "items.json", "report-without-text.html",
        }  # fmt: skip
        assert json.loads((folder / "decision.json").read_bytes())["verdict"] == verdict


def reconcile_changes_nothing(workplace: ForkedWorkplace) -> None:
    done = workplace.run("ops", "reconcile", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert not any(found.values()), found


def test_a_candidate_that_labels_promote_is_the_champion_of_mlflow(
    workplace: ForkedWorkplace, mlflow: str, tmp_path: Path
) -> None:
    workplace.declare(labels_are_declared)
    verdicts = dict([judge(workplace)])
    (run_id,) = verdicts
    assert verdicts == {run_id: "HOLD"}
    written = workplace.run("gate", "label", run_id, "--rater", "ada", "--write", "csv").stdout.strip()
    with Path(written).open(newline="") as stream:
        rows = [row | {"right": "both"} for row in csv.DictReader(stream)]
    with (tmp_path / "filled.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    read = workplace.run("gate", "label", run_id, "--rater", "ada", "--read", str(tmp_path / "filled.csv"))
    assert read.returncode == 0, read.stderr
    verdicts |= dict([judge(workplace)])
    assert list(verdicts.values()) == ["HOLD", "PROMOTE"]
    for _ in range(2):
        mlflow_has(workplace, mlflow, verdicts, tmp_path)
        reconcile_changes_nothing(workplace)


def test_a_candidate_that_other_gates_promote_is_the_champion_of_mlflow(
    workplace: ForkedWorkplace, mlflow: str, tmp_path: Path
) -> None:
    verdicts: dict[str, str] = {}
    limit = {"metric": "exact", "value_threshold": 0.9}
    second = {"confidence": 0.51, "looks": {"max": 2, "spend": "equal"}}
    for gates in ({"rules": [limit], "confidence": 0.95}, second):

        def judged_by(document: dict[str, Any], gates: dict[str, Any] = gates) -> None:
            document["pipelines"]["small"]["gates"] = AS_GOOD | gates
            document["pipelines"]["small"]["evaluate"]["max_items"] = 40  # a second look needs more than 12

        workplace.declare(judged_by)
        verdicts |= dict([judge(workplace)])
    assert list(verdicts.values()) == ["BLOCK", "PROMOTE"]
    for _ in range(2):
        mlflow_has(workplace, mlflow, verdicts, tmp_path)
        reconcile_changes_nothing(workplace)
