"""MLflow runs: one per pipeline run, with parameters, live curves, metrics and dataset references.

MLflow is a projection of the ledger: every call can be repeated without effect. All its failures become `ServiceError`,
so a caller can continue without it. This module never gets ticket text.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import math
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow.parquet as pq

from schemas.errors import ServiceError, TunegateError
from schemas.release import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "tunegate.run_id"
DIGEST_CHARS = 32
"""MLflow stores 36 characters of a dataset digest; the dataset's profile has the whole sha256."""
PARAM_CHARS = 6000
TAG_CHARS = 8000
CURVES = ("loss", "learning_rate", "grad_norm", "validation_loss")
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default of 7 takes minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # stdout is data
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Variables to set before mlflow is imported; a user's own settings take precedence."""
_making = threading.Lock()
PARENT_TAG = "mlflow.parentRunId"
TABLES_TAG = "mlflow.loggedArtifacts"
"""Names the tables that MLflow's page of evaluations can show; `MlflowClient.log_table` sets it too, but appends the
rows once more when it is repeated."""
NOTE_TAG = "mlflow.note.content"
"""What MLflow's page of a run shows as its description."""
TRIAL_TAG = "tunegate.trial"
FIGURES = (
    "value", "bound", "gain", "gain_lower", "gain_upper", "n_items", "n_examples", "n_trainable", "n_steps", "n_tokens",
    "train_loss", "validation_loss", "memory_bytes", "seconds", "cost",
)  # fmt: skip
STATUSES = {"chosen": "FINISHED", "done": "FINISHED", "failed": "FAILED"}


def choose_uri(declared: str, environment: str | None, *, home: Path) -> str:
    """The pipeline's own URI, else MLFLOW_TRACKING_URI, else SQLite below the home folder.

    >>> choose_uri("", None, home=Path("/srv/tg"))
    'sqlite:////srv/tg/mlflow/mlflow.db'
    """
    return declared or environment or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"


def open_client(uri: str) -> MlflowClient:
    """A client of the store or server; creates the folder of an SQLite store. Imports mlflow (3 CPU seconds).

    It disables MLflow's own log lines and its traceback for every database error: important ones are raised.
    """
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    with as_service_error(uri):
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        if uri.startswith("sqlite:///"):
            _make_store(Path(uri.removeprefix("sqlite:///")))
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _make_store(path: Path) -> None:
    """Create the database aside and link it into place unless another process was faster: no one sees half a schema.

    MLflow creates it in place, where two processes would collide. So they take turns, with a lock on the folder that
    the kernel releases when its holder dies, and first remove what a killed process left.
    """
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    left = f".{path.name}.*tmp*"
    if path.exists() and not any(path.parent.glob(left)):
        return
    with _making, _locked(path.parent):  # alembic is not thread-safe
        for stale in path.parent.glob(left):
            stale.unlink()
        if path.exists():
            return
        aside = path.with_name(f".{path.name}.tmp")
        uri = f"sqlite:///{aside}"
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(aside)
        aside.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def begin_run(client: MlflowClient, record: RunRecord, *, experiment: str, uri: str) -> str:
    """Find or create the MLflow run of this pipeline run; returns its id."""
    with as_service_error(uri):
        experiment_id = _experiment(client, experiment, uri)
        query = f"tags.`{RUN_TAG}` = '{record.run_id}'"
        found = client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time"])
        if found:
            return str(found[0].info.run_id)
        run = client.create_run(
            experiment_id, tags={RUN_TAG: record.run_id, **record.tags}, run_name=f"{record.pipeline} {record.run_id}"
        )
        return str(run.info.run_id)


def log_points(
    client: MlflowClient, mlflow_run: str, points: Sequence[tuple[int, Mapping[str, float]]], *, uri: str
) -> None:
    """Add points to the run's curves: (step, name -> value)."""
    from mlflow.entities import Metric

    with as_service_error(uri):
        metrics = [
            Metric(name, value, 0, step)
            for step, figures in points
            for name, value in figures.items()
            if math.isfinite(value)
        ]
        for start in range(0, len(metrics), 500):
            client.log_batch(mlflow_run, metrics=metrics[start : start + 500])


