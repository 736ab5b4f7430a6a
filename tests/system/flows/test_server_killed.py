"""`tunegate run` as users start it, whose Prefect server is killed in each of its stages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.pool_worker import working
from tests.support.prefect_server import OwnServer, PrefectServer
from tests.support.processes import wait_for
from tests.support.project import PROJECT
from tests.support.workplace import ForkedWorkplace

pytestmark = [pytest.mark.server, pytest.mark.campaign]

SIGNS = {"curate": "dedup", "finetune": "encode", "assess": "answers", "release": "gate"}
"""Stage -> the result that exists when it runs, or is about to."""
GONE = "Prefect no longer answers"


class Run:
    """A run of `small` with a training of a few seconds, in a process of its own."""

    def __init__(self, workplace: ForkedWorkplace, server: OwnServer) -> None:
        self.workplace = workplace
        environ = {
            **os.environ,
            **workplace.environ,
            **PrefectServer(server.server).environ,
            "PYTHONPATH": str(PROJECT),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", "small", "--json"], cwd=workplace.folder, env=environ, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def wait_for(self, sign: str) -> None:
        folder = self.workplace.home / "store" / sign
        wait_for(lambda: self.process.poll() is not None or any(folder.glob("*")))
        assert self.process.poll() is None, self.process.communicate()

    def end(self) -> tuple[dict[str, Any], str]:
        out, error = self.process.communicate(timeout=900)
        assert self.process.returncode == 0, error
        return json.loads(out), error


@pytest.mark.parametrize("stage", SIGNS)
def test_a_run_whose_server_is_killed_reaches_its_verdict_and_does_nothing_twice(
    empty_workplace: ForkedWorkplace, own_server: OwnServer, stage: str
) -> None:
    run = Run(empty_workplace, own_server)
    run.wait_for(SIGNS[stage])
    own_server.kill()
    killed = time.monotonic()
    outcome, error = run.end()
    sys.stderr.write(f"{stage}: {time.monotonic() - killed:.0f} s from the kill to the end\n")
    assert outcome["verdict"] == "PROMOTE"
    assert GONE in " ".join(error.split())
    assert "EventsWorker" not in error
    assert "Traceback" not in error
    steps = empty_workplace.json("show", outcome["run_id"])["steps"]
    assert {row["state"] for row in steps} == {"done"}  # a second time would be `reused`
    (promoted,) = empty_workplace.json("model", "history", "small")["events"]
    assert promoted["action"] == "promote"


def test_a_server_that_is_back_within_30_seconds_is_not_noticed(
    empty_workplace: ForkedWorkplace, own_server: OwnServer
) -> None:
    run = Run(empty_workplace, own_server)
    run.wait_for(SIGNS["curate"])
    own_server.kill()
    time.sleep(3)
    own_server.start_again()
    outcome, error = run.end()
    assert outcome["verdict"] == "PROMOTE"
    assert GONE not in " ".join(error.split())


def test_a_stage_on_a_pool_whose_server_is_killed_is_done_there_once(
    empty_workplace: ForkedWorkplace, own_server: OwnServer
) -> None:
    empty_workplace.environ |= PrefectServer(own_server.server).environ
    server = PrefectServer(own_server.server)
    server.ask("/work_pools/", {"name": "gpu", "type": "process"})

    def place(document: dict[str, Any]) -> None:
        document["pipelines"]["small"]["place"] = {"finetune": "gpu", "wait_for_worker": 5}
        document["pipelines"]["small"]["train"] |= {"max_steps": 60, "epochs": 30}

    empty_workplace.declare(place)
    deployed = empty_workplace.run("ops", "deploy")
    assert deployed.returncode == 0, deployed.stderr
    folder = empty_workplace.folder / "worker"
    environ = {
        **empty_workplace.environ, "TUNEGATE_HOME": str(folder / "home"), "TUNEGATE_STORE": str(empty_workplace.home),
    }  # fmt: skip
    with working("gpu", folder, environ) as worker:
        run = empty_workplace.start("run", "small", "--json")
        wait_for(lambda: bool(checkpoints(empty_workplace.home)) or run.poll() is not None)
        os.kill(own_server.server.pid, signal.SIGKILL)
        out, error = run.communicate(timeout=900)
        if run.returncode:  # the worker was slower than this run waits for the server
            assert (run.returncode, "TG0701" in error) == (7, True), error
            own_server.start_again()
            done = empty_workplace.run("run", "small", "--json")
            assert done.returncode == 0, (done.stderr, worker.log.read_text())
            out = done.stdout
        assert json.loads(out)["verdict"] == "PROMOTE"
        (made,) = (empty_workplace.home / "store" / "train").glob("*")
        assert not checkpoints(empty_workplace.home), made


def checkpoints(home: Path) -> list[Path]:
    return sorted((home / "scratch" / "train").glob("*/checkpoints/step-*"))
