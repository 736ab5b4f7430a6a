"""What the pages of `tunegate ui` show, as plain data: read from ledger, store and warehouse, drawn by Jinja2.

`flows/pages.py` gathers it, `tasks/release/pages/` draws it. No ticket's text is in it but for `Rows`, whose cells are
what a person asked the warehouse for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class RunLine:
    """One run in a list."""

    run_id: str
    pipeline: str
    status: str
    verdict: str | None
    reason: str
    started_at: str
    version: str | None
    """Of the candidate that it made."""
    prefect_url: str | None
    """Its page in Prefect, where that is known."""


@dataclass(frozen=True)
class PipelineLine:
    """One declared pipeline and how it stands."""

    name: str
    model_name: str
    champion: str | None
    """Version that serves now."""
    since: str | None
    running: str | None
    """Id of the run that holds the pipeline's lock."""
    waiting: tuple[str, ...]
    """Versions that wait for a person's approval."""
    last_run: RunLine | None
    has_warehouse: bool


@dataclass(frozen=True)
class MoveLine:
    """One event of a champion's history."""

    at: str
    action: str
    from_version: str | None
    to_version: str
    verdict: str
    actor: str
    reason: str
    run_id: str


@dataclass(frozen=True)
class Judged:
    """A run's first rule on the held-out items: one point of the chart over time."""

    run_id: str
    verdict: str
    metric: str
    candidate: float
    reference: float | None
    """What it was compared with; None for an absolute limit."""


@dataclass(frozen=True)
class Overview:
    """The first page."""

    home: str
    pipelines: tuple[PipelineLine, ...]
    runs: tuple[RunLine, ...]
    servers: tuple[tuple[str, str], ...]
    """Name and address of Prefect's and MLflow's own pages."""
    mlflow_pending: int


@dataclass(frozen=True)
class PipelinePage:
    """One pipeline over time."""

    line: PipelineLine
    moves: tuple[MoveLine, ...]
    judged: tuple[Judged, ...]
    """Oldest first."""
    runs: tuple[RunLine, ...]


@dataclass(frozen=True)
class Rows:
    """A table of the warehouse: what was removed and why, or the answer to a person's SELECT."""

    pipeline: str
    reasons: tuple[Mapping[str, Any], ...]
    """Rows per step and code."""
    sql: str
    """What was asked; empty for the faulty rows."""
    rows: tuple[Mapping[str, Any], ...]
    limit: int
    told: str
    """Why the question was refused; empty when it was not."""


class Facts(Protocol):
    """Where the pages get what they show. Every call reads anew; none changes anything."""

    def overview(self) -> Overview:
        """All pipelines and the newest runs."""
        ...

    def pipeline(self, name: str) -> PipelinePage:
        """One pipeline.

        Raises:
            ConfigError: TG0104, there is none of this name.
        """
        ...

    def report(self, run_id: str) -> str:
        """A run's report, a whole HTML page.

        Raises:
            ConfigError: TG0151 or TG0152, not one run has this id.
        """
        ...

    def compare(self, first: str, second: str) -> Mapping[str, Any]:
        """Two runs side by side, as `tunegate compare --json` prints them."""
        ...

    def rows(self, name: str, sql: str) -> Rows:
        """The quarantine of a pipeline, or the answer to one SELECT over its warehouse.

        Raises:
            ConfigError: TG0104, no such pipeline; TG0147, it has no warehouse yet.
        """
        ...