@dataclass(frozen=True)
class RunFiles:
    """Existing files of a run to log."""

    shown: Sequence[Path] = ()
    """Logged unchanged."""
    curves: Path | None = None
    trials: Path | None = None
    table: Path | None = None
    """One of `shown`: columns and rows, as `MlflowClient.log_table` writes them."""


NO_FILES = RunFiles()


def complete_run(
    client: MlflowClient, mlflow_run: str, record: RunRecord, *, files: RunFiles = NO_FILES, uri: str
) -> None:
    """Write the run's results and end it; repeating it changes nothing."""
    from mlflow.entities import Metric, Param, RunTag

    with as_service_error(uri):
        run = client.get_run(mlflow_run)
        wanted = legal_params(record.params)
        params = [Param(name, value) for name, value in wanted.items() if name not in run.data.params]
        note = {NOTE_TAG: record.description} if record.description else {}
        if files.table is not None:
            note[TABLES_TAG] = json.dumps([{"path": files.table.name, "type": "table"}])
        tags = [RunTag(name, value[:TAG_CHARS]) for name, value in sorted({**record.tags, **note}.items())]
        metrics = [Metric(legal_name(name), value, 0, 0) for name, value in sorted(record.metrics.items())]
        for start in range(0, len(params), 100):
            client.log_batch(mlflow_run, params=params[start : start + 100])
        client.log_batch(mlflow_run, metrics=metrics, tags=tags)
        _log_datasets(client, mlflow_run, record)
        for file in files.shown:
            client.log_artifact(mlflow_run, str(file))
        if files.curves is not None:
            _fill_curves(client, mlflow_run, files.curves, uri)
        if files.trials is not None:
            log_trials(client, mlflow_run, files.trials)
        if run.info.status != "FINISHED":  # repeating it would change the end time
            client.set_terminated(mlflow_run, status="FINISHED")


def end_runs(client: MlflowClient, statuses: Mapping[str, str], *, experiment: str, uri: str) -> int:
    """End MLflow runs whose pipeline run has ended without reporting it; returns how many.

    Args:
        statuses: Pipeline run id -> MLflow status (FINISHED, FAILED, KILLED).
    """
    with as_service_error(uri):
        found = client.search_runs([_experiment(client, experiment, uri)], "attributes.status = 'RUNNING'")
        over = [(run.info.run_id, statuses.get(run.data.tags.get(RUN_TAG, ""))) for run in found]
        for mlflow_run, status in over:
            if status is not None:
                client.set_terminated(mlflow_run, status=status)
        return sum(status is not None for _, status in over)


def _fill_curves(client: MlflowClient, mlflow_run: str, curves: Path, uri: str) -> None:
    """Log the points that were not sent live."""
    rows = pq.read_table(curves).to_pylist()
    names = sorted({*CURVES, *(name for name in (rows[0] if rows else ()) if name.startswith("validation_"))})
    sent = {(name, point.step) for name in names for point in client.get_metric_history(mlflow_run, name)}
    points = [
        (
            row["step"],
            {
                name: row[name]
                for name in sorted(names)
                if row.get(name) is not None and (name, row["step"]) not in sent
            },
        )
        for row in rows
    ]
    log_points(client, mlflow_run, points, uri=uri)


def _log_datasets(client: MlflowClient, mlflow_run: str, record: RunRecord) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=dataset.name,
                digest=dataset_digest(dataset.digest),
                source_type="tunegate",
                source=json.dumps({"sha256": dataset.digest}),
                profile=json.dumps(
                    {"num_rows": dataset.n_rows, "sha256": dataset.digest}
                    | ({"labels": dataset.labels} if dataset.labels else {})
                ),
            ),
            tags=[InputTag("mlflow.data.context", dataset.context)],
        )
        for dataset in record.datasets
    ]
    if inputs:
        client.log_inputs(mlflow_run, inputs)


