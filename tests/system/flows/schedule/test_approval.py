"""Approval by a person: on the command line, and on Prefect's page of a suspended run."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.prefect_server import PrefectServer
from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server

RESOURCE = f"helpdesk.{uuid.uuid4()}"
SERVE = """
import sys
from pathlib import Path
import prefect
from flows.deployments import deployments
from schemas.load import load_file
config = Path("pipelines.yaml")
deployment, *_ = deployments(load_file(config), config)
deployment.name = sys.argv[1]  # the tests' Prefect server has others of this name
prefect.serve(deployment, pause_on_shutdown=False, print_starting_message=False)
"""


def need_approval(document: dict[str, Any]) -> None:
    document["pipelines"]["small"]["register"]["approval"] = "required"
    triggers = [{"event": "tickets.arrived", "resource": RESOURCE}]
    document["pipelines"]["small"]["schedule"] = {"cron": "0 3 1 1 *", "triggers": triggers}


def test_a_person_decides_on_the_command_line_and_everything_is_recorded(empty_workplace: ForkedWorkplace) -> None:
    empty_workplace.declare(need_approval)
    done = empty_workplace.run("run", "small", "--json")
    assert done.returncode == 8, done.stderr
    waits = json.loads(done.stdout)
    assert (waits["verdict"], waits["version"], waits["champion"], waits["waits"]) == ("HOLD", "1", None, True)
    assert f"tunegate model approve {waits['run_id']} --by NAME" in done.stderr
    again = empty_workplace.json("run", "small")
    assert again["verdict"] == "SKIP"
    assert "waits for approval" in again["reason"]

    assert empty_workplace.run("model", "approve", waits["run_id"]).returncode == 2  # without a name
    approved = empty_workplace.json("model", "approve", waits["run_id"], "--by", "ada", "--reason", "read them")
    assert approved["champion"] == "1"

    empty_workplace.declare(lambda document: document["pipelines"]["small"]["train"].update(seed=5))  # without approval
    assert empty_workplace.json("run", "small")["champion"] == "2"
    back = empty_workplace.run("model", "rollback", "small", "--reason", "customers complain", "--by", "bob")
    assert back.returncode == 0
    assert "promotions need a person until" in back.stdout
    assert empty_workplace.json("run", "small")["verdict"] == "SKIP"  # the next scheduled run
    waiting = empty_workplace.json("run", "small", "--again")
    assert (waiting["verdict"], waiting["exit_code"], waiting["champion"]) == ("HOLD", 8, "1")
    assert "was rolled back (customers complain)" in waiting["reason"]

    assert empty_workplace.run("model", "promote", "small", "2").returncode == 9
    forced = empty_workplace.json(
        "model", "promote", "small", "2", "--force", "--reason", "it was the network", "--by", "eve"
    )
    assert (forced["champion"], forced["event"]["forced"], forced["mlflow_pending"]) == ("2", True, False)

    history = empty_workplace.json("model", "history", "small")
    assert [(event["action"], event["actor"]) for event in history["events"]] == [
        ("wait", "pipeline"), ("approve", "ada"), ("promote", "pipeline"), ("rollback", "bob"), ("wait", "pipeline"),
        ("force", "eve"),
    ]  # fmt: skip
    assert all(len(event["bundle_digest"]) == 64 for event in history["events"])
    with closing(sqlite3.connect(empty_workplace.home / "ledger.sqlite")) as db, db:
        db.execute("DROP TRIGGER champion_events_no_update")
        db.execute("UPDATE champion_events SET reason = 'approved' WHERE seq = 6")
    broken = empty_workplace.run("model", "history", "small", "--verify")
    assert broken.returncode == 1
    assert "row 6 of champion_events is not what tunegate wrote" in broken.stderr
    assert empty_workplace.run("ops", "doctor").returncode == 1


def wait_for(condition: Callable[[], Any], served: subprocess.Popen[str]) -> None:
    """Poll until the condition holds; only a very busy machine needs long."""
    deadline = time.monotonic() + 1500
    while not condition():
        assert served.poll() is None, "see serve.log"
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.5)


def started_by_event(prefect: PrefectServer, deployment: str, served: subprocess.Popen[str]) -> str:
    """Send Prefect an event that tickets arrived; return the id of the run that its trigger starts.

    The server may not know a new trigger at once, so the event is sent again until a run exists.
    """
    wanted = {"deployments": {"id": {"any_": [deployment]}}, "sort": "START_TIME_DESC"}
    runs: list[Any] = []

    def started() -> bool:
        event = {
            "event": "tickets.arrived", "id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": RESOURCE}, "payload": {}, "related": [],
        }  # fmt: skip
        prefect.ask("/events", [event])
        for _ in range(120):  # wait before sending again: two events start two runs
            found = prefect.ask("/flow_runs/filter", wanted)
            runs[:] = [run for run in found if not run["auto_scheduled"]]
            if runs:
                return True
            time.sleep(0.5)
        return False

    wait_for(started, served)
    assert runs[0]["parameters"]["request"]["tick"] == "event"
    return str(runs[0]["id"])


@pytest.mark.campaign
def test_a_suspended_run_in_prefect_survives_a_restart_and_is_approved_on_its_page(
    empty_workplace: ForkedWorkplace, prefect_server: PrefectServer
) -> None:
    empty_workplace.declare(need_approval)
    name = f"approval-{empty_workplace.folder.name.lower().replace('_', '-')}"
    environ = {"PREFECT_RUNNER_POLL_FREQUENCY": "1"}

    def serve() -> subprocess.Popen[str]:
        log = (empty_workplace.folder / "serve.log").open("a")
        with log:
            return subprocess.Popen(
                [sys.executable, "-c", SERVE, name], cwd=empty_workplace.folder, text=True,
                env={**empty_workplace.environ, **environ}, stdout=subprocess.DEVNULL, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    served = serve()
    try:
        found: list[Any] = []

        def deployed() -> bool:
            found[:] = prefect_server.ask("/deployments/filter", {"deployments": {"name": {"any_": [name]}}})
            return bool(found)

        wait_for(deployed, served)
        flow_run = started_by_event(prefect_server, found[0]["id"], served)

        def state() -> str:
            return str(prefect_server.ask(f"/flow_runs/{flow_run}")["state"]["name"])

        wait_for(lambda: state() in {"Suspended", "Failed", "Crashed", "PROMOTE"}, served)
        assert state() == "Suspended"
        assert empty_workplace.json("model", "champion", "small")["champion"] is None
        [waits] = empty_workplace.json("runs")["runs"]
        assert (waits["status"], waits["verdict"]) == ("DONE", "HOLD")
        assert empty_workplace.json("status")["running"] == []  # it has no lock while it waits
    finally:
        os.killpg(served.pid, signal.SIGKILL)  # the serving process dies while approval is pending
        served.wait()

    served = serve()
    try:
        answer = {"run_input": {"approve": True, "by": "ada", "reason": "on the page"}}
        bad = prefect_server.ask(f"/flow_runs/{flow_run}/resume", {"run_input": {"approve": True, "by": ""}})
        assert bad["status"] == "REJECT"
        assert prefect_server.ask(f"/flow_runs/{flow_run}/resume", answer)["status"] == "ACCEPT"
        wait_for(lambda: state() in {"Failed", "Crashed", "PROMOTE"}, served)
        assert state() == "PROMOTE"
        history = empty_workplace.json("model", "history", "small")["events"]
        assert [(event["action"], event["actor"], event["reason"]) for event in history[1:]] == [
            ("approve", "ada", "on the page")
        ]
        assert len(empty_workplace.json("runs")["runs"]) == 1  # nothing ran again
        [tick] = empty_workplace.json("model", "history", "small")["ticks"]
        assert (tick["cause"], tick["code"], tick["run"]) == ("event", "first", True)
    finally:
        os.killpg(served.pid, signal.SIGKILL)
        served.wait()
