"""A home folder with a ledger and an MLflow store, and helpers that add candidates."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.context.run_context import RunContext
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger, open_store
from flows.ledger.rows import RunVerdict
from flows.registry.state import RegistryState
from flows.workspace.settings import Settings
from schemas.artifacts import BundleRef, ChampionRef, ModelRef, ServedCertificate
from schemas.release import DatasetRecord, RunRecord
from schemas.training import PromptSpec
from schemas.verdicts import Verdict
from tasks.release.register import ALIAS_TAG, NAME_TAG, VERDICTS, VERSION_TAG, read_aliases
from tasks.release.tracking import RUN_TAG, choose_uri, open_client
from tasks.storage.files import write_json
from tasks.storage.sealed_folder import seal
from tests.support.refs import trained_ref
from tests.support.shared import made_once
from tests.support.specs import pipeline_spec

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass
class Place:
    """A home folder with a ledger and an MLflow store, and helpers that add candidates."""

    settings: Settings

    def at(self, home: Path) -> Place:
        """The same place in another home folder."""
        return Place(replace(self.settings, home=home))

    @property
    def home(self) -> Path:
        return self.settings.home

    @property
    def ledger(self) -> Ledger:
        return open_ledger(self.settings)

    @property
    def uri(self) -> str:
        return choose_uri("", self.settings.mlflow_tracking_uri, home=self.home)

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
        certificate: ServedCertificate | None = None,
    ) -> str:
        """Record a run with a candidate; return the version."""
        run_id = run_id or f"run-{number}"
        self.ledger.start_run(
            run_id, pipeline="small", model_name=name,
            config_json=json.dumps({"train": {"seed": number}, "register": {"name": name, "experiment": "late"}}),
        )  # fmt: skip
        bundle = self.home / "store" / "bundle" / f"{number:064x}"
        if not bundle.exists():
            bundle.mkdir(parents=True)
            (bundle / "serving.json").write_text(f"{number}\n")
        decision = self.home / "reports" / run_id / "decision.md"
        decision.parent.mkdir(parents=True, exist_ok=True)
        decision.write_text(f"# {verdict}\n")
        record = RunRecord(
            run_id=run_id, pipeline="small", params={"train.seed": str(number)}, metrics={"exact": 0.5},
            tags={"tunegate.verdict": verdict, "tunegate.code": f"code of {run_id}"}, experiment=experiment,
            curves="store/train/gone/curves.parquet", files=("store/gone.md",),
            verdict_files=(decision.relative_to(self.home).as_posix(),), scored=("exact",),
            datasets=(DatasetRecord(name="small-held-out", context="evaluation", digest="ef" * 32, n_rows=8),),
        )  # fmt: skip
        (self.home / "runs").mkdir(exist_ok=True)
        write_json(self.home / "runs" / f"{run_id}.json", record.model_dump(mode="json"))
        candidate = ChampionRef(
            name=name, version="", run_id=run_id, prompt=PromptSpec(), max_new_tokens=4, verdict_digest="v",
            promoted_at="", bundle=BundleRef(root=bundle, digest=seal(bundle), n_bytes=1),
            model=ModelRef(
                root=self.home, digest="base", uri="file:base", n_parameters=1, vocab_size=2, context_length=3
            ),
            trained=trained_ref(self.home, digest=f"trained-{number}"), certificate=certificate,
        )  # fmt: skip
        return self.ledger.record_candidate(candidate, verdict=verdict, reason=reason)

    def promote(
        self,
        number: int,
        *,
        after: str | None,
        name: str = "replies",
        run_id: str = "",
        experiment: str = "tunegate",
    ) -> str:
        """Record a candidate and promote it; return the version."""
        run_id = run_id or f"run-{number}"
        version = self.record(number, "PROMOTE", name=name, run_id=run_id, experiment=experiment)
        self.ledger.promote(name, expected=after, version=version, verdict=RunVerdict(run_id, "better"))
        return version

    def mlflow_state(self, name: str = "replies") -> dict[str, Any]:
        """What MLflow shows for the name: versions with their verdicts, aliases and runs."""
        versions = self.client.search_model_versions(f"name = '{name}'")
        found = self.client.get_experiment_by_name("tunegate")
        runs = self.client.search_runs([found.experiment_id]) if found else []
        return {
            "versions": sorted(
                (v.tags[VERSION_TAG], v.tags["tunegate.verdict"]) for v in versions if VERSION_TAG in v.tags
            ),
            **{
                alias: alias_version(self.client, name=name, alias=alias, uri=self.uri)
                for alias in ("previous", "champion", "challenger")
            },
            "runs": sorted((run.data.tags[RUN_TAG], run.info.status) for run in runs),
        }

    def models(self, name: str = "replies") -> list[dict[str, Any]]:
        """What MLflow shows of the name's logged models, by version, without MLflow's own ids."""
        experiments = [experiment.experiment_id for experiment in self.client.search_experiments()]
        found = self.client.search_logged_models(experiments, f"tags.`{NAME_TAG}` = '{name}'")
        runs = {  # a search does not return the models that a run was about
            run.info.run_id: self.client.get_run(run.info.run_id) for run in self.client.search_runs(experiments)
        }
        return sorted(
            (
                {
                    "version": model.tags[VERSION_TAG],
                    "status": str(model.status),
                    "verdict": model.tags.get("tunegate.verdict"),
                    "aliases": sorted(tag.removeprefix(ALIAS_TAG) for tag in model.tags if tag.startswith(ALIAS_TAG)),
                    "params": model.params,
                    "scores": sorted(
                        (runs[metric.run_id].data.tags[RUN_TAG], metric.key, metric.value, metric.dataset_name)
                        for metric in model.metrics or ()
                    ),
                    "made_by": sorted(
                        run.data.tags[RUN_TAG]
                        for run in runs.values()
                        for each in run.outputs.model_outputs
                        if each.model_id == model.model_id
                    ),
                    "judged_by": sorted(
                        run.data.tags[RUN_TAG]
                        for run in runs.values()
                        for each in run.inputs.model_inputs
                        if each.model_id == model.model_id
                    ),
                }
                for model in found
            ),
            key=lambda each: str(each["version"]),
        )

    def verdicts(self, name: str = "replies", *, alias: str = "champion") -> dict[str, str]:
        """Run -> decision.md, of all verdicts on the version that the alias points to."""
        return verdicts_of(self.client, name, alias)

    def forget(self) -> None:
        """Mark every change as not yet sent to MLflow."""
        with self.ledger.write() as db:
            db.execute("UPDATE projections SET done_at = NULL")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh MLflow database to copy: creating one takes two seconds."""

    def make(home: Path) -> None:
        open_client(choose_uri("", None, home=home)).search_experiments()

    return made_once(tmp_path_factory, "empty-store", make) / "mlflow" / "mlflow.db"


