"""Stages on work pools: a real server, workers with their own homes, killed processes."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from flows.graph.prefect_runner import SILENT
from tests.support.pool_worker import flow_processes, working
from tests.support.prefect_server import PrefectServer
from tests.support.processes import wait_for
from tests.support.workplace import ForkedWorkplace, give_results
from tests.system.flows.graph.test_prefect_runner import name_of

pytestmark = pytest.mark.server

MADE = ("extract", "dedup", "split", "card", "encode", "train", "answers_tuned", "gate", "bundle")


class Pools:
    """Two work pools with unique names on the tests' server, and a pipeline placed on them."""

    def __init__(self, workplace: ForkedWorkplace, server: PrefectServer) -> None:
        self.workplace, self.server = workplace, server
        unique = workplace.folder.name.lower().replace("_", "-")[-40:]
        self.cpu, self.gpu = f"cpu-{unique}", f"gpu-{unique}"
        for pool in (self.cpu, self.gpu):
            server.ask("/work_pools/", {"name": pool, "type": "process"})

    def declare(self, **train: Any) -> None:
        """Place `small`: curation on one pool, training on the other."""

        def place(document: dict[str, Any]) -> None:
            small = document["pipelines"]["small"]
            small["place"] = {"curate": self.cpu, "finetune": self.gpu, "wait_for_worker": 5}
            small["train"] |= train

        self.workplace.declare(place)
        done = self.workplace.run("ops", "deploy")
        assert done.returncode == 0, done.stderr

    def worker(self, pool: str, name: str) -> Any:
        """A worker with its own home and access to the shared folder."""
        folder = self.workplace.folder / name
        environ = {
            **self.workplace.environ,
            "TUNEGATE_HOME": str(folder / "home"),
            "TUNEGATE_STORE": str(self.workplace.home),
        }
        return working(pool, folder, environ)

    def flow_runs(self, stage: str) -> list[dict[str, Any]]:
        """Flow runs of the workers, newest first."""
        body = {"sort": "START_TIME_DESC", "limit": 50, "flows": {"name": {"any_": [stage]}}}
        found = self.server.ask("/flow_runs/filter", body)
        return [run for run in found if run["work_pool_name"] in (self.cpu, self.gpu)]

    def tasks_here(self) -> dict[str, dict[str, Any]]:
        """Name -> task of the newest stage `finetune` of a run, not of its worker."""
        body = {"sort": "START_TIME_DESC", "limit": 50, "flows": {"name": {"any_": ["finetune"]}}}
        found = self.server.ask("/flow_runs/filter", body)
        run = next(each for each in found if str(self.workplace.folder) in each["tags"])  # a worker's has other tags
        tasks = self.server.ask("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}, "limit": 200})
        return {name_of(task["name"]): task for task in tasks}


@pytest.fixture
def pools(empty_workplace: ForkedWorkplace, prefect_server: PrefectServer) -> Pools:
    return Pools(empty_workplace, prefect_server)


def digests(workplace: ForkedWorkplace, run_id: str, **environ: str) -> dict[str, str]:
    shown = json.loads(workplace.run("show", run_id, "--json", **environ).stdout)
    found = {row["step"]: row["digest"] for row in shown["steps"]}
    return {name: found[name] for name in MADE}


def test_each_stage_runs_on_its_pool_with_the_results_of_one_process(
    pools: Pools, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workplace = pools.workplace
    pools.declare()
    with pools.worker(pools.cpu, "one"), pools.worker(pools.gpu, "two"):
        done = workplace.run("run", "small", "--json")
        assert done.returncode == 0, done.stderr
        assert f"curate runs on pool {pools.cpu}" in done.stderr
        outcome = json.loads(done.stdout)
        assert outcome["verdict"] == "PROMOTE"
        [curate], [finetune] = pools.flow_runs("curate"), pools.flow_runs("finetune")
        assert (curate["work_pool_name"], finetune["work_pool_name"]) == (pools.cpu, pools.gpu)
        assert set(curate["parameters"]) == {"pipeline", "config", "request"}
        assert not (workplace.folder / "one" / "home" / "ledger.sqlite").exists()
        prepared = pools.tasks_here()
        for name in ("items", "prompts · tuned", "scores · tfidf", "base_model", "fits"):  # here, before the worker
            assert prepared[name]["end_time"] <= finetune["start_time"], name
        assert not {"encode", "train"} & prepared.keys()

        again = workplace.run("run", "small", "--again", "--json")  # everything is reused: no worker starts
        assert again.returncode == 0, again.stderr
        assert len(pools.flow_runs("curate")) == len(pools.flow_runs("finetune")) == 1

        # A flow run started by hand, without a handover of a run.
        deployment = pools.server.ask(f"/deployments/name/curate/{'small'}")
        bogus = pools.server.ask(
            f"/deployments/{deployment['id']}/create_flow_run",
            {"parameters": {"request": {"run_id": "20260101-000000-aaaa", "handover": "0" * 64}}},
        )
        wait_for(lambda: pools.server.ask(f"/flow_runs/{bogus['id']}")["state_type"] == "FAILED")
        assert "TG0840" in pools.server.ask(f"/flow_runs/{bogus['id']}")["state"]["message"]

    one_process = tmp_path_factory.mktemp("one-process")
    give_results(one_process, finished)
    other_home = {"TUNEGATE_HOME": str(one_process)}

    def not_placed(document: dict[str, Any]) -> None:
        document["pipelines"]["small"].pop("place", None)

    workplace.declare(not_placed)
    alone = json.loads(workplace.run("run", "small", "--json", **other_home).stdout)
    placed = digests(workplace, outcome["run_id"])
    assert digests(workplace, alone["run_id"], **other_home) == placed


def test_what_cannot_be_judged_needs_no_worker(pools: Pools) -> None:
    """The pool of the training has none, and nothing waits for one."""

    def spoil(document: dict[str, Any]) -> None:
        small = document["pipelines"]["small"]
        small["place"] = {"finetune": pools.gpu, "wait_for_worker": 5}
        small["evaluate"] |= {"arms": ["few_shot", "majority"], "few_shot_examples": 32}

    pools.workplace.declare(spoil)
    deployed = pools.workplace.run("ops", "deploy")
    assert deployed.returncode == 0, deployed.stderr
    done = pools.workplace.run("run", "small")
    assert done.returncode == 3, done.stderr
    assert "error[TG0309]" in done.stderr
    assert pools.flow_runs("finetune") == []
    assert not (pools.workplace.home / "store" / "train").exists()


@pytest.mark.campaign
def test_a_training_whose_machine_is_lost_continues_on_another_to_the_same_bytes(
    pools: Pools, tmp_path_factory: Any
) -> None:
    workplace = pools.workplace
    long = {"max_steps": 60, "epochs": 30}
    pools.declare(**long)
    run = None
    with pools.worker(pools.cpu, "one"), pools.worker(pools.gpu, "two") as lost:
        run = workplace.start("run", "small", "--json")
        wait_for(lambda: bool(checkpoints(workplace.home)) or run.poll() is not None)
        (flow,) = pools.flow_runs("finetune")
        for pid in flow_processes(flow["id"]):
            os.kill(pid, signal.SIGKILL)  # the worker notices and reports Crashed
        wait_for(lambda: len(pools.flow_runs("finetune")) == 2)
        lost.kill()
        with pools.worker(pools.gpu, "three"):
            # A run that the dead worker had begun is ended only by Prefect's automation, after minutes
            # without a heartbeat; one that it had not begun is taken by the next worker.
            wait_for(lambda: run.poll() is not None or runs_on_another_worker(pools))
            if run.poll() is None:
                mark_lost_runs_crashed(pools)
            out, error = run.communicate(timeout=900)
    assert run.returncode == 0, error
    placed = digests(workplace, json.loads(out)["run_id"])

    other_home = {"TUNEGATE_HOME": str(tmp_path_factory.mktemp("one-process"))}

    def not_placed(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["train"] |= long

    workplace.declare(not_placed)
    alone = json.loads(workplace.run("run", "small", "--json", **other_home).stdout)
    assert digests(workplace, alone["run_id"], **other_home) == placed


def runs_on_another_worker(pools: Pools) -> bool:
    return any(run["state_type"] in ("RUNNING", "PENDING") for run in pools.flow_runs("finetune"))


def mark_lost_runs_crashed(pools: Pools) -> None:
    """Mark the runs of dead processes as crashed, as the automation does later."""
    for run in pools.flow_runs("finetune"):
        if run["state_type"] in ("RUNNING", "PENDING") and not flow_processes(run["id"]):
            body = {"state": {"type": "CRASHED", "message": "no sign of life"}, "force": True}
            pools.server.ask(f"/flow_runs/{run['id']}/set_state", body)


@pytest.mark.campaign
def test_the_next_run_joins_the_flow_run_of_a_dead_one(pools: Pools) -> None:
    workplace = pools.workplace
    pools.declare(max_steps=60, epochs=30)
    with pools.worker(pools.cpu, "one"), pools.worker(pools.gpu, "two"):
        dead = workplace.start("run", "small")
        wait_for(lambda: bool(checkpoints(workplace.home)) or dead.poll() is not None)
        dead.kill()
        dead.communicate()
        done = workplace.run("run", "small", "--json")
        assert done.returncode == 0, done.stderr
        assert len(pools.flow_runs("finetune")) == 1
        assert json.loads(done.stdout)["verdict"] == "PROMOTE"


def test_a_training_that_counts_as_crashed_by_mistake_is_waited_for(pools: Pools) -> None:
    workplace = pools.workplace
    pools.declare(max_steps=60, epochs=30)
    with pools.worker(pools.cpu, "one"), pools.worker(pools.gpu, "two"):
        run = workplace.start("run", "small", "--json")
        wait_for(lambda: bool(checkpoints(workplace.home)) or run.poll() is not None)
        (flow,) = pools.flow_runs("finetune")
        body = {"state": {"type": "CRASHED", "message": SILENT}, "force": True}
        pools.server.ask(f"/flow_runs/{flow['id']}/set_state", body)
        out, error = run.communicate(timeout=900)
    assert run.returncode == 0, error
    assert json.loads(out)["verdict"] == "PROMOTE"
    (flow,) = pools.flow_runs("finetune")
    assert flow["state_type"] == "COMPLETED"


def test_a_pool_without_a_worker_ends_the_run_with_a_hint(pools: Pools) -> None:
    pools.declare()

    def impatient(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["place"] = {"curate": pools.cpu, "wait_for_worker": 0.05}

    pools.workplace.declare(impatient)
    done = pools.workplace.run("run", "small")
    assert done.returncode == 7, done.stderr
    assert f"no worker of pool '{pools.cpu}' came online" in done.stderr
    assert f"prefect worker start --pool {pools.cpu}" in done.stderr

    offline = pools.workplace.run("run", "small", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert offline.returncode == 7, offline.stderr
    assert "is placed on pool" in offline.stderr  # it runs nowhere else


def test_a_plan_shows_where_stages_run_and_refuses_an_unknown_pool(pools: Pools) -> None:
    pools.declare()
    plan = pools.workplace.json("plan", "small")
    assert plan["places"] == {"curate": f"pool {pools.cpu}", "finetune": f"pool {pools.gpu}"}

    def unknown(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["place"] = {"assess": "nowhere-at-all"}

    pools.workplace.declare(unknown)
    refused = pools.workplace.run("plan", "small")
    assert refused.returncode == 7, refused.stderr
    assert "no work pool 'nowhere-at-all'" in refused.stderr


def checkpoints(home: Path) -> list[Path]:
    return sorted((home / "scratch" / "train").glob("*/checkpoints/step-*"))
