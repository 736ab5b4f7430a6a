"""The whole stack on one machine: a deployment uses every server, each is killed, and everything is backed up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg2
import pytest
from ruamel.yaml import YAML

from flows.ledger.ledger import Ledger
from flows.workspace.servers import read_state
from infra.stack import postgres, services
from infra.stack.backup import backup, restore
from infra.stack.place import SECRETS, StackPlace
from infra.stack.postgres import PostgresCluster, PostgresError, programs
from infra.stack.services import StackError, alive, down, ledger_of, start_postgres, status, up
from schemas.artifacts import ModelRef
from schemas.errors import StorageError
from tests.support.processes import wait_for
from tests.support.project import PROJECT
from tests.support.workplace import small_document

Make = Callable[[str], StackPlace]

pytestmark = pytest.mark.server


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Make the stack of a home folder with this name; stop it afterwards."""
    try:
        programs()
    except PostgresError as error:
        pytest.skip(str(error))
    monkeypatch.delenv("PGPASSFILE", raising=False)
    monkeypatch.setenv("PGPASSFILE", "")  # the stack sets it; restored at the end
    made: list[StackPlace] = []
    folders: list[Path] = []

    def make(name: str) -> StackPlace:
        folders.append(Path(tempfile.mkdtemp(prefix="tunegate-stack-")))  # Postgres can use it even if this is root
        folders[-1].chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "MLFLOW_"))}
        environ = {**kept, "TUNEGATE_HOME": str(tmp_path / name), "TUNEGATE_STACK_POSTGRES": str(folders[-1])}
        environ["TUNEGATE_STACK_PORTS"] = "free"  # other tests may choose ports at the same time
        made.append(StackPlace(tmp_path / "pipelines.yaml", environ=environ))
        return made[-1]

    yield make
    for place in made:
        down(place, report=lambda _line: None)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def declare(folder: Path, model: str) -> None:
    """Declare one pipeline with a schedule."""
    document = small_document(model)
    document["pipelines"]["small"]["schedule"] = {"cron": "0 5 1 1 *"}
    del document["pipelines"]["strict"]
    with (folder / "pipelines.yaml").open("w") as stream:
        YAML().dump(document, stream)


def silent(_line: str) -> None:
    """Discard a line."""


