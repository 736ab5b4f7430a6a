"""`tunegate data`: a pipeline's tickets, before and without training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.command import command, group
from flows.cli.options import CONFIG, By, Config, Json, Limit, Pipeline, Reason, Wait, complete_pipeline, login
from flows.cli.output import note, out, print_json, print_rows, write, write_file
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.errors import SecurityError

if TYPE_CHECKING:
    from flows.views.failed_curation import FailedCuration

FUNNEL_COLUMNS = ("step", "n_in", "n_out", "n_quarantined", "n_dropped", "n_merged")
REASON_COLUMNS = ("step", "outcome", "code", "n_rows", "example")
SUSPECT_COLUMNS = (
    "ticket_id", "source", "source_line", "week", "split", "value", "confidence", "suggested", "suggested_confidence",
)  # fmt: skip
GROUP_COLUMNS = ("kind", "name", "n_checked", "n_suspects", "share", "share_elsewhere", "p_chance", "disagrees")
QUARANTINE_COLUMNS = ("step", "code", "source", "source_line", "byte_offset", "field", "reason", "ticket_id")

app = group("Curate tickets, look at them, trace and forget them.")


@command(app, example="tunegate data curate support-replies")
def curate(pipeline: Pipeline, config: Config = CONFIG, wait: Wait = 0.0, as_json: Json = False) -> int:
    """Run the first stage alone: tickets to splits.

    Every row's fate is in warehouse.duckdb and in Parquet files; nothing is trained.
    """
    from flows.cli.running import run_and_print
    from flows.context.request import RunRequest
    from flows.records.published import published_database
    from tasks.curate.warehouse_query import funnel_of

    code = run_and_print(pipeline, config, RunRequest(until="curate", wait_s=wait))
    if code:
        return code
    database = published_database(load_settings(config).home, pipeline)
    rows, card = funnel_of(database), database.with_name("card.html")
    if as_json:
        print_json({"pipeline": pipeline, "warehouse": str(database), "card": str(card), "funnel": rows})
        return 0
    print_rows(rows, FUNNEL_COLUMNS)
    out().print(f"\n{database}\n{card}", markup=False, soft_wrap=True)
    return 0


@command(app, example="tunegate data funnel support-replies --reasons")
def funnel(
    pipeline: Pipeline,
    reasons: Annotated[bool, typer.Option("--reasons", help="Also how many rows each rule took.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show what became of the rows, step by step."""
    from tasks.curate.warehouse_query import funnel_of, reasons_of

    with _curation(pipeline, config) as (database, failed):
        rows = funnel_of(database)
        codes = reasons_of(database) if reasons else []
    if as_json:
        shown = {"pipeline": pipeline, "funnel": rows, "card": None if failed else str(database.with_name("card.html"))}
        print_json({**shown, **_failure(failed), **({"reasons": codes} if reasons else {})})
        return 0
    print_rows(rows, FUNNEL_COLUMNS)
    if reasons:
        out().print()
        print_rows(codes, REASON_COLUMNS)
    return 0


