"""From facts to HTML: one function per page, nothing computed but the places of a chart's marks.

Called by `tasks/release/pages/server.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.pages import Judged, Overview, PipelinePage, Rows
from tasks.release.reports import charts
from tasks.release.reports.rendering import environment

HERE = Path(__file__).parent
MAX_CELL = 2_000
"""Characters of one cell: a ticket may be long, a page need not be."""


def draw_overview(seen: Overview) -> str:
    """All pipelines and the newest runs."""
    return _draw("overview", seen=seen)


def draw_pipeline(seen: PipelinePage) -> str:
    """Champions, runs, and each judged metric over time."""
    return _draw("pipeline", seen=seen, charts=list(_charts(seen.judged)))


def draw_rows(seen: Rows) -> str:
    """What was removed, and an answer of the warehouse."""
    return _draw("rows", seen=seen)


def draw_comparison(seen: Mapping[str, Any]) -> str:
    """Two runs."""
    digests = [
        {name: value[:16] if isinstance(value, str) and name != "step" else value for name, value in each.items()}
        for each in seen["digests"]
    ]
    return _draw("compare", seen={**seen, "digests": digests})


def draw_refusal(title: str, told: str, hint: str | None = None) -> str:
    """Why a page is not shown."""
    return _draw("refused", title=title, told=told, hint=hint)


def cell(value: object) -> str:
    """A value as a table shows it.

    >>> cell(None), cell(0.5), cell(12345), cell(True)
    ('', '0.5', '12,345', 'yes')
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= MAX_CELL else f"{text[:MAX_CELL]} ... ({len(text) - MAX_CELL:,} characters more)"


def _draw(name: str, **shown: object) -> str:
    drawn: str = environment(HERE).get_template(f"{name}.html.j2").render(cell=cell, **shown)
    return drawn


def _charts(judged: tuple[Judged, ...]) -> list[tuple[str, str]]:
    """Per metric its chart over the runs that were judged by it; a pipeline's first rule may change."""
    found = []
    for metric in dict.fromkeys(each.metric for each in judged):
        mine = [each for each in judged if each.metric == metric]
        points = [(each.run_id, each.verdict, each.candidate, each.reference) for each in mine]
        found.append((metric, charts.over_runs(points, label=f"{metric} of each run, oldest first")))
    return found
