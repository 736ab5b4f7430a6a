"""`tunegate curate`, `funnel`, `quarantine`, `sample`: what data teams ask of a pipeline's tickets."""

from __future__ import annotations

from pathlib import Path

from flows.commands.output import out, print_json, print_rows
from flows.commands.run import run
from flows.context.published import published_database
from flows.workspace.settings import load_settings
from schemas.load import load_file
from tasks.curate.ask import (
    funnel_of,
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


def _card(database: Path) -> Path:
    """The curation card beside it."""
    return database.with_name("card.html")


def _database(pipeline: str, config: Path) -> Path:
    """The pipeline's published database.

    Raises:
        ConfigError: TG0104, no such pipeline; TG0159, it has not been curated yet.
    """
    load_file(config).get(pipeline)
    return published_database(load_settings(config).home, pipeline)