@pytest.fixture
def place(tmp_path: Path, empty_store: Path) -> Place:
    home = tmp_path / "home"
    (home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, home / "mlflow" / "mlflow.db")
    return Place(Settings(home=home, cache=tmp_path / "cache", prefect_api_url=None, mlflow_tracking_uri=None))


@pytest.fixture
def run_context(tmp_path: Path) -> RunContext:
    """A run that has started and completed no step."""
    settings = Settings(home=tmp_path / "home", cache=tmp_path, prefect_api_url=None, mlflow_tracking_uri=None)
    ledger = open_ledger(settings)
    ledger.start_run("run-1", pipeline="demo", model_name="demo", config_json="{}")
    return RunContext(pipeline_spec(), settings, tmp_path, "run-1", open_store(settings), ledger, RegistryState())


def verdicts_of(client: MlflowClient, name: str, alias: str = "champion") -> dict[str, str]:
    """Run -> decision.md, of all verdicts on the version that the alias points to; read from MLflow's folder."""
    run = client.get_run(str(client.get_model_version_by_alias(name, alias).run_id))
    folder = Path(str(run.info.artifact_uri).removeprefix("file://")) / VERDICTS
    return {each.parent.name: each.read_text() for each in sorted(folder.glob("*/decision.md"))}


def alias_version(client: MlflowClient, *, name: str, alias: str, uri: str) -> str | None:
    """The ledger's version that an alias points to, or None."""
    number = read_aliases(client, name=name, uri=uri).get(alias)
    return None if number is None else str(client.get_model_version(name, number).tags.get(VERSION_TAG))
