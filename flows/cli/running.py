"""`tunegate run`, `data curate` and `ops tick`.

Check the source, find or start a Prefect server, run the flow, print the verdict.
"""

import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Literal

import typer

from flows.champion.mlflow_sync import reconcile, synchronise
from flows.cli.command import command
from flows.cli.data import FUNNEL_COLUMNS
from flows.cli.exit_codes import TERMINATED
from flows.cli.gate_files import named_weaker, refuse_weaker, summary_without_verdict
from flows.cli.options import CONFIG, Against, AsOf, Config, Given, Markdown, NoWeaker, Pipeline, Wait, login
from flows.cli.output import Result, TextTable, talk, warn, write_file
from flows.context.as_of import check_as_of
from flows.context.ingest import landed_folder
from flows.context.request import STAGES, RunRequest, Stage
from flows.context.run_context import RunContext
from flows.graph.execute import RunEndedError
from flows.ledger.open import open_ledger
from flows.records.published import published_database
from flows.run.console import NoteHandler, Screen, print_decision, print_verdict
from flows.run.live_curves import LiveCurves
from flows.run.open_run import open_run
from flows.schedule.ticks import skip_without_lock, tick_wait_s
from flows.views.arms import arm_lines
from flows.views.failed_curation import failed_curation
from flows.views.report import gather, report_folder
from flows.views.report_files import summary_for_pull_request
from flows.views.run_reader import Recorded
from flows.workspace.servers import client_environment, ensure_prefect, ensure_users_prefect
from flows.workspace.settings import Settings, load_settings
from schemas.errors import ConfigError, DataError, ServiceError
from schemas.load import load_file
from schemas.pipeline import PipelineSpec, with_model
from schemas.secrets import masked
from tasks.curate.extract import check_first_rows
from tasks.curate.warehouse_query import common_faults, funnel_of
from tasks.sources.registry import place_of

STARTING = (
    "starting your Prefect server, which shows the runs of all your projects (250 MB of memory); it ends after {:g} "
    "minutes without use, or by `tunegate ops down --all`"
)
TOO_MANY_OR_FEW = ("TG0220", "TG0221")
"""Errors about the number of rows: too many are quarantined, or too few are left."""


Server = Literal["start", "yours", "none"]
"""Prefect's server for a run: start one if none is there, use that of PREFECT_API_URL alone, or run without Prefect."""


@command(example="tunegate run support-replies")
def run(
    pipeline: Pipeline,
    config: Config = CONFIG,
    again: Annotated[bool, typer.Option("--again", help="Run even if nothing changed.")] = False,
    until: Annotated[Stage, typer.Option(help="Last stage.")] = "release",
    as_of: AsOf = None,
    given: Given = None,
    wait: Wait = 0.0,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without a Prefect server.")] = False,
    require_mlflow: Annotated[bool, typer.Option(help="Exit 7 instead of 0 when MLflow is not up to date.")] = False,
    against: Against = None,
    no_weaker: NoWeaker = False,
    markdown: Markdown = None,
    new_ledger: Annotated[
        bool, typer.Option("--new-ledger", help="The ledger is lost: begin a new one, without champion and history.")
    ] = False,
    accept_ledger: Annotated[
        bool, typer.Option("--accept-ledger", help="The ledger was restored from a backup: continue with it.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why the ledger is another; kept in the history.")] = "",
) -> Result:
    """Run a pipeline from tickets to a verdict.

    The champion moves only with PROMOTE. What is in the store already is reused.
    """
    weaker: list[str] = []
    with summary_without_verdict(markdown, pipeline, weaker):
        weaker += named_weaker(against, no_weaker=no_weaker, pipeline=pipeline, config=config, given=given or ())
        if no_weaker:
            refuse_weaker(weaker, against, where=config)
        if new_ledger or accept_ledger:
            accept_other_ledger(config, new=new_ledger, reason=reason)
        request = RunRequest(again=again, until=until, wait_s=wait, as_of=as_of, given=tuple(given or ()))
        server: Server = "none" if no_prefect else "start"
        ran = run_pipeline(pipeline, config, request, server=server, require_mlflow=require_mlflow)
    if ran.data is None:
        return ran
    if markdown is not None:
        report, _ = gather(load_settings(config), ran.data["run_id"])
        write_file(markdown, summary_for_pull_request(report, weaker).encode(), replace=True)
    return replace(ran, data={**ran.data, "weaker": weaker})


