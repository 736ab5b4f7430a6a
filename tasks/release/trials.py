"""One MLflow run per training that was chosen from, below the run of the pipeline.

A projection of `ladder.parquet` or `trials.parquet`: saying it twice changes nothing. Called by
`tasks/release/tracking.py`; knows nothing of how the choice was made.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARENT_TAG = "mlflow.parentRunId"
TRIAL_TAG = "tunegate.trial"
FIGURES = (
    "value", "bound", "gain", "gain_lower", "gain_upper", "n_items", "n_examples", "n_trainable", "n_steps", "n_tokens",
    "train_loss", "validation_loss", "memory_bytes", "seconds", "cost",
)  # fmt: skip
PARAM_CHARS = 6000
STATUSES = {"chosen": "FINISHED", "done": "FINISHED", "failed": "FAILED"}


def log_trials(client: MlflowClient, mlflow_run: str, table: Path) -> None:
    """Make what is missing of the child runs and end them; what is there already stays as it is."""
    import pyarrow.parquet as pq

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
    told = [RunTag("tunegate.told", row["told"][:PARAM_CHARS])] if row["told"] else []
    client.log_batch(run.info.run_id, metrics=metrics, params=missing[:100], tags=told)
    if run.info.status not in STATUSES.values():  # again would move its end
        client.set_terminated(run.info.run_id, status=STATUSES[row["state"]])
