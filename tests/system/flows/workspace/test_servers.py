"""The local servers: on loopback, reused, stopped completely, without telemetry."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from flows.deployments import deployments
from flows.views.doctor import reachable_from_elsewhere
from flows.workspace.disk import private_folder
from flows.workspace.servers import (
    Server,
    client_environment,
    ensure_mlflow,
    ensure_prefect,
    ensure_users_prefect,
    free_port,
    running,
    start_time,
    stop,
    stop_all,
    users_home,
    users_homes,
)
from flows.workspace.settings import load_settings
from schemas.artifacts import ModelRef
from schemas.errors import ServiceError
from schemas.load import load_file
from tasks.storage.files import write_json
from tests.support.commands import run_here
from tests.support.desk_server import send, serving
from tests.support.processes import wait_for
from tests.support.workplace import Workplace, environment

OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}


def test_free_ports_are_distinct_and_outside_the_kernels_ephemeral_range() -> None:
    found: list[int] = []
    for _ in range(20):
        found.append(free_port(without=found))
    assert len(set(found)) == 20
    with socket.socket() as ephemeral:
        ephemeral.bind(("127.0.0.1", 0))
        assert max(found) < ephemeral.getsockname()[1]
    with socket.create_server(("127.0.0.1", found[0])), pytest.raises(ServiceError, match="TG0701"):
        free_port(without={*range(1, found[0]), *range(found[0] + 1, 65536)})


@pytest.mark.server
def test_both_servers_start_once_answer_on_loopback_and_stop(tmp_path: Path) -> None:
    try:
        prefect = ensure_prefect(tmp_path, environ=OUTSIDE)
        mlflow = ensure_mlflow(tmp_path, environ=OUTSIDE)
        assert prefect is not None
        assert ensure_prefect(tmp_path, environ=OUTSIDE) == prefect  # the same process, not a second one
        assert {server.kind for server in running(tmp_path)} == {"prefect", "mlflow"}
        for server, path in ((prefect, "/api/health"), (mlflow, "/health")):
            assert server.url.startswith("http://127.0.0.1:")
            assert not reachable_from_elsewhere(int(server.url.rpartition(":")[2]))
            with urllib.request.urlopen(server.url + path, timeout=10) as response:
                assert response.status == 200
            assert Path(server.log).stat().st_size > 0
    finally:
        stopped = stop_all(tmp_path)
    assert {server.kind for server in stopped} == {"prefect", "mlflow"}
    assert running(tmp_path) == ()
    assert not any(Path(f"/proc/{server.pid}").exists() for server in stopped)


@pytest.fixture
def users_server() -> Iterator[str]:
    """The address of a server that the user runs: it answers `/api/health` with 200, anything else with 404."""
    with serving(lambda handler: send(handler, 200 if handler.path == "/api/health" else 404, {})) as url:
        yield url


def test_the_users_own_server_is_not_touched(
    tmp_path: Path, users_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no proxy for this machine
    monkeypatch.delenv("no_proxy", raising=False)
    assert ensure_prefect(tmp_path, environ={"PREFECT_API_URL": f"{users_server}/api"}) is None
    assert list(tmp_path.iterdir()) == []


def test_the_users_own_server_is_reported_if_it_does_not_answer(
    tmp_path: Path, users_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.workspace.servers.YOURS_TIMEOUT_S", 0)
    for url in (f"{users_server}/elsewhere", "http://127.0.0.1:9/api", "no address"):
        with pytest.raises(ServiceError, match="TG0701") as caught:
            ensure_prefect(tmp_path, environ={"PREFECT_API_URL": url})
        assert (caught.value.where, caught.value.exit_code) == (url, 7)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.server
def test_projects_that_start_together_share_one_server_which_ends_when_idle(
    tmp_path: Path, tiny_model: ModelRef
) -> None:
    """One project runs a pipeline; another, whose shell has settings of its own, needs a server at the same time."""
    from prefect.events.worker import EventsWorker

    one, folder = Workplace(tmp_path, environment(tiny_model.root, tmp_path / "cache")), tmp_path
    one.declare(lambda document: document["pipelines"]["small"]["schema"].update(fail_above=0.0))  # it ends soon
    one.environ |= {"XDG_STATE_HOME": str(folder / "state"), "TUNEGATE_SERVER_IDLE_S": "30"}
    environ = {**OUTSIDE, **one.environ, "PREFECT_SERVER_UI_ENABLED": "false"}
    two = load_settings(folder / "two" / "pipelines.yaml", environ=environ | {"TUNEGATE_HOME": str(folder / "two")})
    assert two.state is not None
    common, announced = users_home(two.state), []
    try:
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(
                ensure_users_prefect, two, environ=environ, starting=lambda: announced.append("starting")
            )
            done = one.run("run", "small")
            server = asked.result()
        assert server is not None
        assert done.returncode == 3, done.stderr
        assert done.stderr.count("starting your Prefect server") + len(announced) == 1
        assert f"shown in Prefect at {server.url}" in done.stderr
        assert not (one.home / "prefect").exists()  # it belongs to no project
        assert not two.home.exists()
        assert (common / "prefect" / "pages" / "v1").is_dir()  # the shell of one project decides nothing
        os.killpg(server.pid, signal.SIGSTOP)  # alive, but does not answer
        timer = threading.Timer(3, os.killpg, (server.pid, signal.SIGCONT))
        timer.start()
        assert ensure_users_prefect(two, environ=environ) == server  # it was only slow
        timer.join()
        assert [each["pid"] for each in one.json("status")["servers"]] == [str(server.pid)]
        EventsWorker.drain_all()  # the connection that a run holds; a command's ends with its process
        wait_for(lambda: running(common) == ())
        assert one.json("status")["servers"] == []
    finally:
        stop_all(common)


def test_down_leaves_the_users_server_and_down_all_stops_it(tmp_path: Path) -> None:
    environ = {**OUTSIDE, "XDG_STATE_HOME": str(tmp_path / "state")}
    state = load_settings(tmp_path / "pipelines.yaml", environ=environ).state
    assert state is not None
    folder = private_folder(users_home(state) / "prefect")

    def down(*options: str) -> str:
        return run_here(["ops", "down", *options], cwd=tmp_path, environ=environ).stdout

    with (folder / "server.log").open("w") as log:  # any process does for being stopped
        process = subprocess.Popen(["sleep", "600"], stderr=log, start_new_session=True)
    server = Server("prefect", "http://127.0.0.1:9", process.pid, start_time(process.pid), str(folder / "server.log"))
    write_json(folder / "server.json", asdict(server))
    try:
        assert "left running: your Prefect server http://127.0.0.1:9" in down()
        assert process.poll() is None
        assert down("--all") == "stopped: prefect\n"
        assert process.wait(60) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_another_version_of_prefect_and_another_host_have_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = users_home(tmp_path)
    monkeypatch.setattr("flows.workspace.servers.metadata.version", lambda _name: "2.0")
    assert users_home(tmp_path) != here
    monkeypatch.setattr("flows.workspace.servers.socket.gethostname", lambda: "elsewhere")
    users_home(tmp_path).mkdir(parents=True)
    assert users_homes(tmp_path) == [users_home(tmp_path)]  # `down --all` leaves what other hosts run


def test_a_user_folder_that_cannot_be_made_is_reported_and_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    settings = load_settings(tmp_path / "pipelines.yaml", environ={"XDG_STATE_HOME": str(tmp_path / "state")})
    with pytest.raises(ServiceError, match="TG0701") as caught:
        ensure_users_prefect(settings, environ=OUTSIDE)
    assert str(tmp_path / "state") in str(caught.value.where)


def test_a_server_that_cannot_start_is_reported_with_its_log(tmp_path: Path) -> None:
    # Python without site-packages does not find the module and exits at once.
    environ = {"PATH": os.environ["PATH"], "PYTHONHOME": str(tmp_path / "nowhere")}
    with pytest.raises(ServiceError, match=r"TG0701.*ended with exit code") as caught:
        ensure_prefect(tmp_path, environ=environ)
    assert caught.value.where == str(tmp_path / "prefect" / "server.log")
    assert caught.value.exit_code == 7
    assert not (tmp_path / "prefect" / "server.json").exists()


def test_an_interrupted_start_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Server] = []

    def interrupt(_url: str) -> bool:
        seen.extend(running(tmp_path))
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.workspace.servers.answers", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ensure_prefect(tmp_path, environ=OUTSIDE)
    (server,) = seen  # its state is on disk before it answers
    assert not Path(f"/proc/{server.pid}").exists()
    assert running(tmp_path) == ()


def test_a_stale_state_file_is_not_a_server(tmp_path: Path) -> None:
    (tmp_path / "prefect").mkdir()
    state = '{"kind": "prefect", "url": "http://127.0.0.1:9", "pid": 1, "started": "0", "log": "x"}'
    (tmp_path / "prefect" / "server.json").write_text(state)
    assert running(tmp_path) == ()
    assert stop_all(tmp_path) == ()


def test_a_copied_home_leaves_the_servers_of_the_original_alone_and_a_moved_one_keeps_its_own(tmp_path: Path) -> None:
    home, copied, moved = tmp_path / "home", tmp_path / "copied", tmp_path / "moved"
    server = ensure_mlflow(home, environ=OUTSIDE)
    try:
        shutil.copytree(home, copied)
        assert running(home) == (server,)
        assert running(copied) == stop_all(copied) == ()
        home.rename(moved)
        assert running(moved) == (server,)
    finally:
        stop(server)


def test_clients_send_no_telemetry_and_use_the_given_server() -> None:
    environment = client_environment(None)
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_SERVER_EPHEMERAL_ENABLED"] == "false"
    assert "PREFECT_API_URL" not in environment


def test_clients_reach_this_machine_without_a_proxy() -> None:
    environment = client_environment(None, environ={"NO_PROXY": "intra.example,localhost", "no_proxy": "other.example"})
    assert environment["NO_PROXY"] == environment["no_proxy"] == "intra.example,localhost,other.example,127.0.0.1"
    assert client_environment(None, environ={"no_proxy": "*"})["NO_PROXY"] == "*"


def test_a_deployment_names_the_flow_by_its_module(project: Path) -> None:
    config = project / "pipelines.yaml"
    loaded = load_file(config)
    made = deployments(loaded, config)
    assert [one.name for one in made] == [name for name, spec in loaded.pipelines.items() if spec.schedule.cron]
    assert {one.entrypoint for one in made} == {"flows.pipeline.run_pipeline"}
    assert all(Path(one.parameters["config"]).is_absolute() for one in made)