@command(example="tunegate data curate support-replies")
def curate(pipeline: Pipeline, config: Config = CONFIG, wait: Wait = 0.0) -> Result:
    """Run the first stage alone: tickets to splits.

    Every row's fate is in warehouse.duckdb and in Parquet files; nothing is trained.
    """
    ran = run_pipeline(pipeline, config, RunRequest(until="curate", wait_s=wait))
    if ran.exit_code:
        return Result(None, exit_code=ran.exit_code)
    database = published_database(load_settings(config).home, pipeline)
    rows, card = funnel_of(database), database.with_name("card.html")
    data = {"pipeline": pipeline, "warehouse": str(database), "card": str(card), "funnel": rows}
    return Result(data, [TextTable(rows, FUNNEL_COLUMNS), f"\n{database}\n{card}"])


@command(example="tunegate ops tick support-replies")
def tick(
    pipeline: Pipeline,
    cause: Annotated[
        Literal["schedule", "event", "person"], typer.Option(help="What made it; kept in the ledger.")
    ] = "person",
    config: Config = CONFIG,
) -> Result:
    """Decide as the schedule does: run the pipeline, or skip.

    `schedule.retrain` says what a run must be worth; a skip says until when.
    """
    spec = load_file(config).find(pipeline)
    request = RunRequest(tick=cause, wait_s=tick_wait_s(spec))
    skipped = skip_without_lock(spec, load_settings(config), request)
    if skipped is None:
        return run_pipeline(pipeline, config, request)
    print_verdict(talk(), "SKIP", skipped.reason, details=[f"tunegate model history {pipeline}"])
    return Result({**skipped.model_dump(), "exit_code": 0, "mlflow_pending": 0})


def run_pipeline(
    pipeline: str, config: Path, request: RunRequest, *, server: Server = "start", require_mlflow: bool = False
) -> Result:
    """Run the pipeline and print on stderr how it ends; the exit code is that of its verdict.

    Args:
        require_mlflow: Exit code 7 instead of 0 when MLflow is not up to date.

    Raises:
        KeyboardInterrupt: a person interrupted it; names the run if it had begun.
        ConfigError: TG0103, no such day; TG0139, `--set` does not fit; TG0159, `until` is a stage of models only.
        StorageError: TG0580 the ledger was altered, TG0581 it is not the one that was here.
    """
    if request.as_of is not None:
        request = request.model_copy(update={"as_of": check_as_of(request.as_of)})
    loaded = load_file(config, settings=request.given, only=pipeline)
    spec, settings = loaded.find(pipeline), load_settings(config)
    if request.until in ("finetune", "assess"):
        with_model(spec)  # data alone have no such stage
    request = request.model_copy(update={"given": tuple(map(masked, request.given))})  # Prefect shows it
    if request.given and spec.place.pools():
        raise ConfigError(
            "a stage that runs on a work pool reads pipelines.yaml itself, so it cannot have other settings",
            code="TG0139", where="--set", hint="change the file, or run without `place`",
        )  # fmt: skip
    console, begun = talk(), time.monotonic()
    # Prefect reads its settings when it is first imported: only now. The server's address comes later.
    os.environ.update(client_environment(None))
    from flows.pipeline import run_here

    screen = Screen(console)
    notes = NoteHandler(screen)
    logging.getLogger("tunegate").addHandler(notes)
    console.print(f"[bold]{pipeline}[/bold]")
    begun_runs: list[str] = []

    def listeners(context: RunContext) -> tuple[Screen, LiveCurves]:
        begun_runs.append(context.run_id)
        return screen, LiveCurves(context)

    if request.given:
        screen.noted(f"settings of this run alone: {', '.join(request.given)}")
    try:
        with open_run(spec, settings, request, root=config.resolve().parent, listeners=listeners) as opened:
            outcome = run_here(opened, config, lambda: _connect(opened.context, screen, server))
            decision = opened.decision()
    except DataError as error:
        if error.code in TOO_MANY_OR_FEW:
            _print_faults(settings, pipeline, root=config.resolve().parent)
        raise
    except KeyboardInterrupt:
        if begun_runs:
            raise KeyboardInterrupt(f"run {begun_runs[0]} of {pipeline}") from None  # `main` says so
        raise
    except RunEndedError as ended:
        console.print(f"[bold]CANCELLED[/bold] {ended}", highlight=False)
        return Result(None, exit_code=TERMINATED)
    finally:
        screen.close()
        logging.getLogger("tunegate").removeHandler(notes)
    if outcome.resume is not None:
        console.print(f"[bold]SKIP[/bold] {outcome.reason}", highlight=False)
        return run_pipeline(
            pipeline,
            config,
            RunRequest(resume=outcome.resume, wait_s=request.wait_s),
            server=server,
            require_mlflow=require_mlflow,
        )
    arms = () if decision is None else arm_lines(Recorded(settings, outcome.run_id))
    if decision is not None:
        print_decision(console, decision, arms)
    champion = ""
    if isinstance(spec, PipelineSpec):
        champion = f"champion: version {outcome.champion}   " if outcome.champion else "champion: none   "
    details = [
        f"{champion}run: {outcome.run_id}   {time.monotonic() - begun:.0f} s",
        f"tunegate show {outcome.run_id}",
    ]
    page = report_folder(settings.home, outcome.run_id) / "report.html"
    details += [str(page)] if page.is_file() else []
    # Above, every rule that is not met has given its reason already.
    is_printed = decision is not None and decision.verdict == outcome.verdict
    sentence = outcome.reason.split(";")[0] if is_printed else outcome.reason
    print_verdict(console, outcome.verdict, sentence, details=details)
    if require_mlflow:
        synchronise(open_ledger(settings), settings)
    pending = len(open_ledger(settings).pending_projections())
    code = outcome.exit_code or (7 if pending and require_mlflow else 0)
    shown = [each.model_dump() for each in arms]
    own = {"arms": shown, "as_of": request.as_of, "set": request.given, "exit_code": code, "mlflow_pending": pending}
    return Result({**outcome.model_dump(), **own}, exit_code=code)


