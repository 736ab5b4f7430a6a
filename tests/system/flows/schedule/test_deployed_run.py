"""Runs started by a worker: repeated once if their process is killed, ended if they are cancelled."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.pool_worker import PoolWorker, flow_processes, working
from tests.support.prefect_server import PrefectServer
from tests.support.processes import wait_for
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server

ENDS = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


class Deployment:
    """`small` with a long training, deployed to its own work pool."""

    def __init__(self, workplace: ForkedWorkplace, server: PrefectServer) -> None:
        self.workplace, self.ask = workplace, server.ask
        self.pool = f"pool-{workplace.folder.name.lower().replace('_', '-')[-40:]}"
        self.ask("/work_pools/", {"name": self.pool, "type": "process"})

        def declare(document: dict[str, Any]) -> None:
            document["pipelines"]["small"]["schedule"] = {"cron": "0 3 1 1 *"}
            document["pipelines"]["small"]["train"] |= {"max_steps": 60, "epochs": 30}

        workplace.declare(declare)
        done = workplace.run("deploy", "--pool", self.pool)
        assert done.returncode == 0, done.stderr
        self.id = self.ask("/deployments/name/tunegate/small")["id"]

    def worker(self) -> Any:
        return working(self.pool, self.workplace.folder / "worker", self.workplace.environ)

    def start(self, **parameters: str) -> str:
        """Start a flow run as the schedule does; return its id."""
        return str(self.ask(f"/deployments/{self.id}/create_flow_run", {"parameters": parameters})["id"])

    def state(self, run: str) -> tuple[str, str]:
        found = self.ask(f"/flow_runs/{run}")["state"]
        return found["type"], found["name"]

    def end_of(self, run: str) -> tuple[str, str]:
        wait_for(lambda: self.state(run)[0] in ENDS)
        return self.state(run)

    def repeats_of(self, run: str) -> list[str]:
        query = {"flow_runs": {"deployment_id": {"any_": [self.id]}}, "limit": 200}
        found = self.ask("/flow_runs/filter", query)
        return [each["id"] for each in found if each["parameters"].get("crashed") == f"prefect.flow-run.{run}"]

    def checkpoints(self) -> list[Path]:
        return list((self.workplace.home / "scratch" / "train").glob("*/checkpoints/step-*"))


@pytest.fixture
def deployed(empty_workplace: ForkedWorkplace, prefect_server: PrefectServer) -> Deployment:
    return Deployment(empty_workplace, prefect_server)


def test_a_crashed_run_is_repeated_once_and_continues_from_stored_results(deployed: Deployment) -> None:
    worker: PoolWorker
    with deployed.worker() as worker:
        first = deployed.start(until="finetune")
        wait_for(lambda: bool(deployed.checkpoints()))
        for pid in flow_processes(first):
            os.kill(pid, signal.SIGKILL)
        assert deployed.end_of(first)[0] == "CRASHED"
        wait_for(lambda: bool(deployed.repeats_of(first)))
        repeat = deployed.repeats_of(first)[0]
        assert deployed.end_of(repeat) == ("COMPLETED", "Completed"), worker.log.read_text()
        newest, *_ = deployed.workplace.json("runs", "small")["runs"]
        steps = {row["step"]: row["state"] for row in deployed.workplace.json("show", newest["run_id"])["steps"]}
        assert (steps["extract"], steps["train"]) == ("reused", "done")

        for once_more in (first, repeat):  # a second report of the same crash, and a crash of the repeat
            late = deployed.start(crashed=f"prefect.flow-run.{once_more}")
            assert deployed.end_of(late) == ("COMPLETED", "SKIP")


def test_cancelling_a_run_of_a_worker_ends_its_training_with_a_checkpoint(deployed: Deployment) -> None:
    with deployed.worker():
        run = deployed.start()
        wait_for(lambda: bool(deployed.checkpoints()))
        body = {"state": {"type": "CANCELLING"}}
        assert deployed.ask(f"/flow_runs/{run}/set_state", body)["status"] == "ACCEPT"
        assert deployed.end_of(run)[0] == "CANCELLED"
        wait_for(lambda: not flow_processes(run), seconds=60)
        wait_for(lambda: not trainings_below(deployed.workplace.folder), seconds=60)
        assert deployed.checkpoints()
        assert not deployed.repeats_of(run)
        (row,) = deployed.workplace.json("runs")["runs"]
        assert row["status"] == "INTERRUPTED"


@pytest.mark.campaign
def test_a_run_whose_machine_is_lost_is_found_by_its_silence_and_repeated_elsewhere(deployed: Deployment) -> None:
    with deployed.worker() as lost:
        first = deployed.start(until="finetune")
        wait_for(lambda: bool(deployed.checkpoints()))
        lost.process.send_signal(signal.SIGSTOP)  # it must not report the end of its flow
        for pid in flow_processes(first):
            os.kill(pid, signal.SIGKILL)
        lost.kill()
        assert not flow_processes(first)
        assert deployed.state(first)[0] == "RUNNING"
    with deployed.worker() as worker:
        assert deployed.end_of(first)[0] == "CRASHED", worker.log.read_text()
        wait_for(lambda: bool(deployed.repeats_of(first)))
        repeat = deployed.repeats_of(first)[0]
        assert deployed.end_of(repeat) == ("COMPLETED", "Completed"), worker.log.read_text()
        newest, *_ = deployed.workplace.json("runs", "small")["runs"]
        steps = {row["step"]: row["state"] for row in deployed.workplace.json("show", newest["run_id"])["steps"]}
        assert (steps["extract"], steps["train"]) == ("reused", "done")


def trainings_below(folder: Path) -> list[str]:
    """Commands of training processes of this folder, whatever their parent now is."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(place.read_bytes().replace(b"\0", b" ").decode())
    return [line for line in found if "tasks.train.worker" in line and str(folder) in line]
