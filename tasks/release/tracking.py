"""MLflow runs: one per pipeline run, with parameters, live curves, metrics and dataset references.

MLflow is a projection of the ledger: every call can be repeated and changes nothing the second time. All of its
failures become `ServiceError`, so that a caller can go on without it. Ticket text never comes here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from schemas.errors import ServiceError
from schemas.release import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

RUN_TAG = "tunegate.run_id"
DIGEST_CHARS = 32
"""MLflow keeps 36 characters of a dataset digest; the whole sha256 goes into the dataset's profile."""
PARAM_CHARS = 6000
CURVES = frozenset({"loss", "learning_rate", "grad_norm", "validation_loss"})


def choose_uri(declared: str, environment: str | None, *, home: Path) -> str:
    """The pipeline's own URI, else MLFLOW_TRACKING_URI, else SQLite below the home folder.

    >>> choose_uri("", None, home=Path("/srv/tg"))
    'sqlite:////srv/tg/mlflow/mlflow.db'
    """
    return declared or environment or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"


def open_client(uri: str) -> MlflowClient:
    """A client of the store or server; makes the folder of an SQLite store. Imports mlflow (about 2 CPU seconds)."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with as_service_error(uri):
        import logging

        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def begin_run(client: MlflowClient, record: RunRecord, *, experiment: str, uri: str) -> str:
    """The MLflow run of this pipeline run, made if it is not there; returns its id."""
    with as_service_error(uri):
        experiment_id = _experiment(client, experiment, uri)
        found = client.search_runs([experiment_id], f"tags.`{RUN_TAG}` = '{record.run_id}'", max_results=1)
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

    metrics = [Metric(name, value, 0, step) for step, figures in points for name, value in figures.items()]
    with as_service_error(uri):
        for start in range(0, len(metrics), 500):
            client.log_batch(mlflow_run, metrics=metrics[start : start + 500])


def complete_run(
    client: MlflowClient,
    mlflow_run: str,
    record: RunRecord,
    *,
    files: Sequence[Path] = (),
    curves: Path | None = None,
    uri: str,
) -> None:
    """Write what the run amounts to and end it; saying it twice changes nothing."""
    from mlflow.entities import Metric, Param, RunTag

    with as_service_error(uri):
        known = client.get_run(mlflow_run).data.params
        params = [Param(k, v[:PARAM_CHARS]) for k, v in sorted(record.params.items()) if k not in known]
        tags = [RunTag(k, v) for k, v in sorted(record.tags.items())]
        metrics = [Metric(k, v, 0, 0) for k, v in sorted(record.metrics.items())]
        for start in range(0, len(params), 100):
            client.log_batch(mlflow_run, params=params[start : start + 100])
        client.log_batch(mlflow_run, metrics=metrics, tags=tags)
        _log_datasets(client, mlflow_run, record)
        for file in files:
            client.log_artifact(mlflow_run, str(file))
        if curves is not None:
            _fill_curves(client, mlflow_run, curves, uri)
        client.set_terminated(mlflow_run, status="FINISHED")


def _fill_curves(client: MlflowClient, mlflow_run: str, curves: Path, uri: str) -> None:
    """Log the steps that were not sent live."""
    import pyarrow.parquet as pq

    sent = {metric.step for metric in client.get_metric_history(mlflow_run, "loss")}
    rows = [row for row in pq.read_table(curves).to_pylist() if row["step"] not in sent]
    points = [(row["step"], {k: v for k, v in row.items() if k in CURVES and v is not None and v == v}) for row in rows]
    log_points(client, mlflow_run, points, uri=uri)


def _log_datasets(client: MlflowClient, mlflow_run: str, record: RunRecord) -> None:
    import json

    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = [
        DatasetInput(
            Dataset(
                name=dataset.name,
                digest=dataset.digest[:DIGEST_CHARS],
                source_type="tunegate",
                source=json.dumps({"sha256": dataset.digest}),
                profile=json.dumps({"num_rows": dataset.n_rows, "sha256": dataset.digest}),
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
    if uri.startswith("sqlite:///"):  # artifacts beside the database, not in the current directory
        location = (Path(uri.removeprefix("sqlite:///")).parent / "artifacts").absolute().as_uri()
    return str(client.create_experiment(name, artifact_location=location))


@contextmanager
def as_service_error(uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into a ServiceError that names the server, without its credentials."""
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:
        where = uri.split("@")[-1]
        raise ServiceError(
            f"MLflow does not answer as it should: {type(error).__name__}",
            code="TG0710",
            where=where,
            hint="`tunegate sync` brings MLflow up to date when it answers again",
        ) from error
