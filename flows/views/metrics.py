"""The ledger's figures as Prometheus metrics, without ticket text and ticket ids.

Read again at each scrape: nothing is counted in memory, so that it does not matter which process answers, a command for
the textfile collector of a node exporter or the endpoint's `/metrics`.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.records.published import warehouse_folder
from flows.registry.feedback import routed
from flows.workspace.clock import present
from flows.workspace.settings import Settings
from schemas.errors import StorageError, TunegateError

Gauge = Callable[..., Any]
REFUSED = ("TG0580", "TG0581")
"""Codes of the errors of a ledger that is not to be believed."""
FATES = {"kept": "n_out", "quarantined": "n_quarantined", "dropped": "n_dropped", "merged": "n_merged"}


def exposition(settings: Settings) -> bytes:
    """Return all metrics in the text format 0.0.4; of a ledger that is refused only `history_whole`, which is 0.

    Raises:
        TunegateError: the ledger cannot be read.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client import Gauge as PrometheusGauge

    def report(ledger: Ledger | None) -> bytes:
        registry = CollectorRegistry()

        def gauge(name: str, description: str, *labels: str) -> Any:
            return PrometheusGauge(f"tunegate_{name}", description, labels, registry=registry)

        whole = gauge("history_whole", "0 when the ledger was altered, or is not the one that was here before")
        whole.set(ledger is not None)
        if ledger is not None:
            pipelines = _report_runs(ledger, gauge)
            _report_champions(ledger, gauge)
            _report_routed(ledger, settings, gauge)
            _report_steps(ledger, gauge, pipelines)
            _report_rows(settings, gauge, pipelines)
        return bytes(generate_latest(registry))

    try:
        return report(open_ledger(settings))
    except StorageError as error:
        if error.code not in REFUSED:
            raise
        return report(None)


def _report_runs(ledger: Ledger, gauge: Gauge) -> list[str]:
    runs = gauge("runs", "Runs in the ledger by how they ended", "pipeline", "status", "verdict")
    tallies = ledger.tallies()
    for tally in tallies:
        runs.labels(tally.pipeline, tally.status, tally.verdict).set(tally.n_runs)
    held = gauge("pipeline_held", "1 while a run holds the pipeline", "pipeline")
    since = gauge("last_verdict_seconds", "Since the newest verdict other than ERROR, seconds", "pipeline")
    took = gauge("last_run_seconds", "From start to end of the newest run with an end, seconds", "pipeline")
    pipelines = sorted({tally.pipeline for tally in tallies})
    for pipeline in pipelines:
        held.labels(pipeline).set(ledger.holder_of(pipeline) is not None)
        last = next((row for row in ledger.runs(pipeline=pipeline) if row.ended_at and row.status != "SKIPPED"), None)
        if last is not None and last.ended_at:
            took.labels(pipeline).set(_seconds(last.started_at, datetime.fromisoformat(last.ended_at)))
    for pipeline, at in ledger.last_verdicts().items():
        since.labels(pipeline).set(_seconds(at, present()))
    return pipelines


def _report_champions(ledger: Ledger, gauge: Gauge) -> None:
    version = gauge("champion_version", "Version of the champion", "name")
    age = gauge("champion_age_seconds", "Since the champion became champion, seconds", "name")
    for champion in ledger.champions():
        version.labels(champion.name).set(int(champion.version))
        age.labels(champion.name).set(_seconds(champion.promoted_at, present()))
    waiting = gauge("approvals_waiting", "Candidates that wait for approval", "name")
    for name in ledger.names():
        waiting.labels(name).set(len(ledger.waiting(name)))
    gauge("mlflow_pending", "Changes that MLflow does not have yet").set(len(ledger.pending_projections()))


def _report_routed(ledger: Ledger, settings: Settings, gauge: Gauge) -> None:
    labels = ("name", "version")
    n_routed = gauge("routed_tickets", "Routed tickets of which feedback says whether their label was right", *labels)
    share = gauge("routed_right_ratio", "Share of these whose label was right, 0-1", *labels)
    evidence = gauge("certificate_evidence", "Against the certificate of the version; alarm at 1 / error", *labels)
    for champion in ledger.champions():
        try:
            found = routed(champion.name, None, settings, ledger)
        except TunegateError:  # feedback is being stored: report the other metrics
            continue
        for version in found:
            n_routed.labels(champion.name, version.version).set(version.n)
            share.labels(champion.name, version.version).set(version.n_right / version.n)
            evidence.labels(champion.name, version.version).set(version.evidence)


def _report_steps(ledger: Ledger, gauge: Gauge, pipelines: Iterable[str]) -> None:
    seconds = gauge("step_seconds", "What the step took in the newest run that made it, seconds", "pipeline", "step")
    for pipeline in pipelines:
        seen: set[str] = set()
        for run in ledger.runs(pipeline=pipeline, limit=5):
            for step in ledger.steps(run.run_id):
                if step.state == "done" and step.step not in seen:
                    seen.add(step.step)
                    seconds.labels(pipeline, step.step).set(step.seconds)


def _report_rows(settings: Settings, gauge: Gauge, pipelines: Iterable[str]) -> None:
    from tasks.curate.warehouse_query import funnel_of

    rows = gauge("rows", "Rows of the published warehouse by step and fate", "pipeline", "step", "fate")
    for pipeline in pipelines:
        database = warehouse_folder(settings.home, pipeline) / "warehouse.duckdb"
        try:
            funnel = funnel_of(database) if database.is_file() else []
        except TunegateError:  # in use, or of another version: report the other metrics
            continue
        for step in funnel:
            for fate, column in FATES.items():
                rows.labels(pipeline, step["step"], fate).set(step[column])


def _seconds(since: str, until: datetime) -> float:
    return max(0.0, (until - datetime.fromisoformat(since)).total_seconds())