def kill(place: StackPlace, name: str) -> None:
    """Kill one service without warning, like a power cut."""
    server = read_state(place.folder / name)
    assert server is not None
    os.killpg(server.pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while alive(place, name) is not None and time.monotonic() < deadline:
        time.sleep(0.1)


def query(place: StackPlace, database: str, *statements: str) -> Any:
    os.environ["PGPASSFILE"] = str(place.folder / "pgpass")
    with closing(psycopg2.connect(place.database(database))) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def test_databases_survive_a_power_cut_and_a_backup_restores_with_equal_digests(make: Make, tmp_path: Path) -> None:
    declare(tmp_path, "nowhere")
    place = make("first")
    place.prepare()
    start_postgres(place)
    ledger = ledger_of(place)
    ledger.start_run("run-1", pipeline="small", model_name="small", config_json="{}")
    query(place, "mlflow", "CREATE TABLE t (n int, word text)", "INSERT INTO t VALUES (1, 'one'), (2, NULL)")
    for part in ("store/train/k/weights", "warehouse/small/warehouse.duckdb", "stack/mlflow/artifacts/1/model"):
        (place.home / part).parent.mkdir(parents=True, exist_ok=True)
        (place.home / part).write_bytes(os.urandom(1000))
    assert all((place.folder / name).stat().st_mode & 0o777 == 0o600 for name in ("secrets.json", "pgpass"))
    assert set(place.secrets) == set(SECRETS)
    command = Path(f"/proc/{_pid(place, 'postgres')}/cmdline").read_text()
    assert not any(secret in command for secret in place.secrets.values())

    kill(place, "postgres")
    start_postgres(place)
    assert ledger.run("run-1").status == "RUNNING"
    assert query(place, "mlflow", "SELECT count(*) FROM t") == [(2,)]

    digests = backup(place, tmp_path / "backup")
    with pytest.raises(StackError, match="exists"):
        backup(place, tmp_path / "backup")
    query(place, "mlflow", "INSERT INTO t VALUES (3, 'later')")
    second = make("second")
    assert restore(tmp_path / "backup", second) == digests
    assert second.secrets == place.secrets
    assert second.ports != place.ports
    assert query(second, "mlflow", "SELECT n, word FROM t ORDER BY n") == [(1, "one"), (2, None)]
    assert (second.home / "store/train/k/weights").read_bytes() == (place.home / "store/train/k/weights").read_bytes()
    assert ledger_of(second).run("run-1").status == "RUNNING"
    with pytest.raises(StackError, match="not empty"):
        restore(tmp_path / "backup", second)
    (tmp_path / "backup" / "home" / "store" / "train" / "k" / "weights").write_bytes(b"rot")
    with pytest.raises(StorageError, match="TG0510"):
        restore(tmp_path / "backup", make("third"))


@pytest.mark.parametrize("kept", ["ports.json", "secrets.json"])
def test_services_that_start_at_the_same_time_use_the_ports_and_passwords_of_the_first(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"TUNEGATE_STACK_PORTS": "free", "TUNEGATE_HOME": str(tmp_path)}
    first, second = (StackPlace(tmp_path / "pipelines.yaml", environ=environ) for _ in range(2))
    write = tempfile.mkstemp

    def overtaken(**options: Any) -> tuple[int, str]:  # the second one found nothing either and is about to write
        monkeypatch.setattr(tempfile, "mkstemp", write)
        assert len(state_of(first)) >= 5
        return write(**options)

    def state_of(place: StackPlace) -> dict[str, Any]:
        return place.ports if kept == "ports.json" else place.secrets

    monkeypatch.setattr(tempfile, "mkstemp", overtaken)
    assert state_of(second) == state_of(first)
    assert [path.name for path in first.folder.iterdir()] == [kept]


def test_services_that_start_at_the_same_time_copy_unreachable_programs_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "package" / "install" / "bin"
    real.mkdir(parents=True)
    (real / "pg_isready").write_text("#!/bin/sh\n" * 100_000)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # root, for whom `nobody` runs Postgres
    monkeypatch.setattr(postgres, "programs", lambda: real)
    monkeypatch.setattr(postgres, "_reachable", lambda _path: False)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda _n: PostgresCluster(tmp_path / "cluster", 1).program("pg_isready"), range(4)))
    assert found == {str(tmp_path / "cluster" / "programs" / "package" / "install" / "bin" / "pg_isready")}
    assert Path(*found).read_bytes() == (real / "pg_isready").read_bytes()
    assert [path.name for path in (tmp_path / "cluster").iterdir()] == ["programs"]


def test_of_two_simultaneous_starts_one_creates_the_cluster(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(tmp_path, "nowhere")
    place = make("home")
    monkeypatch.setattr(services, "services", lambda _place: ())  # only Postgres
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: up(each, report=silent), [place, StackPlace(place.config, environ=place.environ)]))
    assert alive(place, "postgres") is not None
    assert query(place, "mlflow", "SELECT 1") == [(1,)]


def test_the_command_line_reports_each_service_and_refuses_unknown_arguments(make: Make, tmp_path: Path) -> None:
    declare(tmp_path, "nowhere")
    place = make("home")

    def stack(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "infra.stack", *arguments]
        environ = {**place.environ, "PYTHONPATH": str(PROJECT)}
        return subprocess.run(command, cwd=tmp_path, env=environ, check=False, capture_output=True, text=True)

    assert (before := stack("status")).returncode == 1
    assert before.stdout.split()[:2] == ["postgres", "down"]
    place.prepare()
    start_postgres(place)
    after = stack("status")
    assert after.returncode == 1
    assert after.stdout.split() == ["postgres", "works", "prefect", "down", "mlflow", "down", "worker", "down"]
    assert "needs a folder" in stack("backup").stderr
    assert stack("run", "postgres").returncode == 2