@command(
    app,
    example='tunegate data quarantine support-replies --sql "SELECT code, count(*) AS n FROM removed GROUP BY code"',
)
def quarantine(
    pipeline: Pipeline,
    sql: Annotated[
        str | None, typer.Option(help="One SELECT over the warehouse instead of the list.", show_default=False)
    ] = None,
    limit: Limit = 50,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """List faulty rows with place and reason, or query in SQL."""
    from tasks.curate.warehouse_query import quarantine_of, select_rows

    with _curation(pipeline, config) as (database, failed):
        rows = quarantine_of(database, limit=limit) if sql is None else select_rows(database, sql, limit=limit)
    if as_json:
        print_json({"pipeline": pipeline, "rows": rows, **_failure(failed)})
    elif not rows:
        out().print("no row")
    else:
        print_rows(rows, QUARANTINE_COLUMNS if sql is None else None)
    return 0


@command(app, example="tunegate data suspects support-replies --source exports/week47.csv")
def suspects(
    pipeline: Pipeline,
    source: Annotated[
        str | None, typer.Option(help="Only of this file, as in the column source.", show_default=False)
    ] = None,
    week: Annotated[str | None, typer.Option(help="Only of this ISO week, 2026-W47.", show_default=False)] = None,
    limit: Limit = 50,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """List labels that others make unlikely, by file and week.

    Shows what the last run with a champion found, without ticket text, and the step that leaves out a file or week
    whose labels disagree with the others.
    """
    from flows.views.label_suspects import find_suspects
    from schemas.load import load_file

    load_file(config).get(pipeline)
    found = find_suspects(load_settings(config), pipeline, source=source, week=week, limit=limit)
    groups = [{**group.model_dump(), "share": round(group.share, 6)} for group in found.checked.groups]
    ways = list(found.ways_out())
    if as_json:
        print_json(
            {
                "pipeline": pipeline, "run": found.run_id, "field": found.checked.field,
                "n_checked": found.checked.n_checked, "n_suspects": found.checked.n_suspects, "groups": groups,
                "n_rows": found.n_rows, "rows": found.rows, "leave_out": ways,
            }
        )  # fmt: skip
        return 0
    print_rows(groups, GROUP_COLUMNS)
    out().print()
    print_rows(found.rows, SUSPECT_COLUMNS)
    out().print(f"\n{len(found.rows)} of {found.n_rows:,} suspect tickets, run {found.run_id}", markup=False)
    if ways:
        out().print("\ncurate.steps without them:", markup=False)
    for way in ways:
        out().print(f"  {way}", markup=False, soft_wrap=True)
    return 0


@command(app, example="tunegate data sample support-replies --where \"category = 'billing'\" -n 3")
def sample(
    pipeline: Pipeline,
    where: Annotated[
        str | None, typer.Option(help="SQL predicate over the ticket columns.", show_default=False)
    ] = None,
    n: Annotated[int, typer.Option("-n", "--rows", min=1, max=10_000, help="Rows to show.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other rows.")] = 0,
    raw: Annotated[bool, typer.Option("--raw", help="Rows as they came: shows personal data.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show some curated tickets, the same for the same seed."""
    from tasks.curate.warehouse_query import sample_rows, unfinished_sample

    with _curation(pipeline, config) as (database, failed):
        if failed is not None and not raw:
            rows = unfinished_sample(database, redactions=failed.redactions, where=where, n_rows=n, seed=seed)
        else:
            rows = sample_rows(database, table="raw_tickets" if raw else "curated", where=where, n_rows=n, seed=seed)
    if as_json:
        print_json({"pipeline": pipeline, "rows": rows, **_failure(failed)})
        return 0
    for row in rows:
        for name, value in row.items():
            if value is not None:
                out().print(f"{name:<18} {value}", markup=False, soft_wrap=True)
        out().print()
    out().print(counted(len(rows), "row"), markup=False)
    return 0


@command(app, example="tunegate data preview support-replies -n 2")
def preview(
    pipeline: Pipeline,
    n: Annotated[int, typer.Option("-n", "--examples", min=1, max=1000, help="Examples to show.")] = 3,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Show train examples as the model sees them, token by token.

    Text, token ids, and which tokens carry loss. What is missing up to the encoded examples is made first; nothing is
    trained, and the ledger gets no run.
    """
    from flows.cli.preview import encode_examples, print_examples
    from tasks.model.chat_format import show_examples

    dataset, model = encode_examples(pipeline, config)
    shown = show_examples(dataset=dataset, model=model, n_examples=n)
    if as_json:
        print_json({"pipeline": pipeline, "n_train": dataset.n_train, "examples": [asdict(each) for each in shown]})
    else:
        print_examples(shown, dataset)
    return 0


@command(app, example="tunegate data lineage T-000004 --pipeline support-replies")
def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|TICKET|CUSTOMER",
            help="NAME/VERSION or NAME of a model, a ticket's id, or a customer's, as in the source.",
            show_default=False,
        ),
    ],
    pipeline: Annotated[
        str | None,
        typer.Option(help="Only this pipeline; else all that have a warehouse.", autocompletion=complete_pipeline),
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Trace a ticket, a customer's tickets or a model.

    What became of the tickets and which models learned from them, or what a model was made from.
    """
    from flows.cli.text.data import lineage_lines
    from flows.views.lineage import find_lineage
    from schemas.load import load_file

    found = find_lineage(what, load_file(config), load_settings(config), pipeline=pipeline)
    if as_json:
        tickets = {"ticket_id": what, "pipelines": {name: asdict(each) for name, each in found.tickets.items()}}
        print_json({**(tickets if found.tickets else {}), "model": found.model, "customer": found.customer})
        return 0
    for line in lineage_lines(found):
        out().print(line, markup=False, soft_wrap=True)
    return 0


@command(app, example="tunegate data forget CUSTOMER --plan")
def forget(
    customer: Annotated[
        str | None, typer.Argument(help="The customer's id, as in the source.", show_default=False)
    ] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say what is held where; remove nothing.")] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it, and keep the customer out from now on.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Repeat every earlier removal, after a backup was restored.")
    ] = False,
    reason: Reason = "",
    by: By = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Keep out a customer of whom nothing is held, too.")
    ] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Find or remove everything that is held of a customer.

    The models that learned from it are marked. One of --plan, --apply and --again is needed.
    """
    from flows.cli.text.data import print_done, print_holdings
    from flows.privacy.forget import forget as forget_customer
    from flows.privacy.forget import forget_again, plan_forgetting
    from schemas.load import load_file

    if plan + apply + again != 1 or (customer is None) != again:
        raise SecurityError(
            "say one of: CUSTOMER --plan, CUSTOMER --apply, --again", code="TG0833", where="forget",
            hint="tunegate data forget CUSTOMER --plan",
        )  # fmt: skip
    loaded, settings = load_file(config), load_settings(config)
    specs = [loaded.get(name) for name in sorted(loaded.pipelines)]
    if plan:
        held = plan_forgetting(settings, specs, customer or "")
        if as_json:
            print_json(held.model_dump(mode="json"))
        else:
            print_holdings(held)
        return 0
    if again:
        done = list(forget_again(settings, specs))
    else:
        done = [forget_customer(settings, specs, customer or "", reason=reason, actor=by or login(), unknown=unknown)]
    print_done(done, settings, specs, as_json=as_json)
    return 0


@command(app, example="tunegate data dictionary --dbt --out models/sources.yml")
def dictionary(
    dbt: Annotated[bool, typer.Option("--dbt", help="A sources.yml of dbt instead of a page.")] = False,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write instead of printing.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    as_json: Json = False,
) -> int:
    """Describe every table, view and column of the warehouse.

    With type, key, meaning and PII class; for dbt also with the tests that the keys imply.
    """
    from tasks.curate.warehouse_tables import write_dbt_sources, write_markdown

    text = write_dbt_sources() if dbt else write_markdown()
    if to is not None:
        write_file(to, text.encode(), replace=force)
    if as_json:
        print_json({"file": None if to is None else str(to), "text": text})
    elif to is None:
        write(text, sys.stdout)
    else:
        out().print(str(to), markup=False, soft_wrap=True)
    return 0


@contextmanager
def _curation(pipeline: str, config: Path) -> Iterator[tuple[Path, FailedCuration | None]]:
    """The database of the last curation: what it left, if it failed, else the published one.

    Raises:
        ConfigError: TG0104, no such pipeline; TG0159, it has not been curated yet.
    """
    from tempfile import TemporaryDirectory

    from flows.records.published import published_database
    from flows.views.failed_curation import failed_curation
    from schemas.load import load_file

    load_file(config).get(pipeline)
    settings = load_settings(config)
    with TemporaryDirectory(prefix="tunegate-failed-") as folder:
        failed = failed_curation(settings, pipeline, Path(folder))
        if failed is not None:
            note(f"run {failed.run_id} failed in {failed.step}; this is what its curation left")
        yield (failed.database if failed else published_database(settings.home, pipeline)), failed


def _failure(failed: FailedCuration | None) -> dict[str, object]:
    """The part of `--json` about a curation that failed; nothing for one that ended."""
    return {} if failed is None else {"failed": {"run": failed.run_id, "step": failed.step, "error": failed.error}}