def _experiment(client: MlflowClient, name: str, uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if uri.startswith("sqlite:///"):  # artifacts next to the database, not in the current directory
        location = (Path(uri.removeprefix("sqlite:///")).parent / "artifacts").absolute().as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def dataset_digest(sha256: str) -> str:
    """MLflow's digest of a dataset."""
    return sha256[:DIGEST_CHARS]


def legal_params(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters with names and lengths that MLflow accepts, sorted."""
    return {legal_name(name): value[:PARAM_CHARS] for name, value in sorted(params.items())}


def legal_name(name: str) -> str:
    """A name that MLflow accepts for parameters and metrics: letters, digits and `_-. :/`, at most 250.

    >>> legal_name("gates.slice(region=süd)")
    'gates.slice_region_s_d_'
    """
    return re.sub(r"[^A-Za-z0-9_\-. :/]", "_", name)[:250]


@contextlib.contextmanager
def as_service_error(uri: str) -> Iterator[None]:
    """Raise any error of MLflow as a ServiceError that names the server without its credentials."""
    try:
        yield
    except TunegateError:
        raise
    except Exception as error:
        if getattr(error, "get_http_status_code", lambda: 0)() in (401, 403) or " 401" in str(error)[:200]:
            raise ServiceError(
                "MLflow rejects this login",
                code="TG0710",
                where=_without_login(uri),
                hint="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a user with write access",
            ) from error
        known = type(error).__module__.partition(".")[0] in ("mlflow", "sqlalchemy") and str(error)
        detail = f": {_without_login(str(error).splitlines()[0][:160])}" if known else ""
        raise ServiceError(
            f"MLflow failed: {type(error).__name__}{detail}",
            code="TG0710",
            where=_without_login(uri),
            hint="once it works again, `tunegate ops reconcile` brings it up to date",
        ) from error


def _without_login(text: str) -> str:
    """The text without user names and passwords in its addresses.

    >>> _without_login("https://ada:secret@mlflow.example/api")
    'https://mlflow.example/api'
    """
    return re.sub(r"://[^/\s]*@", "://", text)


def log_trials(client: MlflowClient, mlflow_run: str, table: Path) -> None:
    """Create missing child runs and end them; existing ones stay unchanged."""
    experiment = client.get_run(mlflow_run).info.experiment_id
    rows = [row for row in pq.read_table(table).to_pylist() if row["state"] != "not_started"]
    for row in rows:
        _log_trial(client, experiment, mlflow_run, row)


def _log_trial(client: MlflowClient, experiment: str, mlflow_run: str, row: dict[str, Any]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    query = f"tags.`{PARENT_TAG}` = '{mlflow_run}' and tags.`{TRIAL_TAG}` = '{row['name']}'"
    found = client.search_runs([experiment], query, max_results=1, order_by=["attributes.start_time"])
    tags = {PARENT_TAG: mlflow_run, TRIAL_TAG: row["name"], "tunegate.state": row["state"]}
    run = found[0] if found else client.create_run(experiment, tags=tags, run_name=row["name"])
    params = {"base_model": row["base"], "method": row["method"]} | {
        path: str(value) for path, value in orjson.loads(row["changes"]).items()
    }
    missing = [Param(name, value[:PARAM_CHARS]) for name, value in params.items() if name not in run.data.params]
    figures = {name: row[name] for name in FIGURES if row.get(name) is not None}
    metrics = [
        Metric(name, float(value), 0, 0)
        for name, value in figures.items()
        if math.isfinite(value) and name not in run.data.metrics
    ]
    notes = [RunTag("tunegate.summary", row["summary"][:PARAM_CHARS])] if row["summary"] else []
    client.log_batch(run.info.run_id, metrics=metrics, params=missing[:100], tags=notes)
    if run.info.status not in STATUSES.values():  # repeating it would change the end time
        client.set_terminated(run.info.run_id, status=STATUSES[row["state"]])