def test_mlflow_of_the_stack_refuses_pages_of_other_ports_and_artifact_roots_of_a_users_choice(
    make: Make, tmp_path: Path
) -> None:
    declare(tmp_path, "nowhere")
    place = make("first")
    place.prepare()
    start_postgres(place)
    (mlflow,) = [service for service in services.services(place) if service.name == "mlflow"]
    login = ("admin", place.secrets["MLFLOW_ADMIN_PASSWORD"])
    search, create = (f"{place.mlflow_url}/api/2.0/mlflow/experiments/{name}" for name in ("search", "create"))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(mlflow.command, stdout=log, stderr=log, env=dict(mlflow.environ), cwd=tmp_path)
    try:
        wait_for(lambda: mlflow.works() or process.poll() is not None)
        with httpx.Client(timeout=60, trust_env=False) as client:
            wanted = {"max_results": 10}
            assert client.post(search, json=wanted).status_code == 401
            assert client.post(search, json=wanted, auth=login).status_code == 200
            for headers in ({"Origin": "http://localhost:8080"}, {"Host": "127.0.0.1:1"}):
                assert client.post(search, json=wanted, auth=login, headers=headers).status_code == 403
            body = {"name": "elsewhere", "artifact_location": tmp_path.as_uri()}
            assert client.post(create, json=body, auth=login).status_code == 400
            assert client.post(create, json={"name": "mine"}, auth=login).status_code == 200
    finally:
        process.terminate()
        process.wait(60)


def _pid(place: StackPlace, name: str) -> int:
    server = read_state(place.folder / name)
    assert server is not None
    return server.pid


class UsedStack:
    """A stack used as by its users: with commands in the environment of `infra.stack env`."""

    def __init__(self, place: StackPlace) -> None:
        self.place = place

    @property
    def ledger(self) -> Ledger:
        return ledger_of(self.place)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=self.place.config.parent, env=self.place.process(),
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def deploy_and_run(self) -> tuple[str, str]:
        """Run the deployment on the worker; return status and verdict of the run in the ledger."""
        before = {row.run_id for row in self.ledger.runs(limit=100)}
        self.run("prefect", "deployment", "run", "tunegate/small", "--watch", "--watch-timeout", "560")
        [row] = [row for row in self.ledger.runs(limit=100) if row.run_id not in before]
        return row.status, row.verdict or ""

    def mlflow_alias(self) -> str:
        code = (
            "from mlflow import MlflowClient as C; print(C().get_model_version_by_alias('small', 'champion').version)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=self.place.process(), capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def answer(self) -> str:
        """The champion's answer at the endpoint."""
        body = {"model": "champion", "messages": [{"role": "user", "content": "My parcel has not arrived."}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.place.ports['endpoint']}/v1/chat/completions", json.dumps(body).encode(),
            {
                "Authorization": f"Bearer {self.place.secrets['TUNEGATE_ENDPOINT_TOKEN']}",
                "Content-Type": "application/json",
            },
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=60) as response:
            return str(json.load(response)["choices"][0]["message"]["content"])


@pytest.mark.campaign
@pytest.mark.timeout(2400)
def test_a_deployment_uses_all_servers_survives_their_kills_and_is_restored_in_another_place(
    make: Make, tmp_path: Path, tiny_model: ModelRef
) -> None:
    declare(tmp_path, str(tiny_model.root))
    used = UsedStack(make("first"))
    place = used.place
    up(place, report=silent)
    assert set(status(place).values()) == {"works"}
    used.run("flows.cli", "ops", "deploy", "--pool", "tunegate")
    assert used.deploy_and_run() == ("DONE", "PROMOTE")
    assert used.mlflow_alias() == "1"
    assert used.ledger.pending_projections() == ()
    up(place, report=silent)
    assert set(status(place)) == {"postgres", "prefect", "mlflow", "worker", "endpoint"}
    answer = used.answer()

    for name in ("postgres", "prefect", "mlflow", "worker", "endpoint"):
        kill(place, name)
        up(place, report=silent)
        assert set(status(place).values()) == {"works"}, name
        assert used.deploy_and_run() == ("SKIPPED", ""), name  # nothing is new according to the ledger
        assert used.answer() == answer
    assert used.mlflow_alias() == "1"
    assert [row.verdict for row in used.ledger.runs(limit=100)].count("PROMOTE") == 1

    digests = backup(place, tmp_path / "backup")
    down(place, report=silent)
    moved = UsedStack(make("second"))
    assert restore(tmp_path / "backup", moved.place) == digests
    up(moved.place, report=silent)
    assert set(status(moved.place).values()) == {"works"}
    assert moved.answer() == answer
    assert moved.mlflow_alias() == "1"
    assert moved.deploy_and_run() == ("SKIPPED", "")
    assert moved.run("flows.cli", "ops", "doctor").count("every file has its sha256") == 1
