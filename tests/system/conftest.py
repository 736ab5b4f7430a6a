"""Processes, servers, browsers and clusters that tests of whole commands share, one of each per worker."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.workspace.servers import ensure_prefect, stop_all
from schemas.artifacts import ModelRef
from tests.support.browser import open_browser
from tests.support.place import empty_store, place, run_context
from tests.support.postgres import Postgres, running_postgres
from tests.support.prefect_server import OwnServer, PrefectServer
from tests.support.project import PROJECT
from tests.support.shared import made_once
from tests.support.warm import FRESH_WORKER, Warm
from tests.support.workplace import ForkedWorkplace, environment, finish, give_mlflow, give_results

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from prefect.client.orchestration import SyncPrefectClient

# Ray reads them once per process, so all clusters of the tests have the same token.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


LONG = (
    "flows/schedule/test_deployed_run.py",
    "tasks/cluster",
    "flows/test_pipeline_real_tickets.py",
    "flows/run/test_placement.py",
    "flows/schedule/test_approval.py",
    "flows/test_pipeline_without_prefect.py",
    "tasks/train",
    "flows/cli/test_endpoint.py",
    "flows/test_gate_checks_guards.py",
    "tasks/model/test_round_trip.py",
    "infra/stack",
    "flows/graph/test_prefect_runner.py",
)
"""Files that take minutes, longest first: they start first, so that at the end no worker runs alone."""
assert all((Path(__file__).parent / each).exists() for each in LONG)


# First: at its turn, pytest-xdist copies the groups into the names that its scheduler reads.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Send all tests of a file to one worker, which sets up what they share, and all Ray tests to one worker.

    Tests that run commands in their own workplace share nothing, so any worker may run them, except where the file
    has a group of its own.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "cluster" in fixtures:
            item.add_marker(pytest.mark.xdist_group("ray"))
        elif "warm" not in fixtures and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=_start)


def _start(item: pytest.Item) -> int:
    """The place of the item's file in `LONG`."""
    file = item.nodeid.partition("::")[0].partition("tests/system/")[2]
    return next((place for place, long in enumerate(LONG) if file.startswith(long)), len(LONG))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real Postgres; `postgres.fresh()` returns the address of an empty database."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A real Prefect server for all tests of a worker."""
    home = tmp_path_factory.mktemp("prefect-home")
    server = ensure_prefect(
        home, environ={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    )
    assert server is not None
    yield PrefectServer(server)
    stop_all(home)


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnServer]:
    """A Prefect server of this test, which may kill it."""
    home = tmp_path_factory.mktemp("own-server")
    server = OwnServer(home)
    yield server
    server.stop()
    stop_all(home)


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """An operator's client of the tests' Prefect server, in this process."""
    from prefect.client.orchestration import get_client
    from prefect.settings import temporary_settings

    with temporary_settings(prefect_server.settings()), get_client(sync_client=True) as made:
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """A process with the heavy libraries imported, from which all commands are forked."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))
    }
    process = Warm(tmp_path_factory.mktemp("warm"), {**environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"})
    yield process
    process.stop()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef, warm: Warm) -> Path:
    """A folder in which the small pipelines have run to their verdicts; only to copy from."""

    def make(folder: Path) -> None:
        finish(ForkedWorkplace(folder, environment(tiny_model.root, folder / "cache"), warm))

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def fresh_worker(request: pytest.FixtureRequest) -> None:
    """Make commands start training as a new interpreter with its own memory and environment, as for users."""
    name = "workplace" if "workplace" in request.fixturenames else "empty_workplace"
    request.getfixturevalue(name).environ[FRESH_WORKER] = "1"


@pytest.fixture
def bare_workplace(tmp_path: Path, tiny_model: ModelRef, warm: Warm) -> ForkedWorkplace:
    """A workplace without a Prefect server; tests that need one start it."""
    return ForkedWorkplace(tmp_path, environment(tiny_model.root, tmp_path / "cache"), warm)


@pytest.fixture
def empty_workplace(
    bare_workplace: ForkedWorkplace, prefect_server: PrefectServer, empty_store: Path
) -> ForkedWorkplace:
    """The small pipelines with the tests' Prefect server and an empty MLflow store; nothing has run."""
    give_mlflow(bare_workplace.home, empty_store)
    bare_workplace.environ |= prefect_server.environ
    bare_workplace.declare()
    return bare_workplace


@pytest.fixture
def workplace(empty_workplace: ForkedWorkplace, finished: Path) -> ForkedWorkplace:
    """The same with the results of the pipelines' runs in the store, so runs only make what a test changes."""
    give_results(empty_workplace.home, finished)
    return empty_workplace
