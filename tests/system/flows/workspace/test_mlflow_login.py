"""MLflow's server of `tunegate ops up`, attacked by another user of this machine and by pages of other ports.

Also the operator's view: a browser logs in with what the printed file holds, and commands find the login themselves.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from flows.registry.address import registry_address
from flows.workspace.login import login_file, read_login
from flows.workspace.servers import Server, ensure_mlflow, free_port, read_state, running, start_time, stop_all
from flows.workspace.settings import Settings, load_settings
from schemas.secrets import masked
from tasks.release.tracking import choose_uri, open_client
from tasks.storage.files import write_json
from tests.support.attackers import NOBODY, ForeignPage, ask_as_another_user, may_read_as_another_user
from tests.support.browser import open_browser
from tests.support.commands import run_here
from tests.support.desk_server import send, serving
from tests.support.processes import wait_for
from tests.support.workplace import ForkedWorkplace
from tests.system.flows.workspace.test_servers import OUTSIDE

pytestmark = pytest.mark.server

API = "/api/2.0/mlflow"
SEARCH = f"{API}/experiments/search?max_results=100"
ATTACK = f"""
import encodings.idna, json, os, sys, urllib.error, urllib.request
os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})  # after the imports: they may have no access to this Python
url, mine, target, content = sys.argv[1:]

def call(path, body=None):
    request = urllib.request.Request(url + path, body, {{"Content-Type": "application/json"}})
    with urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request, timeout=60) as answer:
        return answer.read()

def create(path, **body):
    return json.loads(call("/api/2.0/mlflow/" + path, json.dumps(body).encode()))