def _connect(context: RunContext, screen: Screen, server: Server) -> bool:
    """Find or start the Prefect server that shows this run; False for a run without Prefect, which needs none."""
    spec, settings = context.spec, context.settings
    yours, placed = os.environ.get("PREFECT_API_URL"), spec.place.pools()
    starts_one = server == "start" and context.reaches("finetune")  # curation takes less time than a server's start
    if server == "none" or not (
        yours or any(stage in placed for stage in STAGES if context.reaches(stage)) or starts_one
    ):
        return False

    def starting() -> None:
        # A server takes seconds to start: not for a file that cannot be read.
        place = place_of(spec.source, root=context.root, landed=landed_folder(settings, spec.name))
        check_first_rows(spec.source, place)
        screen.noted(STARTING.format(settings.server_idle_s / 60))

    try:
        if placed:  # work pools and deployments are on the project's own server
            found = ensure_prefect(settings.home, starting=starting)
        else:
            found = ensure_users_prefect(settings, starting=starting)
    except ServiceError as error:
        screen.noted(f"{error.code}: {error.message} ({error.where}); the run continues without Prefect")
        return False
    os.environ.update(client_environment(found))
    screen.noted(f"shown in Prefect at {found.url if found is not None else yours}")
    return True


def accept_other_ledger(config: Path, *, new: bool, reason: str) -> None:
    """Enter who accepts another ledger than before, and why; MLflow follows it, if it answers.

    Raises:
        ConfigError: TG0139, without a reason.
        StorageError: TG0580 the ledger was altered, TG0581 there is none to accept, or there is one and a new one was
            requested.
    """
    settings = load_settings(config)
    # The registered models of this file, with their declared addresses: the ledger may not know them yet.
    declared = (each.registry for each in load_file(config).trained.values())
    names = {each.name: masked(each.tracking_uri) for each in declared}
    ledger = open_ledger(settings)
    row = ledger.accept("new" if new else "restored", reason=reason, actor=login(), names=names)
    done = "a new ledger begins" if new else "the ledger that lies here is accepted"
    talk().print(f"{done}: {row.reason} ({row.actor})", markup=False)
    late = reconcile(ledger, settings).late
    if late is not None:
        warn(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")


def _print_faults(settings: Settings, pipeline: str, *, root: Path) -> None:
    """Print the steps of the pipeline's last run if its curation failed, and why rows are gone."""
    with TemporaryDirectory(prefix="tunegate-failed-") as folder:
        failed = failed_curation(settings, pipeline, Path(folder), root=root)
        if failed is None:
            return
        funnel = funnel_of(failed.database)
        faults = common_faults(failed.database, redactions=failed.redactions)
    steps = ", ".join(f"{row['step']} {row['n_in']:,} -> {row['n_out']:,}" for row in funnel)
    talk().print(f"rows: {steps}", markup=False, soft_wrap=True)
    for fault in faults:
        head = f"{fault['n_rows']:,} {fault['outcome']} by {fault['step']}, {fault['code']}: {fault['example']}"
        talk().print(f"  {head}", markup=False, soft_wrap=True, highlight=False)
        for where, form in fault["rows"]:
            talk().print(f"    {where}  {form}", markup=False, soft_wrap=True, highlight=False)
        if fault["step"] == "extract" and not fault["rows"]:
            talk().print("    the reader refused these rows, and no text of them is kept", markup=False)
    # Without a query, `data quarantine` lists faulty rows alone: not those that a rule or a step has dropped.
    query = "" if all(fault["outcome"] == "quarantined" for fault in faults) else ' --sql "FROM removed"'
    shown = f"look at them: tunegate data quarantine {pipeline}{query}; also data funnel and sample"
    talk().print(shown, markup=False, soft_wrap=True)
