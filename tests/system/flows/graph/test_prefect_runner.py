"""The graph on a real Prefect server: edges, names, states, retries, cancellation."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.storage.files import sha256_file
from tests.support.prefect_server import PrefectServer
from tests.support.processes import processes_of, wait_for
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server

Edges = set[tuple[str, str]]


class FlowRun:
    """A flow run as Prefect's API shows it."""

    def __init__(self, server: PrefectServer, run: dict[str, Any]) -> None:
        self.server, self.run = server, run
        self.name, self.state = run["name"], run["state"]

    @classmethod
    def newest(cls, server: PrefectServer, starts: str) -> FlowRun:
        """The newest flow run with a name that starts with this."""
        found = server.ask("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 50})
        return cls(server, next(run for run in found if run["name"].startswith(starts)))

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Node id -> node. Task states arrive as events, shortly after the run has ended."""
        deadline = time.monotonic() + 600
        while True:
            found = dict(self.server.ask(f"/flow_runs/{self.run['id']}/graph-v2")["nodes"])
            if all(node["state_type"] == "COMPLETED" for node in found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def edges(self) -> Edges:
        """(from, to) by name."""
        nodes = self.nodes()
        names = {key: name_of(node["label"]) for key, node in nodes.items()}
        return {(names[parent["id"]], names[key]) for key, node in nodes.items() for parent in node["parents"]}

    def stage(self, name: str) -> FlowRun:
        """The sub-flow of a stage."""
        found = next(key for key, node in self.nodes().items() if name_of(node["label"]) == name)
        return FlowRun(self.server, self.server.ask(f"/flow_runs/{found}"))

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Name -> task run."""
        body = {"flow_runs": {"id": {"any_": [self.run["id"]]}}, "limit": 200}
        return {name_of(task["name"]): task for task in self.server.ask("/task_runs/filter", body)}


def name_of(label: str) -> str:
    """The node or stage that Prefect shows with this label."""
    return re.sub(r" \((made|reused|skipped)\)$", "", label).partition(" / ")[0].replace(": ", " · ")


def test_prefect_shows_exactly_the_edges_of_the_graph(
    workplace: ForkedWorkplace, prefect_server: PrefectServer
) -> None:
    """A run with a sweep, a blocked candidate that is not promoted, and a reused stage."""

    def sweep(document: dict[str, Any]) -> None:
        strict = document["pipelines"]["strict"]
        strict["train"]["sweep"] = {
            "kind": "grid",
            "over": {"learning_rate": [0.0001, 0.0002]},
            "metric": "heldout_loss",
        }

    workplace.declare(sweep)
    workplace.run("run", "small")
    done = workplace.run("run", "strict", "--json")
    assert done.returncode == 5, done.stderr
    run_id = workplace.json("runs")["runs"][0]["run_id"]
    declared = workplace.json("graph", "strict", "--run", run_id)
    stages = {node["name"]: node["stage"] for node in declared["nodes"]}
    edges = {(one, other) for one, other in map(tuple, declared["edges"])}

    shown = FlowRun.newest(prefect_server, "strict ")
    assert (shown.state["name"], shown.state["type"]) == ("BLOCK", "FAILED")
    assert "strict" in shown.run["tags"]
    for stage in ("curate", "finetune", "assess", "release"):
        within = {edge for edge in edges if {stages[edge[0]], stages[edge[1]]} == {stage}}
        assert shown.stage(stage).edges() == within, stage
    between = {(stages[one], stages[other]) for one, other in edges if stages[one] != stages[other]}
    assert shown.edges() == between
    assert "train" not in ancestors(edges, "answers · zero_shot")
    assert not any(name.startswith("train") for name in ancestors(edges, "answers · zero_shot"))
    assert any(name.startswith("train · trial_") for name in ancestors(edges, "answers · tuned"))

    curated = shown.stage("curate").tasks()
    effects = {"show_funnel", "publish", "index_customers", "forget_old_texts", "check_columns"}
    assert effects <= curated.keys()
    assert {curated[name]["state"]["name"] for name in effects} == {"Completed"}
    steps = [task for name, task in curated.items() if name not in effects]
    assert {task["state"]["name"] for task in steps} == {"Cached"}
    assert all(task["state"]["message"].startswith("made by ") for task in steps)
    assert all(task["name"].endswith(" (reused)") for task in steps)
    assert all("strict" in task["tags"] for task in curated.values())
    assert shown.stage("curate").name == "curate strict"
    promote = shown.stage("release").tasks()["promote"]
    assert (promote["state"]["name"], promote["state"]["message"]) == ("Skipped", "the gate says BLOCK")


def test_a_hold_is_completed_and_has_a_tag(workplace: ForkedWorkplace, prefect_server: PrefectServer) -> None:
    workplace.declare(lambda document: document["pipelines"]["small"]["register"].update(approval="required"))
    done = workplace.run("run", "small", "--json")
    assert done.returncode == 8, done.stderr
    shown = FlowRun.newest(prefect_server, "small ")
    assert (shown.state["type"], shown.state["name"]) == ("COMPLETED", "HOLD")
    assert "waits for approval" in shown.state["message"]
    assert {"hold", "small"} <= set(shown.run["tags"])


def ancestors(edges: Edges, name: str) -> set[str]:
    """All names with a path to this one."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        new = {one for one, other in edges if other == waiting[-1]} - found
        waiting.pop()
        found |= new
        waiting += new
    return found


def long_training(document: dict[str, Any]) -> None:
    """Make training long enough to interrupt, with a checkpoint every second step."""
    document["pipelines"]["small"]["train"] |= {"max_steps": 60, "epochs": 30}


def test_prefect_retries_a_killed_training_to_the_same_bytes(
    empty_workplace: ForkedWorkplace, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    empty_workplace.declare(long_training)
    empty_workplace.environ["FRESH_WORKER"] = "1"
    run = empty_workplace.start("run", "small", "--until", "finetune", "--json")
    kill_the_training(empty_workplace)
    out, error = run.communicate()
    assert run.returncode == 0, (out, error)
    task = FlowRun.newest(prefect_server, "small ").stage("finetune").tasks()["train"]
    assert task["run_count"] == 2
    assert task["state"]["name"] == "Completed"
    resumed = adapter(empty_workplace)

    (empty_workplace.home / "store" / "train").rename(tmp_path / "train-before")
    del empty_workplace.environ["FRESH_WORKER"]
    again = empty_workplace.run("run", "small", "--until", "finetune", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert again.returncode == 0, again.stderr
    assert adapter(empty_workplace) == resumed


def test_cancelling_a_run_ends_its_training_with_a_checkpoint(
    empty_workplace: ForkedWorkplace, prefect_server: PrefectServer
) -> None:
    """A run of the command line; Prefect itself only sets the state Cancelling."""
    empty_workplace.declare(long_training)
    run = empty_workplace.start("run", "small", "--json")
    wait_for(lambda: steps_trained(empty_workplace) >= 3)
    shown = FlowRun.newest(prefect_server, "small ")
    body = {"state": {"type": "CANCELLING"}}
    assert prefect_server.ask(f"/flow_runs/{shown.run['id']}/set_state", body)["status"] == "ACCEPT"
    _, error = run.communicate()
    assert run.returncode == 143, error
    assert "CANCELLED" in error
    trained = steps_trained(empty_workplace)
    assert 3 <= trained < 60
    wait_for(lambda: FlowRun.newest(prefect_server, "small ").state["type"] == "CANCELLED")
    (row,) = empty_workplace.json("runs")["runs"]
    assert (row["status"], row["exit_code"], row["reason"]) == ("INTERRUPTED", 143, "cancelled")
    assert checkpoints(empty_workplace)

    resumed = empty_workplace.run("run", "small", "--until", "finetune")
    assert resumed.returncode == 0, resumed.stderr
    assert steps_trained(empty_workplace) == 0  # the scratch folder is removed with the result


def kill_the_training(workplace: ForkedWorkplace) -> None:
    """Send SIGKILL to the training process once it has saved a checkpoint."""
    wait_for(lambda: bool(checkpoints(workplace)))
    (worker,) = [pid for pid in processes_of("tasks.train.worker") if str(workplace.folder) in command(pid)]
    os.kill(worker, signal.SIGKILL)


def command(pid: int) -> str:
    with Path(f"/proc/{pid}/cmdline").open("rb") as stream:
        return stream.read().decode()


def adapter(workplace: ForkedWorkplace) -> str:
    (file,) = (workplace.home / "store" / "train").glob("*/adapter_model.safetensors")
    return sha256_file(file)


def checkpoints(workplace: ForkedWorkplace) -> list[Path]:
    return sorted((workplace.home / "scratch" / "train").glob("*/checkpoints/step-*"))


def steps_trained(workplace: ForkedWorkplace) -> int:
    files = list((workplace.home / "scratch" / "train").glob("*/progress.jsonl"))
    return sum(text.count('"event":"step"') for text in (file.read_text() for file in files))
