"""What the pages of `tunegate ui` show, read from ledger, store and warehouses; nothing is changed.

`tasks/release/pages/` draws it. Called by `flows/commands/ui.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.compare import compare_runs
from flows.engine.ledger import Ledger
from flows.engine.rows import RunRow
from flows.recorded import Recorded
from flows.report import gather
from flows.servers import running
from flows.settings import Settings, load_settings, open_ledger
from flows.snapshots import published_database
from schemas.errors import ConfigError
from schemas.load import load_file
from schemas.pages import Judged, MoveLine, Overview, PipelineLine, PipelinePage, Rows, RunLine
from schemas.pipeline import PipelineSpec
from tasks.curate.ask import quarantine_of, reasons_of, select_rows
from tasks.release.reports.page import draw_page

N_RUNS = 50
"""Newest runs in a list."""
N_ROWS = 200
"""Rows of the warehouse in a table."""


class WorkspaceFacts:
    """The facts of one `pipelines.yaml` and its home folder; see `schemas.pages.Facts`."""

    def __init__(self, config: Path) -> None:
        self.config, self.settings = config, load_settings(config)

    def overview(self) -> Overview:
        """Everything is read at this moment, pipelines.yaml too: it may have been edited since."""
        ledger = self._ledger()
        specs = load_file(self.config).pipelines
        return Overview(
            home=str(self.settings.home),
            pipelines=tuple(self._line(ledger, spec) for _, spec in sorted(specs.items())),
            runs=self._runs(ledger, None),
            servers=tuple(self._servers()),
            mlflow_pending=len(ledger.pending_projections()),
        )

    def pipeline(self, name: str) -> PipelinePage:
        """See `Facts`."""
        spec, ledger = load_file(self.config).get(name), self._ledger()
        moves = tuple(
            MoveLine(
                at=event.at, action=event.action, from_version=event.from_version, to_version=event.to_version,
                verdict=event.verdict, actor=event.actor, reason=event.reason, run_id=event.run_id,
            )
            for event in reversed(ledger.history(spec.registry.name))
        )  # fmt: skip
        return PipelinePage(
            line=self._line(ledger, spec),
            moves=moves,
            judged=tuple(self._judged(ledger, name)),
            runs=self._runs(ledger, name),
        )

    def report(self, run_id: str) -> str:
        """See `Facts`."""
        told, card = gather(self.settings, run_id)
        return draw_page(told, card=card)

    def compare(self, first: str, second: str) -> Mapping[str, Any]:
        """See `Facts`."""
        return compare_runs(self.settings, first, second)

    def rows(self, name: str, sql: str) -> Rows:
        """See `Facts`; a refused question is told on the page, beside the box it was written in."""
        load_file(self.config).get(name)
        database, told = published_database(self.settings.home, name), ""
        try:
            found = select_rows(database, sql, limit=N_ROWS) if sql else quarantine_of(database, limit=N_ROWS)
        except ConfigError as error:
            found, told = [], f"{error.code}: {error.message}; {error.hint}"
        return Rows(
            pipeline=name, reasons=tuple(reasons_of(database)), sql=sql, rows=tuple(found), limit=N_ROWS, told=told
        )

    def _ledger(self) -> Ledger:
        return open_ledger(self.settings)

    def _line(self, ledger: Ledger, spec: PipelineSpec) -> PipelineLine:
        held, champion = ledger.holder_of(spec.name), ledger.champion(spec.registry.name)
        newest = self._runs(ledger, spec.name, limit=1)
        return PipelineLine(
            name=spec.name,
            model_name=spec.registry.name,
            champion=champion.version if champion else None,
            since=champion.promoted_at if champion else None,
            running=held.run if held else None,
            waiting=tuple(event.to_version for event in ledger.waiting(spec.registry.name)),
            last_run=newest[0] if newest else None,
            has_warehouse=_is_published(self.settings, spec.name),
        )

    def _runs(self, ledger: Ledger, pipeline: str | None, *, limit: int = N_RUNS) -> tuple[RunLine, ...]:
        rows = ledger.runs(limit=limit, pipeline=pipeline)
        names = {row.model_name for row in rows}
        made = {each.ref.run_id: each.ref.version for name in names for each in ledger.candidates(name)}
        prefect = dict(self._servers()).get("Prefect")
        return tuple(
            RunLine(
                run_id=row.run_id, pipeline=row.pipeline, status=row.status, verdict=row.verdict, reason=row.reason,
                started_at=row.started_at, version=made.get(row.run_id), prefect_url=_flow_run(row, prefect),
            )
            for row in rows
        )  # fmt: skip

    def _judged(self, ledger: Ledger, pipeline: str) -> list[Judged]:
        """The first rule of each run's gate that compares or limits a metric, oldest run first."""
        found = []
        for row in reversed(ledger.runs(limit=N_RUNS, pipeline=pipeline)):
            decision = Recorded(self.settings, row.run_id).decision() if row.verdict else None
            findings = decision.findings if decision else ()
            first = next((each for each in findings if each.part == "primary" and each.candidate is not None), None)
            if first is not None and first.candidate is not None:
                verdict = row.verdict or first.verdict
                found.append(Judged(row.run_id, verdict, first.metric, first.candidate, first.reference))
        return found

    def _servers(self) -> list[tuple[str, str]]:
        """Pages of Prefect and MLflow: those that run here, else those of the settings, where they are addresses."""
        found = {"prefect": self.settings.prefect_api_url, "mlflow": self.settings.mlflow_tracking_uri}
        found |= {server.kind: server.url for server in running(self.settings.home)}
        names = {"prefect": "Prefect", "mlflow": "MLflow"}
        return [
            (names[kind], url.removesuffix("/api"))
            for kind, url in found.items()
            if url and kind in names and url.startswith(("http://", "https://"))
        ]


def _flow_run(row: RunRow, prefect: str | None) -> str | None:
    return f"{prefect}/runs/flow-run/{row.prefect_run_id}" if prefect and row.prefect_run_id else None


def _is_published(settings: Settings, pipeline: str) -> bool:
    try:
        published_database(settings.home, pipeline)
    except ConfigError:
        return False
    return True