try:
    experiment = create("experiments/create", name=mine, artifact_location="file://" + mine)["experiment_id"]
    run = create("runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
    os.mkdir(f"{{mine}}/{{run}}")
    os.symlink(os.path.dirname(target), f"{{mine}}/{{run}}/artifacts")
    where = f"run_uuid={{run}}&path={{os.path.basename(target)}}"
    if content:
        print(call("/ajax-api/2.0/mlflow/upload-artifact?" + where, content.encode()).decode())
    else:
        print(call("/get-artifact?" + where).decode())
except urllib.error.HTTPError as error:
    print("refused:", error.code)
"""
ANSWERS_ANYONE = """
import sys, wsgiref.simple_server as wsgi
answer = lambda _, start: (start("200 OK", []), [b"{}"])[1]
wsgi.make_server("127.0.0.1", int(sys.argv[1]), answer).serve_forever()
"""


class Door:
    """A home folder whose MLflow server `tunegate ops up` started."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / ".tunegate"
        folder.mkdir(exist_ok=True)
        (folder / "pipelines.yaml").write_text("version: 1\npipelines: {}\n")

    def up(self, *options: str) -> str:
        """Run `tunegate ops up` next to a Prefect server of the user's own; return what it prints."""
        with serving(lambda handler: send(handler, 200, {})) as prefect:
            environ = {**OUTSIDE, "PREFECT_API_URL": f"{prefect}/api"}
            done = run_here(["ops", "up", *options], cwd=self.folder, environ=environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def server(self) -> Server:
        server = read_state(self.home / "mlflow")
        assert server is not None
        return server

    @property
    def login(self) -> str:
        login = read_login(self.home / "mlflow")
        assert login is not None
        return login

    def ask(self, path: str, body: Any = None, *, login: str | None = None, **headers: str) -> tuple[int, str]:
        """Status and text of a GET, or of a POST of JSON, with this login (`user:password`)."""
        if login is not None:
            headers["Authorization"] = f"Basic {b64encode(login.encode()).decode()}"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.server.url + path, data, {"Content-Type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def experiments(self) -> set[str]:
        code, text = self.ask(SEARCH, login=self.login)
        assert code == 200, text
        return {each["name"] for each in json.loads(text)["experiments"]}


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("door"))
    door.up()
    yield door
    stop_all(door.home)


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A folder of another user, which this one can read."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user of this machine")
    folder = Path(tempfile.mkdtemp(prefix="nobodys-"))
    os.chown(folder, NOBODY, NOBODY)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def attack(door: Door, mine: Path, target: Path, content: str = "") -> str:
    """What another user gets who makes their folder an artifact root and links it to the target's folder."""
    done = subprocess.run(
        [sys.executable, "-c", ATTACK, door.server.url, str(mine), str(target), content],
        cwd="/", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_another_user_reads_no_file_of_the_operator_through_a_linked_artifact_root(door: Door, nobodys: Path) -> None:
    secret = door.home / "forget.key"
    secret.write_text("the key of tombstones")
    assert not may_read_as_another_user(str(secret))
    assert attack(door, nobodys, secret) == "refused: 401"
    assert str(nobodys) not in door.experiments()


def test_another_user_overwrites_no_file_of_the_operator(door: Door, nobodys: Path) -> None:
    config = door.folder / "pipelines.yaml"
    before = config.read_bytes()
    assert attack(door, nobodys, config, "version: 1\npipelines: {evil: {}}\n") == "refused: 401"
    assert config.read_bytes() == before


def test_every_path_asks_for_the_login_but_the_health(door: Door) -> None:
    url = door.server.url
    assert ask_as_another_user(f"{url}/health")[0] == 200
    paths = (
        "/", "/version", SEARCH, "/get-artifact?run_uuid=x&path=y", "/graphql", "/signup", "/v1/traces",
        "/ajax-api/3.0/jobs/search", "/ajax-api/3.0/mlflow/assistant/config", f"{API}-artifacts/artifacts",
    )  # fmt: skip
    for path in paths:
        assert door.ask(path)[0] in (401, 404, 405), path
    new = {"username": "mallory", "password": "a-long-password-1"}
    guesses = (None, "tunegate:", "tunegate:guess-guess-guess", "admin:password1234", f"admin:{door.login[9:]}")
    for guess in guesses:
        for path, body in ((SEARCH, None), (f"{API}/users/create", new), (f"{API}/users/create-ui", new)):
            assert door.ask(path, body, login=guess)[0] == 401, (guess, path)
    header = f"Basic {b64encode(b'tunegate:guess').decode()}"
    assert ask_as_another_user(url + SEARCH, Authorization=header)[0] == 401
    assert door.ask(f"{API}/users/get?username=mallory", login=door.login)[0] == 404


def test_only_the_operator_can_read_the_login_which_is_in_no_command_line_and_in_no_log(door: Door) -> None:
    printed = door.up()  # a second time: the same server
    kept, log = login_file(door.home / "mlflow"), Path(door.server.log)
    password = door.login.partition(":")[2]
    assert len(password) > 40
    assert str(kept) in printed
    assert door.server.url in printed
    assert password not in printed + door.up("--json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    commands = subprocess.run(["ps", "-ewwo", "args"], capture_output=True, text=True, check=True).stdout
    assert f"--allowed-hosts 127.0.0.1:{door.server.url.rpartition(':')[2]}," in commands
    assert password not in commands
    assert password not in log.read_text()
    for secret in (kept, log, kept.with_name("auth.db"), Path(f"/proc/{door.server.pid}/environ")):
        assert not may_read_as_another_user(str(secret)), secret


def test_a_page_of_another_port_and_another_host_name_are_refused_with_the_login_too(door: Door) -> None:
    own = door.server.url
    for origin in ("http://localhost:8080", "http://127.0.0.1:1", "http://[::1]:3000", "http://127.0.0.1", "null",
                   "https://evil.example"):  # fmt: skip
        assert door.ask(SEARCH, login=door.login, Origin=origin)[0] == 403, origin
        created = door.ask(f"{API}/experiments/create", {"name": "evil"}, login=door.login, Origin=origin)
        assert created[0] == 403, origin
    assert door.ask(SEARCH, login=door.login, Sec_Fetch_Site="same-site", Sec_Fetch_Mode="no-cors")[0] == 403
    assert door.ask(SEARCH, login=door.login, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="cors")[0] == 403
    for host in ("evil.example", "127.0.0.1:1", "localhost", own.removeprefix("http://") + "1"):
        assert door.ask(SEARCH, login=door.login, Host=host)[0] == 403, host
    assert door.ask(SEARCH, login=door.login, Origin=own)[0] == 200
    assert door.ask("/", login=door.login, Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link
    assert "evil" not in door.experiments()


def test_the_operator_too_keeps_artifacts_only_below_the_home(door: Door, tmp_path: Path) -> None:
    create = f"{API}/experiments/create"
    for body in ({"artifact_location": tmp_path.as_uri()}, {"artifactLocation": str(tmp_path)}):
        for sent in ({"name": "elsewhere", **body}, json.dumps({"name": "elsewhere", **body})):
            code, text = door.ask(create, sent, login=door.login)
            assert code == 400
            assert "leave out artifact_location" in text
    assert "elsewhere" not in door.experiments()
    code, text = door.ask(create, {"name": "mine"}, login=door.login)
    assert code == 200
    code, text = door.ask(f"{API}/experiments/get-by-name?experiment_name=mine", login=door.login)
    root = json.loads(text)["experiment"]["artifact_location"]
    assert root.startswith((door.home / "mlflow" / "artifacts").as_uri())


@pytest.mark.parametrize(
    "other",
    [
        "",
        "http://127.0.0.1:9",
        "http://mlflow.example:{port}",
        "https://127.0.0.1:{port}",
        "http://me:mine@127.0.0.1:{port}",
    ],
)
def test_only_the_server_of_this_home_gets_its_login(door: Door, other: str) -> None:
    port = door.server.url.rpartition(":")[2]
    settings = Settings(home=door.home, cache=door.home, prefect_api_url=None, mlflow_tracking_uri=None)
    for own in (door.server.url, f"http://localhost:{port}"):
        assert registry_address(own, settings) == own.replace("//", f"//{door.login}@")
        assert registry_address("", replace(settings, mlflow_tracking_uri=own)) == registry_address(own, settings)
        assert registry_address(own, replace(settings, home=door.folder)) == own
    assert door.login not in masked(registry_address(door.server.url, settings))
    assert registry_address(other.format(port=port), settings) == choose_uri(
        other.format(port=port), None, home=door.home
    )


@pytest.mark.browser
def test_a_browser_that_is_logged_in_shows_the_pages_and_serves_no_page_of_another_port(door: Door) -> None:
    user, _, password = door.login.partition(":")
    html = {"Content-Type": "text/html"}
    with serving(lambda handler: send(handler, 200, "a foreign page", html)) as foreign, open_browser() as browser:
        context = browser.new_context(http_credentials={"username": user, "password": password})
        page = context.new_page()
        page.set_default_timeout(120_000)
        with page.expect_response(lambda answer: "/experiments/search" in answer.url) as listed:
            page.goto(f"{door.server.url}/#/experiments")
        assert listed.value.status == 200
        page.get_by_text("Experiments").first.wait_for()
        for origin in (foreign, foreign.replace("127.0.0.1", "localhost")):
            evil = context.new_page()
            evil.goto(origin)
            sent = ForeignPage(evil).send(door.server.url + SEARCH)
            sent += ForeignPage(evil).send(door.server.url + f"{API}/experiments/create", '{"name": "evil"}')
            assert {answer["status"] for answer in sent} <= {None, 0, 401, 403}
    assert "evil" not in door.experiments()


def test_a_server_without_logins_is_replaced_and_each_start_has_another_password(tmp_path: Path) -> None:
    door, other = Door(tmp_path / "one"), Door(tmp_path / "two")
    folder = door.home / "mlflow"
    folder.mkdir(parents=True, mode=0o700)
    port, log = free_port(), folder / "server.log"
    with log.open("w") as stream:  # as a server that was started by hand
        old = subprocess.Popen([sys.executable, "-c", ANSWERS_ANYONE, str(port)], stderr=stream, start_new_session=True)
    state = Server("mlflow", f"http://127.0.0.1:{port}", old.pid, start_time(old.pid), str(log))
    write_json(folder / "server.json", asdict(state))
    try:
        door.up()
        assert old.wait(60) == -signal.SIGTERM
        first, login = door.server, door.login
        assert door.ask(SEARCH)[0] == 401
        assert door.ask(f"{API}/experiments/create", {"name": "kept"}, login=login)[0] == 200

        os.killpg(first.pid, signal.SIGKILL)
        wait_for(lambda: running(door.home) == ())
        door.up()  # over the databases of the killed one
        assert door.server != first
        assert door.login != login
        assert door.ask(SEARCH, login=login)[0] == 401
        assert "kept" in door.experiments()

        other.up()  # another project at the same time
        assert door.ask(SEARCH, login=other.login)[0] == other.ask(SEARCH, login=door.login)[0] == 401
        assert door.ask(SEARCH, login=door.login)[0] == other.ask(SEARCH, login=other.login)[0] == 200
    finally:
        old.kill()
        old.wait()
        stop_all(door.home)
        stop_all(other.home)


def test_commands_find_the_login_and_register_a_version_through_the_server(workplace: ForkedWorkplace) -> None:
    server = ensure_mlflow(workplace.home, environ=OUTSIDE)
    try:
        workplace.environ["MLFLOW_TRACKING_URI"] = server.url
        done = workplace.run("run", "small", "--require-mlflow", "--json")
        assert json.loads(done.stdout)["mlflow_pending"] == 0, done.stderr
        reconciled = workplace.run("ops", "reconcile", "--json")
        assert reconciled.returncode == 0, reconciled.stderr
        login = read_login(workplace.home / "mlflow")
        assert login is not None
        assert login not in done.stdout + done.stderr + reconciled.stdout + reconciled.stderr

        settings = load_settings(workplace.folder / "pipelines.yaml", environ=workplace.environ)
        address = registry_address("", settings)
        assert address == server.url.replace("//", f"//{login}@")
        (version,) = open_client(address).search_model_versions("name = 'small'")
        assert version.tags["tunegate.verdict"] in ("PROMOTE", "HOLD", "BLOCK")
        (found,) = [each for each in workplace.json("ops", "doctor")["findings"] if each["what"] == "mlflow"][-1:]
        assert found["state"] == "ok"
    finally:
        stop_all(workplace.home)
