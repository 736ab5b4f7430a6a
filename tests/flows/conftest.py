"""A small pipeline on a tiny model, run by the real command; and a home folder with candidates and an MLflow store."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from flows.engine.disk import private_folder
from flows.engine.ledger import Ledger
from flows.servers import client_environment, ensure_prefect, stop_all
from flows.session import Session
from flows.settings import Settings, open_ledger
from schemas.artifacts import BundleRef, ChampionRef, ModelRef, TrainedRef
from schemas.release import RunRecord
from schemas.training import PromptSpec
from schemas.verdicts import Verdict
from tasks.files import seal, write_json
from tasks.release.register import VERSION_TAG, alias_version
from tasks.release.tracking import RUN_TAG, choose_uri, open_client
from tests.flows.warm import FRESH_WORKER, Warm, WarmProcess
from tests.schemas.test_pipeline import build

if TYPE_CHECKING:
    from mlflow import MlflowClient

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One real Prefect server for all tests."""
    home = tmp_path_factory.mktemp("prefect-home")
    server = ensure_prefect(
        home, environ={name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    )
    assert server is not None
    yield f"{server.url}/api"
    stop_all(home)


@dataclass
class Workplace:
    """A folder with a pipelines.yaml of its own, and the command to run in it."""

    folder: Path
    environ: dict[str, str]
    warm: Warm

    @property
    def home(self) -> Path:
        return self.folder / ".tunegate"

    def declare(self, change: Callable[[dict[str, Any]], None] = lambda _document: None) -> None:
        """Write pipelines.yaml after `change` has had its way with the small one."""
        document = small_document(self.environ["TINY_MODEL"])
        change(document)
        with (self.folder / "pipelines.yaml").open("w") as stream:
            YAML().dump(document, stream)

    def start(self, *arguments: str, **environ: str) -> WarmProcess:
        """Start `tunegate ...` without waiting for it."""
        return self.warm.start(arguments, cwd=self.folder, environ={**self.environ, **environ})

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run `tunegate ...` to its end."""
        process = self.start(*arguments, **environ)
        try:
            out, error = process.communicate(timeout=580)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode is not None
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    def json(self, *arguments: str) -> Any:
        """The object that `tunegate ... --json` prints."""
        done = self.run(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


def small_document(model: str) -> dict[str, Any]:
    """A pipeline that reaches a verdict in seconds: 240 tickets, a random two-layer model, four steps.

    Its one rule (at least 0 % of the answers are not empty) is always met: what a tiny random model writes is of no
    interest here.
    """
    return {
        "version": 1,
        "pipelines": {
            "small": {
                "source": {"kind": "generated", "n_tickets": 240, "n_customers": 60, "seed": 3},
                "schema": {"fail_above": 0.2},
                "curate": {
                    "steps": [
                        {"uses": "redact"},
                        {"uses": "rule", "name": "has_reply", "keep": "reply is not null"},
                        {"uses": "dedup"},
                    ]
                },
                "split": {"test_fraction": 0.25, "validation_fraction": 0.05},
                "train": {
                    "base_model": f"file:{model}",
                    "dtype": "float32",
                    "max_examples": 32,
                    "max_length": 512,
                    "overflow": "truncate_left",
                    "batch_size": 4,
                    "max_steps": 6,
                    "save_every": 2,
                    "threads": 1,
                },
                "evaluate": {
                    "max_items": 12,
                    "max_new_tokens": 4,
                    "arms": ["zero_shot", "majority", "tfidf"],
                    "threads": 1,
                },
                "gates": {"min_items": 5, "round_trip": None, "rules": [{"metric": "format", "value_threshold": 0.0}]},
                "register": {"name": "small"},
            },
            "strict": {
                "extends": "small",
                "train": {"seed": 1},
                "gates": {"rules": [{"metric": "exact", "value_threshold": 0.9}]},
            },
        },
    }


@pytest.fixture
def fresh_worker(workplace: Workplace) -> None:
    """Let commands start the training as users have it: as a new interpreter, with its own memory and environment."""
    workplace.environ[FRESH_WORKER] = "1"


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """One process with the heavy libraries imported, of which all commands are forks."""
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_TRACKING"))
    }
    process = Warm(tmp_path_factory.mktemp("warm"), {**environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"})
    yield process
    process.stop()


@pytest.fixture
def bare_workplace(tmp_path: Path, tiny_model: ModelRef, warm: Warm) -> Workplace:
    """A workplace without a Prefect server of its own: whoever needs one starts it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    environ |= {"TINY_MODEL": str(tiny_model.root), "TUNEGATE_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    return Workplace(tmp_path, environ, warm)


@pytest.fixture
def workplace(bare_workplace: Workplace, prefect_url: str, empty_store: Path) -> Workplace:
    """A workplace that uses the tests' Prefect server, with an MLflow store that is made already."""
    private_folder(bare_workplace.home / "mlflow")
    shutil.copy(empty_store, bare_workplace.home / "mlflow" / "mlflow.db")
    (bare_workplace.home / "mlflow" / "mlflow.db").chmod(0o600)
    bare_workplace.environ |= {**client_environment(None), "PREFECT_API_URL": prefect_url}
    bare_workplace.declare()
    return bare_workplace


@dataclass
class Place:
    """A home folder with a ledger and an MLflow store, and candidates to put into them."""

    settings: Settings

    def at(self, home: Path) -> Place:
        """The same in another home folder."""
        return Place(replace(self.settings, home=home))

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.settings)

    @property
    def uri(self) -> str:
        return choose_uri("", None, home=self.home)

    @property
    def client(self) -> MlflowClient:
        return open_client(self.uri)

    def record(
        self,
        number: int,
        verdict: Verdict,
        *,
        name: str = "replies",
        run_id: str = "",
        reason: str = "because",
        experiment: str = "tunegate",
    ) -> str:
        """A run with a candidate and its record; returns the version."""
        run_id = run_id or f"run-{number}"
        self.ledger.start_run(
            run_id, pipeline="small", model_name=name, input_digest="d",
            config_json=json.dumps({"train": {"seed": number}, "register": {"name": name, "experiment": "late"}}),
        )  # fmt: skip
        bundle = self.home / "store" / "bundle" / f"{number:064x}"
        if not bundle.exists():
            bundle.mkdir(parents=True)
            (bundle / "serving.json").write_text(f"{number}\n")
        record = RunRecord(
            run_id=run_id, pipeline="small", params={"train.seed": str(number)}, metrics={"exact": 0.5},
            tags={"tunegate.verdict": verdict}, experiment=experiment,
            curves="store/train/gone/curves.parquet", files=("store/gone.md",),
        )  # fmt: skip
        (self.home / "runs").mkdir(exist_ok=True)
        write_json(self.home / "runs" / f"{run_id}.json", record.model_dump(mode="json"))
        candidate = ChampionRef(
            name=name, version="", run_id=run_id, prompt=PromptSpec(), max_new_tokens=4, verdict_digest="v",
            promoted_at="", bundle=BundleRef(root=bundle, digest=seal(bundle), n_bytes=1),
            model=ModelRef(
                root=self.home, digest="base", uri="file:base", n_parameters=1, vocab_size=2, context_length=3
            ),
            trained=TrainedRef(
                root=self.home, digest=f"trained-{number}", method="lora", format="instruction", base_digest="base",
                n_trainable=1, n_steps=1, n_tokens=1, train_loss=0.5,
            ),
        )  # fmt: skip
        return self.ledger.record_candidate(candidate, verdict=verdict, reason=reason)

    def promote(self, number: int, *, after: str | None, name: str = "replies", experiment: str = "tunegate") -> str:
        """A candidate that becomes champion."""
        version = self.record(number, "PROMOTE", name=name, experiment=experiment)
        self.ledger.promote(name, expected=after, version=version, run_id=f"run-{number}", reason="better")
        return version

    def told(self, name: str = "replies") -> dict[str, Any]:
        """What MLflow shows under the name: versions with their verdicts, aliases and runs."""
        versions = self.client.search_model_versions(f"name = '{name}'")
        found = self.client.get_experiment_by_name("tunegate")
        runs = self.client.search_runs([found.experiment_id]) if found else []
        return {
            "versions": sorted((v.tags[VERSION_TAG], v.tags["tunegate.verdict"]) for v in versions),
            **{
                alias: alias_version(self.client, name=name, alias=alias, uri=self.uri)
                for alias in ("previous", "champion", "challenger")
            },
            "runs": sorted((run.data.tags[RUN_TAG], run.info.status) for run in runs),
        }

    def forget(self) -> None:
        """Make the ledger believe that MLflow has been told nothing."""
        with closing(sqlite3.connect(self.ledger.path)) as db, db:
            db.execute("UPDATE projections SET done_at = NULL")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database: making one takes two seconds, copying it none."""
    home = tmp_path_factory.mktemp("empty-store")
    uri = choose_uri("", None, home=home)
    open_client(uri).search_experiments()
    return home / "mlflow" / "mlflow.db"


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Place:
    home = tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, home / "mlflow" / "mlflow.db")
    return Place(Settings(home=home, cache=tmp_path / "cache", prefect_api_url=None, mlflow_tracking_uri=None))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """A session of a run that has begun, without any step done."""
    settings = Settings(home=tmp_path / "home", cache=tmp_path, prefect_api_url=None, mlflow_tracking_uri=None)
    session = Session(build(), settings, root=tmp_path, run_id="run-1")
    session.ledger.start_run("run-1", pipeline="demo", model_name="demo", input_digest="", config_json="{}")
    return session
