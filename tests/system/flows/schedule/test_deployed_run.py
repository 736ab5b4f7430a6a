"""Runs started by a worker: repeated once if they are killed, ended if they are cancelled, and otherwise left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows import deployments
from flows.graph.prefect_runner import SILENT
from flows.ledger.ledger import Ledger
from flows.workspace.lock import lock_file
from tests.flows.test_resume import LOOKS, Desk, make_tickets
from tests.support.pool_worker import PoolWorker, flow_processes, working
from tests.support.prefect_server import OwnServer, PrefectServer
from tests.support.processes import is_running, wait_for
from tests.support.workplace import ForkedWorkplace

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

pytestmark = pytest.mark.server

ENDS = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


class Deployment:
    """`small` with a long training, or as it is declared, deployed to its own work pool."""

    def __init__(
        self,
        workplace: ForkedWorkplace,
        server: PrefectServer,
        *,
        max_steps: int = 60,
        is_declared: bool = False,
        **schedule: str,
    ) -> None:
        self.workplace, self.ask = workplace, server.ask
        self.pool = f"pool-{workplace.folder.name.lower().replace('_', '-')[-40:]}"
        self.ask("/work_pools/", {"name": self.pool, "type": "process"})

        def declare(document: dict[str, Any]) -> None:
            document["pipelines"]["small"]["schedule"] = {"cron": "0 3 1 1 *", **schedule}
            document["pipelines"]["small"]["train"] |= {"max_steps": max_steps, "epochs": max_steps}

        if not is_declared:
            workplace.declare(declare)
        done = workplace.run("ops", "deploy", "--pool", self.pool)
        assert done.returncode == 0, done.stderr
        self.id = self.ask("/deployments/name/tunegate/small")["id"]

    def worker(self, *, bare: bool = False) -> Any:
        return working(self.pool, self.workplace.folder / "worker", self.workplace.environ, bare=bare)

    def start(self, **request: str | bool | None) -> str:
        """Start a flow run as the schedule does; return its id."""
        parameters = {"request": {"tick": "schedule", **request}}
        return str(self.ask(f"/deployments/{self.id}/create_flow_run", {"parameters": parameters})["id"])

    def state(self, run: str) -> tuple[str, str]:
        found = self.ask(f"/flow_runs/{run}")["state"]
        return found["type"], found["name"]

    def cancel(self, run: str) -> None:
        assert self.set_state(run, {"type": "CANCELLING"}) == "ACCEPT"

    def set_state(self, run: str, state: dict[str, str], *, force: bool = False) -> str:
        return str(self.ask(f"/flow_runs/{run}/set_state", {"state": state, "force": force})["status"])

    def states_of(self, run: str) -> list[str]:
        """Names of the states that the flow run has had, oldest first."""
        return [each["name"] for each in self.ask(f"/flow_run_states/?flow_run_id={run}")]

    def stages_of(self, run: str) -> dict[str, str]:
        """Name of a sub-flow -> type of its state."""
        found = self.ask("/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [run]}}})
        return {each["name"].partition(" ")[0]: each["state_type"] for each in found}

    def stage_id(self, run: str, stage: str) -> str:
        wanted = {"parent_flow_run_id": {"any_": [run]}, "name": {"any_": [f"{stage} small"]}}
        return str(self.ask("/flow_runs/filter", {"flow_runs": wanted})[0]["id"])

    def end_of(self, run: str) -> tuple[str, str]:
        wait_for(lambda: self.state(run)[0] in ENDS)
        return self.state(run)

    def repeats_of(self, run: str) -> list[str]:
        query = {"flow_runs": {"deployment_id": {"any_": [self.id]}}, "limit": 200}
        found = self.ask("/flow_runs/filter", query)
        repeats = f"prefect.flow-run.{run}"
        return [each["id"] for each in found if each["parameters"].get("request", {}).get("crashed") == repeats]

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


@pytest.fixture
def silence(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[int]:
    """Seconds of silence that count as a crash."""
    monkeypatch.setattr(deployments, "SILENCE_S", request.param)
    deployments.prepare()
    yield request.param
    monkeypatch.undo()
    deployments.prepare()


# Prefect's own heartbeat is 180 s. 50 is more than the 30 of a deployment, and 150 is what users have.
@pytest.mark.parametrize(
    ("silence", "busy_s"), [(50, 60), pytest.param(150, 360, marks=pytest.mark.campaign)], indirect=["silence"]
)
def test_a_worker_with_a_bare_environment_ends_a_long_run_and_a_killed_one_is_closed_whole(
    empty_workplace: ForkedWorkplace, prefect_server: PrefectServer, silence: int, busy_s: int
) -> None:
    assert busy_s > silence
    lock = empty_workplace.folder / "gpu.lock"
    deployed = Deployment(empty_workplace, prefect_server, resource=str(lock))
    with deployed.worker(bare=True) as worker:
        with lock_file(lock, wait_s=0, run_id="another"):
            run = deployed.start()
            wait_for(lambda: deployed.stages_of(run).get("curate") == "COMPLETED")
            time.sleep(busy_s)  # it waits for its resource
            assert "finetune" not in deployed.stages_of(run)
        wait_for(lambda: deployed.state(run)[0] in ENDS)
        assert deployed.state(run) == ("COMPLETED", "PROMOTE"), worker.log.read_text()
        assert "Crashed" not in deployed.states_of(run)
        assert not deployed.repeats_of(run)

        killed = deployed.start(again=True, tick=None)
        wait_for(lambda: "finetune" in deployed.stages_of(killed))
        for pid in flow_processes(killed):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not {"RUNNING", "PENDING"} & set(deployed.stages_of(killed).values()))
        assert deployed.stages_of(killed)["finetune"] == "CRASHED"


def test_a_run_that_counts_as_crashed_by_mistake_says_that_it_is_alive_and_its_repeat_waits(
    deployed: Deployment,
) -> None:
    with deployed.worker() as worker:
        run = deployed.start(until="finetune")
        wait_for(lambda: bool(deployed.checkpoints()))
        for alarmed in (run, deployed.stage_id(run, "finetune")):
            deployed.set_state(alarmed, {"type": "CRASHED", "message": SILENT}, force=True)
        wait_for(lambda: deployed.stages_of(run)["finetune"] == "RUNNING")
        repeat = deployed.start(crashed=f"prefect.flow-run.{run}")  # as the automation does
        assert deployed.end_of(repeat) == ("COMPLETED", "SKIP"), worker.log.read_text()
        message = deployed.ask(f"/flow_runs/{repeat}")["state"]["message"]
        assert "had not crashed" in message or "is repeated by another run" in message
        assert deployed.end_of(run) == ("COMPLETED", "Completed"), worker.log.read_text()
        assert deployed.states_of(run)[-3:] == ["Crashed", "Running", "Completed"]
        assert [row["status"] for row in deployed.workplace.json("runs")["runs"]] == ["DONE"]


def test_runs_whose_worker_has_died_are_cancelled_in_training_and_while_they_wait(
    empty_workplace: ForkedWorkplace, prefect_server: PrefectServer
) -> None:
    deployed = Deployment(empty_workplace, prefect_server, max_steps=10_000, overlap="queue")
    with deployed.worker() as worker:
        training = deployed.start()
        wait_for(lambda: bool(deployed.checkpoints()))
        waiting = deployed.start(tick="event")
        wait_for(lambda: deployed.state(waiting)[0] == "RUNNING")
        orphans = [*flow_processes(waiting), *flow_processes(training)]
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        try:
            for run in (waiting, training):
                assert deployed.state(run)[0] == "RUNNING"
                deployed.cancel(run)
                assert deployed.end_of(run)[0] == "CANCELLED", worker.log.read_text()
            wait_for(lambda: not any(map(is_running, orphans)), seconds=60)
        finally:
            for pid in filter(is_running, orphans):
                os.kill(pid, signal.SIGKILL)
        assert not trainings_below(deployed.workplace.folder)
        assert deployed.checkpoints()
        assert not deployed.repeats_of(training)
        (row,) = deployed.workplace.json("runs")["runs"]
        assert (row["status"], row["reason"]) == ("INTERRUPTED", "cancelled")


def test_a_run_and_its_successor_survive_a_restart_of_the_server(
    bare_workplace: ForkedWorkplace, own_server: OwnServer
) -> None:
    server = PrefectServer(own_server.server)
    bare_workplace.environ |= server.environ
    deployed = Deployment(bare_workplace, server, resource="gpu")
    deployed.ask("/v2/concurrency_limits/", {"name": "yours", "limit": 1})
    taken = {"names": ["yours"], "slots": 1, "lease_duration": 600}
    lease = deployed.ask("/v2/concurrency_limits/increment-with-lease", taken)["lease_id"]
    with deployed.worker() as worker:
        run = deployed.start()
        wait_for(lambda: bool(deployed.checkpoints()))
        holder = Ledger(bare_workplace.home).holder_of("resource.gpu")
        assert holder is not None
        own_server.kill()
        time.sleep(40)
        own_server.start_again()
        deployed.ask(f"/v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 600})  # else 410
        assert deployed.end_of(run) == ("COMPLETED", "PROMOTE"), worker.log.read_text()
        following = deployed.start(again=True, tick=None)
        assert deployed.end_of(following) == ("COMPLETED", "PROMOTE"), worker.log.read_text()
        assert {row["verdict"] for row in deployed.workplace.json("runs")["runs"]} == {"PROMOTE"}


def test_cancelling_a_run_of_a_worker_ends_its_training_with_a_checkpoint(deployed: Deployment) -> None:
    with deployed.worker():
        run = deployed.start()
        wait_for(lambda: bool(deployed.checkpoints()))
        deployed.cancel(run)
        assert deployed.end_of(run)[0] == "CANCELLED"
        wait_for(lambda: not flow_processes(run))
        wait_for(lambda: not trainings_below(deployed.workplace.folder))
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


def test_a_tick_judges_a_held_candidate_again_in_its_own_flow_run(
    empty_workplace: ForkedWorkplace, prefect_server: PrefectServer
) -> None:
    schedule = {"cron": "0 3 1 1 *", "resume_hold": True, "retrain": {"min_new": 40}}
    desk, tickets = Desk(empty_workplace, schedule=schedule), make_tickets()
    desk.declare()
    desk.export("week1.jsonl", tickets[:110])
    deployed = Deployment(empty_workplace, prefect_server, is_declared=True)
    with deployed.worker() as worker:
        trained = deployed.start()
        assert deployed.end_of(trained) == ("COMPLETED", "HOLD"), worker.log.read_text()
        desk.export("week2.jsonl", tickets[110:190])
        tick = deployed.start()
        assert deployed.end_of(tick) == ("COMPLETED", "HOLD"), worker.log.read_text()
    resumed, skipped, first = desk.ledger.runs(pipeline="small")
    assert [(run.status, run.verdict) for run in (resumed, skipped, first)] == [
        ("DONE", "HOLD"), ("SKIPPED", None), ("DONE", "HOLD"),
    ]  # fmt: skip
    assert desk.ledger.ticks("small")[-1].decision.code == "look"
    assert [len(desk.items(run.run_id)) for run in (first, resumed)] == LOOKS[:2]
    (candidate,) = desk.ledger.candidates("small")
    assert desk.ledger.judging_runs("small", candidate.ref.version) == (first.run_id, resumed.run_id)
    assert {run.prefect_run_id for run in (skipped, resumed)} == {tick}
    assert deployed.stages_of(tick) == dict.fromkeys(("curate", "finetune", "assess", "release"), "COMPLETED")
