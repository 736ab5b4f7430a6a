"""The private Prefect server, attacked by a page of another origin and by another user of this machine.

Also the operator's view: the address that `tunegate ops up` prints opens the pages in a real browser.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from flows import deployments as deploy
from flows.workspace.login import login_file, login_url
from flows.workspace.servers import client_environment, ensure_prefect, read_state, running, start_time, stop_all
from schemas.load import load_file
from tests.support.attackers import ask_as_another_user, foreign_page, may_read_as_another_user
from tests.support.browser import open_browser
from tests.support.prefect_server import PrefectServer
from tests.system.flows.workspace.test_servers import OUTSIDE

if TYPE_CHECKING:
    from playwright.sync_api import Response
    from prefect.client.orchestration import SyncPrefectClient

    from tests.support.workplace import ForkedWorkplace

pytestmark = pytest.mark.server


@pytest.fixture
def deployed(empty_workplace: ForkedWorkplace, client: SyncPrefectClient) -> str:
    """The id of a deployment that `tunegate ops deploy` made."""
    name = empty_workplace.folder.name.lower().replace("_", "-")[:60]

    def change(document: dict[str, Any]) -> None:
        document["pipelines"][name] = {"extends": "small", "schedule": {"cron": "0 5 1 1 *"}}

    empty_workplace.declare(change)
    config = empty_workplace.folder / "pipelines.yaml"
    [made], _ = deploy.register(load_file(config), config, pool=None)
    return made.deployment_id


def suspended(client: SyncPrefectClient, deployment_id: str) -> UUID:
    """A flow run of the deployment that waits for approval."""
    from prefect.client.schemas.objects import StateType
    from prefect.states import State

    made = client.create_flow_run_from_deployment(UUID(deployment_id))
    client.set_flow_run_state(made.id, State(type=StateType.RUNNING), force=True)
    client.set_flow_run_state(made.id, State(type=StateType.PAUSED, name="Suspended"), force=True)
    return made.id


def state_of(client: SyncPrefectClient, flow_run: UUID) -> str | None:
    state = client.read_flow_run(flow_run).state
    return state.name if state is not None else None


def count_manual_runs(client: SyncPrefectClient) -> int:
    """The number of flow runs that no schedule made."""
    return len([run for run in client.read_flow_runs() if not run.auto_scheduled])


def evil(folder: Path) -> Path:
    """A foreign pipelines.yaml whose step leaves a mark."""
    folder.mkdir()
    (folder / "evil.py").write_text(f"from pathlib import Path\nPath({str(folder / 'ran')!r}).touch()\n")
    (folder / "pipelines.yaml").write_text("version: 1\npipelines: {}\n")
    return folder / "pipelines.yaml"


@pytest.mark.browser
def test_a_page_of_another_origin_cannot_read_start_or_answer_runs(
    prefect_server: PrefectServer, client: SyncPrefectClient, deployed: str, tmp_path: Path
) -> None:
    waits = suspended(client, deployed)
    n_runs = count_manual_runs(client)
    evil_run = json.dumps({"parameters": {"pipeline": "x", "config": str(evil(tmp_path / "evil"))}})
    with foreign_page() as page:
        answers = page.send(f"{prefect_server.url}/flow_runs/filter", "{}")
        answers += page.send(f"{prefect_server.url}/logs/filter", "{}")
        answers += page.send(f"{prefect_server.url}/deployments/{deployed}/create_flow_run", evil_run)
        answers += page.send(f"{prefect_server.url}/flow_runs/{waits}/resume", '{"run_input": {"approve": true}}')
        answers += page.send(f"{prefect_server.url}/admin/version")
        socket = prefect_server.url.replace("http", "ws")
        assert page.listen(f"{socket}/events/out", "prefect") == []
        assert page.listen(f"{socket}/logs/out") == []
    assert {answer["status"] for answer in answers} == {None, 0}  # it cannot even read the refusal
    assert count_manual_runs(client) == n_runs
    assert state_of(client, waits) == "Suspended"


def test_another_user_of_this_machine_cannot_read_start_or_answer_runs(
    prefect_server: PrefectServer, client: SyncPrefectClient, deployed: str, tmp_path: Path
) -> None:
    waits = suspended(client, deployed)
    n_runs = count_manual_runs(client)
    for path, body in (
        ("/flow_runs/filter", {}),
        ("/logs/filter", {}),
        ("/deployments/filter", {}),
        (f"/deployments/{deployed}/create_flow_run", {"parameters": {"config": str(evil(tmp_path / "evil"))}}),
        (f"/flow_runs/{waits}/resume", {"run_input": {"approve": True, "by": "mallory"}}),
        ("/admin/settings", None),
    ):
        assert ask_as_another_user(prefect_server.url + path, body)[0] == 401, path
    guess = "Basic dHVuZWdhdGU6Z3Vlc3M="  # tunegate:guess
    assert ask_as_another_user(f"{prefect_server.url}/flow_runs/filter", {}, Authorization=guess)[0] == 401
    assert count_manual_runs(client) == n_runs
    assert state_of(client, waits) == "Suspended"

    server = prefect_server.server
    kept = login_file(Path(server.log).parent)
    assert kept.stat().st_mode & 0o777 == 0o600
    for secret in (kept, Path(server.log), Path(f"/proc/{server.pid}/environ")):
        assert not may_read_as_another_user(str(secret)), secret


def test_the_login_is_in_no_command_line_and_in_no_log(prefect_server: PrefectServer) -> None:
    password = prefect_server.login.partition(":")[2]
    assert len(password) > 40
    shown = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert "prefect" in shown
    assert password not in shown
    assert password not in Path(prefect_server.server.log).read_text()


@pytest.mark.parametrize(("name", "value"), [("pipeline", "strict"), ("config", "EVIL"), ("request", "SET")])
def test_a_caller_with_the_login_cannot_redirect_a_deployment_to_another_file_or_pipeline(
    client: SyncPrefectClient, deployed: str, tmp_path: Path, name: str, value: str
) -> None:
    from prefect.flow_engine import run_flow

    from flows.pipeline import run_pipeline

    other = str(evil(tmp_path / "evil"))
    settings = {"given": ["train.allow_download=true"]}
    parameters = {name: settings if value == "SET" else value.replace("EVIL", other)}
    made = client.create_flow_run_from_deployment(UUID(deployed), parameters=parameters)
    assert made.parameters | parameters == made.parameters  # Prefect accepts them
    state = run_flow(run_pipeline, flow_run=made, parameters=made.parameters, return_type="state")
    assert state.is_failed()
    assert "TG0840" in str(state.message)
    assert not (tmp_path / "evil" / "ran").exists()
    assert not (tmp_path / "evil" / ".tunegate").exists()  # the foreign file was not even opened


@pytest.mark.browser
def test_the_address_that_up_prints_logs_a_browser_in_but_the_plain_address_does_not(
    prefect_server: PrefectServer,
) -> None:
    server = prefect_server.server
    url = login_url(server.url, Path(server.log).parent)
    assert url.startswith(f"{server.url}/login.html#tunegate:")
    with open_browser() as browser:
        for address, logged_in in ((server.url, False), (url, True)):
            page = browser.new_context().new_page()
            page.set_default_timeout(120_000)
            answers: list[Response] = []
            page.on("response", lambda answer, kept=answers: kept.append(answer))
            page.goto(address)
            if logged_in:
                page.get_by_text("Logout").wait_for()
                assert {answer.status for answer in answers if "/api/" in answer.url} == {200}
            else:
                page.locator("input[type=password]").wait_for()
            assert server.url + "/" in page.url + "/"
            assert prefect_server.login not in page.url
            assert not any(prefect_server.login in answer.url for answer in answers)  # and it is not sent to the server


def test_a_server_without_a_login_is_replaced(tmp_path: Path) -> None:
    try:
        old = ensure_prefect(tmp_path, environ=OUTSIDE)
        assert old is not None
        login_file(tmp_path / "prefect").unlink()
        new = ensure_prefect(tmp_path, environ=OUTSIDE)
        assert new is not None
        assert new != old
        assert start_time(old.pid) != old.started
        assert running(tmp_path) == (new,)
        assert read_state(tmp_path / "prefect") == new
        assert client_environment(new)["PREFECT_API_AUTH_STRING"] == login_file(tmp_path / "prefect").read_text()
    finally:
        stop_all(tmp_path)


def test_a_server_gets_no_secret_of_the_operator(tmp_path: Path) -> None:
    try:
        server = ensure_prefect(tmp_path, environ={**OUTSIDE, "HF_TOKEN": "hf_secret-token", "PLAIN": "kept"})
        assert server is not None
        environ = Path(f"/proc/{server.pid}/environ").read_bytes()
    finally:
        stop_all(tmp_path)
    assert b"PLAIN=kept" in environ
    assert b"hf_secret-token" not in environ
