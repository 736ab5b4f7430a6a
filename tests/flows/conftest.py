"""Fixtures of tests/flows: a home folder with candidates, and workplaces that run commands in this process."""

from pathlib import Path

import pytest

from schemas.artifacts import ModelRef
from tests.support.commands import NOWHERE
from tests.support.place import empty_store, place, run_context  # noqa: F401
from tests.support.shared import made_once
from tests.support.workplace import Workplace, environment, finish, give_mlflow, give_results


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelRef) -> Path:
    """A folder in which the small pipelines have run to their verdicts; only to copy from."""

    def make(folder: Path) -> None:
        finish(Workplace(folder, environment(tiny_model.root, folder / "cache")))

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def bare_workplace(tmp_path: Path, tiny_model: ModelRef) -> Workplace:
    """A folder without a pipelines.yaml, whose runs do not use Prefect."""
    return Workplace(tmp_path, {**environment(tiny_model.root, tmp_path / "cache"), "PREFECT_API_URL": NOWHERE})


@pytest.fixture
def empty_workplace(bare_workplace: Workplace, empty_store: Path) -> Workplace:  # noqa: F811
    """The small pipelines and an empty MLflow store; nothing has run."""
    give_mlflow(bare_workplace.home, empty_store)
    bare_workplace.declare()
    return bare_workplace


@pytest.fixture
def workplace(empty_workplace: Workplace, finished: Path) -> Workplace:
    """The small pipelines with the results of their runs in the store, so runs only make what a test changes.

    The ledger is empty: it has recorded no run.
    """
    give_results(empty_workplace.home, finished)
    return empty_workplace
