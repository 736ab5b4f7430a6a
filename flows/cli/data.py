"""`tunegate data funnel`, `quarantine`, `suspects` and `sample`: what the last curation did with the tickets."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.options import CONFIG, Config, Limit, Pipeline
from flows.cli.output import Result, TextTable, note
from flows.records.published import published_database
from flows.views.failed_curation import FailedCuration, failed_curation
from flows.views.label_suspects import find_suspects
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.load import load_file
from tasks.curate.warehouse_query import (
    funnel_of,
    quarantine_of,
    reasons_of,
    sample_rows,
    select_rows,
    unfinished_sample,
)  # fmt: skip

FUNNEL_COLUMNS = ("step", "n_in", "n_out", "n_quarantined", "n_dropped", "n_merged")
REASON_COLUMNS = ("step", "outcome", "code", "n_rows", "example")
SUSPECT_COLUMNS = (
    "ticket_id", "source", "source_line", "week", "split", "value", "confidence", "suggested", "suggested_confidence",
)  # fmt: skip
GROUP_COLUMNS = ("kind", "name", "n_checked", "n_suspects", "share", "share_elsewhere", "p_chance", "disagrees")
QUARANTINE_COLUMNS = (
    "step", "code", "source", "source_line", "byte_offset", "field", "check_name", "value", "reason",
    "ticket_id",
)  # fmt: skip


@command(example="tunegate data funnel support-replies --reasons")
def funnel(
    pipeline: Pipeline,
    reasons: Annotated[bool, typer.Option("--reasons", help="Also how many rows each rule took.")] = False,
    config: Config = CONFIG,
) -> Result:
    """Show what became of the rows, step by step."""
    with last_curation(pipeline, config) as (database, failed):
        rows = funnel_of(database)
        codes = reasons_of(database) if reasons else []
    shown = {"pipeline": pipeline, "funnel": rows, "card": None if failed else str(database.with_name("card.html"))}
    text = [TextTable(rows, FUNNEL_COLUMNS), *(["", TextTable(codes, REASON_COLUMNS)] if reasons else [])]
    return Result({**shown, **failure_of(failed), **({"reasons": codes} if reasons else {})}, text)


@command(
    example='tunegate data quarantine support-replies --sql "SELECT code, count(*) AS n FROM removed GROUP BY code"'
)
def quarantine(
    pipeline: Pipeline,
    sql: Annotated[
        str | None, typer.Option(help="One SELECT over the warehouse instead of the list.", show_default=False)
    ] = None,
    limit: Limit = 50,
    config: Config = CONFIG,
) -> Result:
    """List faulty rows with place and reason, or query in SQL."""
    with last_curation(pipeline, config) as (database, failed):
        rows = quarantine_of(database, limit=limit) if sql is None else select_rows(database, sql, limit=limit)
    text = [TextTable(rows, QUARANTINE_COLUMNS if sql is None else None) if rows else "no row"]
    return Result({"pipeline": pipeline, "rows": rows, **failure_of(failed)}, text)


@command(example="tunegate data suspects support-replies --source exports/week47.csv")
def suspects(
    pipeline: Pipeline,
    source: Annotated[
        str | None, typer.Option(help="Only of this file, as in the column source.", show_default=False)
    ] = None,
    week: Annotated[str | None, typer.Option(help="Only of this ISO week, 2026-W47.", show_default=False)] = None,
    limit: Limit = 50,
    config: Config = CONFIG,
) -> Result:
    """List labels that others make unlikely, by file and week.

    Shows what the last run with a champion found, without ticket text, and the step that leaves out a file or week
    whose labels disagree with the others.
    """
    load_file(config).find(pipeline)
    found = find_suspects(load_settings(config), pipeline, source=source, week=week, limit=limit)
    groups = [{**group.model_dump(), "share": round(group.share, 6)} for group in found.checked.groups]
    ways = list(found.ways_out())
    data = {
        "pipeline": pipeline, "run": found.run_id, "field": found.checked.field,
        "n_checked": found.checked.n_checked, "n_suspects": found.checked.n_suspects, "groups": groups,
        "n_rows": found.n_rows, "rows": found.rows, "leave_out": ways,
    }  # fmt: skip
    text = [
        TextTable(groups, GROUP_COLUMNS),
        "",
        TextTable(found.rows, SUSPECT_COLUMNS),
        f"\n{len(found.rows)} of {found.n_rows:,} suspect tickets, run {found.run_id}",
        *(["\ncurate.steps without them:"] if ways else []),
        *(f"  {way}" for way in ways),
    ]
    return Result(data, text)


@command(example="tunegate data sample support-replies --where \"category = 'billing'\" -n 3")
def sample(
    pipeline: Pipeline,
    where: Annotated[
        str | None, typer.Option(help="SQL predicate over the ticket columns.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("-n", "--rows", min=1, max=10_000, help="Rows to show.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other rows.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Rows as they came: shows personal data.")] = False,
    config: Config = CONFIG,
) -> Result:
    """Show some curated tickets, the same for the same seed."""
    with last_curation(pipeline, config) as (database, failed):
        if failed is not None and not raw:
            rows = unfinished_sample(database, redactions=failed.redactions, where=where, n_rows=n, seed=seed)
        else:
            rows = sample_rows(database, table="raw_tickets" if raw else "curated", where=where, n_rows=n, seed=seed)
    return Result({"pipeline": pipeline, "rows": rows, **failure_of(failed)}, _sample_text(rows))


def _sample_text(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield from (f"{name:<18} {value}" for name, value in row.items() if value is not None)
        yield ""
    yield counted(len(rows), "row")


@contextmanager
def last_curation(pipeline: str, config: Path) -> Iterator[tuple[Path, FailedCuration | None]]:
    """The database of the last curation: what it left, if it failed, else the published one.

    Raises:
        ConfigError: TG0104, no such pipeline; TG0159, it has not been curated yet.
    """
    load_file(config).find(pipeline)
    settings = load_settings(config)
    with TemporaryDirectory(prefix="tunegate-failed-") as folder:
        failed = failed_curation(settings, pipeline, Path(folder), root=config.resolve().parent)
        if failed is not None:
            note(f"run {failed.run_id} failed in {failed.step}; this is what its curation left")
        yield (failed.database if failed else published_database(settings.home, pipeline)), failed


def failure_of(failed: FailedCuration | None) -> dict[str, object]:
    """The part of `--json` about a curation that failed; nothing for one that ended."""
    return {} if failed is None else {"failed": {"run": failed.run_id, "step": failed.step, "error": failed.error}}
