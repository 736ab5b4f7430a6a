"""`tunegate curate`, `funnel`, `quarantine`, `sample`, `lineage`: what data teams ask of a pipeline's tickets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows.commands.output import out, print_json, print_rows
from flows.commands.run import run
from flows.settings import load_settings
from flows.snapshots import published_database, warehouse_folder
from schemas.errors import DataError
from schemas.load import load_file
from tasks.curate.ask import (
    Lineage,
    funnel_of,
    lineage_of,
    quarantine_of,
    reasons_of,
    sample_rows,
    select_rows,
)

FUNNEL_COLUMNS = ("step", "n_in", "n_out", "n_quarantined", "n_dropped", "n_merged")
REASON_COLUMNS = ("step", "outcome", "code", "n_rows", "example")
QUARANTINE_COLUMNS = ("step", "code", "source", "source_line", "byte_offset", "field", "reason", "ticket_id")


def curate(*, pipeline: str, config: Path, wait_s: float, as_json: bool) -> int:
    """Run the first stage alone, then show its funnel and where the tables are."""
    code = run(
        pipeline=pipeline, config=config, again=False, until="curate", wait_s=wait_s, require_mlflow=False,
        as_json=False,
    )  # fmt: skip
    if code:
        return code
    database = _database(pipeline, config)
    rows = funnel_of(database)
    if as_json:
        print_json({"pipeline": pipeline, "warehouse": str(database), "card": str(_card(database)), "funnel": rows})
        return 0
    print_rows(rows, FUNNEL_COLUMNS)
    out().print(f"\n{database}\n{_card(database)}", markup=False, soft_wrap=True)
    return 0


def funnel(*, pipeline: str, reasons: bool, config: Path, as_json: bool) -> int:
    """The steps' row counts, and the codes that took rows."""
    database = _database(pipeline, config)
    rows = funnel_of(database)
    codes = reasons_of(database) if reasons else []
    if as_json:
        card = {"card": str(_card(database))}
        print_json({"pipeline": pipeline, "funnel": rows, **card, **({"reasons": codes} if reasons else {})})
        return 0
    print_rows(rows, FUNNEL_COLUMNS)
    if reasons:
        out().print()
        print_rows(codes, REASON_COLUMNS)
    return 0


def quarantine(*, pipeline: str, sql: str | None, limit: int, config: Path, as_json: bool) -> int:
    """Faulty rows, or the answer to one SELECT."""
    database = _database(pipeline, config)
    rows = quarantine_of(database, limit=limit) if sql is None else select_rows(database, sql, limit=limit)
    if as_json:
        print_json({"pipeline": pipeline, "rows": rows})
    elif not rows:
        out().print("no row")
    else:
        print_rows(rows, QUARANTINE_COLUMNS if sql is None else tuple(rows[0]))
    return 0


def sample(*, pipeline: str, where: str | None, n_rows: int, seed: int, raw: bool, config: Path, as_json: bool) -> int:
    """Some tickets, whole."""
    database = _database(pipeline, config)
    rows = sample_rows(database, table="raw_tickets" if raw else "curated", where=where, n_rows=n_rows, seed=seed)
    if as_json:
        print_json({"pipeline": pipeline, "rows": rows})
        return 0
    for row in rows:
        for name, value in row.items():
            if value is not None:
                out().print(f"{name:<18} {value}", markup=False, soft_wrap=True)
        out().print()
    out().print(f"{len(rows)} rows", markup=False)
    return 0


def lineage(*, ticket_id: str, pipeline: str | None, config: Path, as_json: bool) -> int:
    """The ticket's way through every pipeline that has read it.

    Raises:
        DataError: TG0265, no published warehouse knows the ticket.
    """
    names = [pipeline] if pipeline is not None else sorted(load_file(config).pipelines)
    found: dict[str, Lineage] = {}
    for name in names:
        database = warehouse_folder(load_settings(config).home, name) / "warehouse.duckdb"
        told = lineage_of(database, ticket_id) if database.is_file() or pipeline is not None else None
        if told is not None:
            found[name] = told
    if not found:
        raise DataError(
            "no warehouse knows this ticket",
            code="TG0265",
            where=ticket_id,
            hint="`tunegate curate PIPELINE` first; ids are those of the source, made ones are FILE-LINE",
        )
    if as_json:
        print_json({"ticket_id": ticket_id, "pipelines": {name: asdict(told) for name, told in found.items()}})
        return 0
    for name, told in found.items():
        out().print(f"{name}  snapshot {told.snapshot_id}", markup=False)
        for line in _told(told):
            out().print(f"  {line}", markup=False, soft_wrap=True)
    return 0


def _told(told: Lineage) -> list[str]:
    lines = []
    for fate in told.fates:
        lines.append(f"read from {fate['source']}:{fate['source_line']}")
        lines.append(_ending(fate, told.steps))
    if told.merged_into_it:
        members = ", ".join(f"{row['ticket_id']} ({row['score']:.3f})" for row in told.merged_into_it[:10])
        more = len(told.merged_into_it) - 10
        lines.append(f"kept in place of {members}{f' and {more} more' if more > 0 else ''}")
    return lines


def _ending(fate: dict[str, Any], steps: tuple[str, ...]) -> str:
    if fate["step"] is None:
        return f"passed {', '.join(steps)}; it is in {fate['split']}"
    passed = steps[: steps.index(fate["step"])]
    way = f"passed {', '.join(passed)}; " if passed else ""
    kept = f"; the other ticket is {fate['kept_id']}" if fate["kept_id"] else ""
    score = f" (similarity {fate['score']:.3f})" if fate["score"] is not None else ""
    return f"{way}{fate['outcome']} by {fate['step']} as {fate['code']}: {fate['reason']}{kept}{score}"


def _card(database: Path) -> Path:
    """The curation card beside it."""
    return database.with_name("card.html")


def _database(pipeline: str, config: Path) -> Path:
    """The pipeline's published database.

    Raises:
        ConfigError: TG0104, no such pipeline; TG0147, it has not been curated yet.
    """
    load_file(config).get(pipeline)
    return published_database(load_settings(config).home, pipeline)
