"""The commands of the top level: what a user of a pipeline does every week."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, cast

import typer

from flows.cli.command import command, group
from flows.cli.options import CONFIG, AsOf, Config, Given, Items, Json, Pipeline, RunArgument, Wait, complete_pipeline
from flows.cli.output import note, out, print_json, print_rows, talk, warn, write, write_file
from flows.workspace.settings import load_settings
from schemas.counted import counted
from schemas.errors import ConfigError, SeveralErrors, TunegateError

if TYPE_CHECKING:
    from schemas.report import GraphPicture
    from schemas.tables import TicketColumn

RUN_COLUMNS = ("run_id", "pipeline", "status", "verdict", "started_at", "exit_code", "reason")

_COLUMN = "Column or path"
_Body = Annotated[str | None, typer.Option(help=f"{_COLUMN} of the customer's words.", show_default=False)]
_Reply = Annotated[str | None, typer.Option(help=f"{_COLUMN} of the answer.", show_default=False)]
_Label = Annotated[str | None, typer.Option(help=f"{_COLUMN} of the routing label.", show_default=False)]
_Time = Annotated[str | None, typer.Option(help=f"{_COLUMN} of the time.", show_default=False)]
_Id = Annotated[str | None, typer.Option("--id", help=f"{_COLUMN} of the ticket's id.", show_default=False)]

app = group("What a user of a pipeline does every week.")


@command(app, example="tunegate init --from tickets.csv")
def init(
    source: Annotated[
        Path,
        typer.Option(
            "--from",
            help="CSV, JSON lines or Parquet (also .gz, .zst) of tickets or conversations.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the pipeline; by the file's name if not given.", show_default=False)
    ] = None,
    body: _Body = None,
    reply: _Reply = None,
    label: _Label = None,
    time: _Time = None,
    id_: _Id = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a pipelines.yaml that exists.")] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Propose a commented pipelines.yaml for a file of tickets.

    The file is checked by the loader before it is written. What was inferred, and how surely, is printed. A column that
    you name (`--body`, `--reply`, `--label`, `--time`, `--id`) may be a path into nested rows: `dialog[0].message`.
    """
    from flows.cli.starting import print_proposal, proposal_json, write_proposal

    named = _named(body=body, reply=reply, category=label, created_at=time, ticket_id=id_)
    proposal = write_proposal(source, config, name=name, named=named, force=force)
    if as_json:
        print_json(proposal_json(proposal, config))
    else:
        print_proposal(proposal, config)
    return 0


def _named(**columns: str | None) -> dict[TicketColumn, str]:
    """Ticket column -> the column or path that the user names."""
    return {cast("TicketColumn", column): at for column, at in columns.items() if at}


@command(app, example="tunegate try tickets.csv")
def try_(
    file: Annotated[
        Path, typer.Argument(help="CSV, JSON lines or Parquet of tickets or conversations.", show_default=False)
    ],
    body: _Body = None,
    reply: _Reply = None,
    label: _Label = None,
    time: _Time = None,
    id_: _Id = None,
    given: Given = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Go from a file of tickets to a first verdict in minutes.

    Writes pipelines.yaml as init does, and runs it once with few examples and items. No rule or limit is changed: HOLD
    is the usual answer, with the number of items that would decide.
    """
    from flows.cli.starting import try_file

    named = _named(body=body, reply=reply, category=label, created_at=time, ticket_id=id_)
    return try_file(file, config, named=named, given=tuple(given or ()), as_json=as_json)


@command(app, example="tunegate validate --config other.yaml")
def validate(
    config: Config = CONFIG,
    data: Annotated[bool, typer.Option("--data", help="Read the base models and sources that it names, too.")] = False,
    as_json: Json = False,
) -> int:
    """Check pipelines.yaml: all errors at once, each with its place.

    The base models' addresses, the sources, the SQL and the functions that the file names are checked, too. With --data
    the base models' files are compared with the settings, and every source is read as a run reads it (a remote one as
    it was ingested last): missing files, columns that are not there, columns that a prompt needs and no ticket has.
    """
    from flows.forecast.validation import DataFindings, address_fault, advice_by_pipeline, check_data, faults_of
    from flows.run.faults import Declared
    from schemas.load import ConfigErrors, load_file

    wrong: list[TunegateError] = []
    declared: dict[str, Declared] = {}
    try:
        declared.update(load_file(config, address_fault=address_fault).pipelines)
    except ConfigErrors as errors:
        wrong = [errors]
        declared.update({**errors.valid, **errors.readable})
    root, names = config.absolute().parent, sorted(declared)
    settings = load_settings(config)
    found = check_data(declared, settings, root=root) if data else DataFindings([], {}, [], {})
    for name in found.unread:
        note(f"the source of {name} is not read: nothing has been ingested yet")
    advice = {**advice_by_pipeline(declared, settings, root=root), **found.advice}
    for sentence, where in advice.items():
        warn(f"{sentence} ({', '.join(where)})")
    faults = [*wrong, *faults_of(declared, root=root), *found.faults]
    if faults:
        raise faults[0] if len(faults) == 1 else SeveralErrors(faults)
    if as_json:
        rows = {"data": {name: counts.model_dump() for name, counts in found.rows.items()}} if data else {}
        print_json({"file": str(config), "pipelines": names, "warnings": list(advice), **rows})
    else:
        are = counted(len(names), "pipeline is", "pipelines are")
        out().print(f"{config}: {are} valid: {', '.join(names)}")
        for name, counts in found.rows.items():
            removed = f"{counts.n_quarantined:,} quarantined, {counts.n_dropped:,} dropped"
            out().print(
                f"{name}: {counted(counts.n_in, 'row')} read, {counted(counts.n_out, 'ticket')}, {removed}",
                markup=False,
            )
    return 0


@command(app, example="tunegate pin HuggingFaceTB/SmolLM2-135M-Instruct@main")
def pin(
    name: Annotated[str, typer.Argument(metavar="ORG/NAME@REVISION", show_default=False, help="main if not given.")],
    dataset: Annotated[bool, typer.Option("--dataset", help="It is a dataset, not a model.")] = False,
    write_it: Annotated[
        bool, typer.Option("--save", help="Replace the model's address in pipelines.yaml, wherever it is.")
    ] = False,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Look up the commit that a branch of the hub is now.

    A branch moves, so pipelines.yaml names commits. No other command asks the hub for one.
    """
    from tasks.model.hub_commit import parse_hub_name, resolve_commit

    repo, revision = parse_hub_name(name)
    commit = resolve_commit(repo, revision, kind="dataset" if dataset else "model")
    n_replaced = pin_in_file(config, repo, commit) if write_it and not dataset else 0
    if as_json:
        print_json({"repo": repo, "revision": revision, "commit": commit, "replaced": n_replaced})
        return 0
    out().print(f"path: {repo}\nrevision: {commit}" if dataset else f"base_model: hf://{repo}@{commit}", markup=False)
    if write_it and not dataset:
        talk().print(f"{counted(n_replaced, 'address', 'addresses')} replaced in {config}", markup=False)
    return 0


def pin_in_file(config: Path, repo: str, commit: str) -> int:
    """Replace the revision of every `hf://REPO@REVISION` in the file's text; return how many have changed.

    Raises:
        ConfigErrors: TG0110, the file cannot be read.
    """
    from schemas.diagnostics import read_source
    from schemas.yaml_text import MAX_BYTES, MAX_LINE

    text: str = read_source(config, max_bytes=MAX_BYTES, max_line=MAX_LINE).text
    address, pinned = rf"hf://{re.escape(repo)}(?![\w./-])(?:@[\w./-]+)?", f"hf://{repo}@{commit}"
    n_changed: int = sum(each != pinned for each in re.findall(address, text))
    if n_changed:
        write_file(config, re.sub(address, pinned, text).encode(), replace=True)
    return n_changed


@command(app, example="tunegate plan support-replies --json")
def plan(
    pipeline: Pipeline, as_of: AsOf = None, given: Given = None, config: Config = CONFIG, as_json: Json = False
) -> int:
    """Show what would run and why, how long and how large it is.

    Walks the same steps as a run would and writes nothing. Exit code 2 where `gates.strict_power` is set and the gate
    has too few held-out items.
    """
    from flows.cli.text.plan import print_plan
    from flows.forecast.plan import view_plan

    view = view_plan(pipeline, config, as_of=as_of, given=tuple(given or ()))
    if as_json:
        print_json(view.to_json())
        return 2 if view.spec.gates.strict_power and any(row.underpowered for row in view.power) else 0
    print_plan(view)
    return 0


@command(app, example="tunegate run support-replies")
def run(
    pipeline: Pipeline,
    config: Config = CONFIG,
    again: Annotated[bool, typer.Option("--again", help="Run even if nothing changed.")] = False,
    until: Annotated[str, typer.Option(help="Last stage: curate, finetune, assess or release.")] = "release",
    as_of: AsOf = None,
    given: Given = None,
    wait: Wait = 0.0,
    no_prefect: Annotated[bool, typer.Option("--no-prefect", help="Run without a Prefect server.")] = False,
    require_mlflow: Annotated[bool, typer.Option(help="Exit 7 instead of 0 when MLflow is not up to date.")] = False,
    new_ledger: Annotated[
        bool, typer.Option("--new-ledger", help="The ledger is lost: begin a new one, without champion and history.")
    ] = False,
    accept_ledger: Annotated[
        bool, typer.Option("--accept-ledger", help="The ledger was restored from a backup: continue with it.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why the ledger is another; kept in the history.")] = "",
    as_json: Json = False,
) -> int:
    """Run a pipeline from tickets to a verdict.

    The champion moves only with PROMOTE. What is in the store already is reused.
    """
    from flows.cli import running
    from flows.context.request import STAGES, RunRequest

    stage = next((each for each in STAGES if each == until), None)
    if stage is None:
        raise ConfigError(f"--until {until!r} is no stage; allowed: {', '.join(STAGES)}", code="TG0103")
    if new_ledger or accept_ledger:
        running.accept_ledger(config, new=new_ledger, reason=reason)
    request = RunRequest(again=again, until=stage, wait_s=wait, as_of=as_of, given=tuple(given or ()))
    server: running.Server = "none" if no_prefect else "start"
    return running.run_and_print(
        pipeline, config, request, server=server, require_mlflow=require_mlflow, as_json=as_json
    )


@command(app, example="tunegate status --json")
def status(config: Config = CONFIG, as_json: Json = False) -> int:
    """Show what is running, who is champion and which servers are up."""
    from flows.ledger.open import open_ledger
    from flows.workspace.servers import running, users_homes
    from schemas.load import load_file

    settings = load_settings(config)
    ledger = open_ledger(settings)
    ledger.mark_interrupted()
    holders = {name: ledger.holder_of(name) for name in sorted(load_file(config).pipelines)}
    busy = [{"pipeline": name, "run_id": held.run, "pid": str(held.pid)} for name, held in holders.items() if held]
    champions = [{"name": c.name, "version": c.version, "since": c.promoted_at} for c in ledger.champions()]
    events = [event for name in ledger.names() for event in ledger.waiting(name)]
    waiting = [{"name": e.name, "version": e.to_version, "run_id": e.run_id, "why": e.reason} for e in events]
    found = running(settings.home, *users_homes(settings.state))
    servers = [{"kind": server.kind, "url": server.url, "pid": str(server.pid)} for server in found]
    pending = len(ledger.pending_projections())
    if as_json:
        print_json(
            {
                "home": str(settings.home),
                "running": busy,
                "champions": champions,
                "waiting": waiting,
                "servers": servers,
                "mlflow_pending": pending,
            }
        )
        return 0
    lines = [("home", str(settings.home))]
    lines += [("running", f"{each['pipeline']}  run {each['run_id']}, pid {each['pid']}") for each in busy]
    lines += [("champion", f"{each['name']} v{each['version']} since {each['since']}") for each in champions]
    lines += [
        ("waiting", f"{each['name']} v{each['version']}: {each['why']}; "
                    f"`tunegate model approve {each['run_id']} --by NAME`")
        for each in waiting
    ]  # fmt: skip
    lines += [("server", f"{server['kind']} {server['url']}") for server in servers]
    if pending:
        lines.append(("MLflow", f"sync pending: {counted(pending, 'change')}; `tunegate ops reconcile`"))
    lines += [(name, "none") for name in ("running", "champion", "server") if name not in dict(lines)]
    for name, text in lines:
        out().print(f"{name:<10} {text}", markup=False)
    return 0


@command(app, example="tunegate runs support-replies --limit 5")
def runs(
    pipeline: Annotated[
        str | None, typer.Argument(help="Only this pipeline.", show_default=False, autocompletion=complete_pipeline)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Rows shown at most.")] = 20,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """List runs, newest first."""
    from flows.ledger.open import open_ledger

    ledger = open_ledger(load_settings(config))
    ledger.mark_interrupted()
    found = ledger.runs(limit=limit, pipeline=pipeline)
    rows = [asdict(row) for row in found]
    if as_json:
        print_json({"runs": [{name: row[name] for name in (*RUN_COLUMNS, "as_of")} for row in rows]})
    else:
        dated = any(row.as_of for row in found)
        print_rows(rows, (*RUN_COLUMNS[:4], "as_of", *RUN_COLUMNS[4:]) if dated else RUN_COLUMNS)
    return 0


@command(app, example="tunegate show 20261126-074621")
def show(run_id: RunArgument, config: Config = CONFIG, as_json: Json = False) -> int:
    """Show one run: its steps, what was reused, the gate's findings."""
    from flows.cli.decisions import tick_json, tick_lines
    from flows.ledger.open import open_ledger
    from flows.records.timings import memory_sentence, read_timings
    from flows.run.console import gate_table
    from flows.views.run_reader import Recorded
    from flows.views.selection_report import choice_json, choice_of, choice_row

    settings = load_settings(config)
    ledger = open_ledger(settings)
    ledger.mark_interrupted()
    recorded = Recorded(settings, run_id)
    row, steps, decision = recorded.row, recorded.steps, recorded.decision()
    chosen = choice_of(ledger, recorded.store, row.run_id)
    memory = read_timings(settings, "train", recorded.keys["train"]) if "train" in recorded.keys else {}
    tick, mark = ledger.tick_of(row.run_id), ledger.mark_of(row.run_id)
    if as_json:
        columns = (*RUN_COLUMNS, "as_of", "mlflow_run_id", "prefect_run_id")
        print_json(
            {
                **{name: getattr(row, name) for name in columns},
                "set": list(row.given),
                "steps": [asdict(step) for step in steps],
                "findings": [] if decision is None else [finding.model_dump() for finding in decision.findings],
                "diagnosis": decision and decision.diagnosis and decision.diagnosis.model_dump(),
                "choice": None if chosen is None else choice_json(*chosen),
                **memory,
                "tick": tick and tick_json(tick),
                "snapshot": mark and asdict(mark),
            }
        )
        return 0
    console = out()
    console.print(f"{row.run_id}  {row.pipeline}  {row.status}  {row.verdict or ''}"
                  f"{f'  as of {row.as_of}' if row.as_of else ''}\n{row.reason}\n", markup=False)  # fmt: skip
    if row.given:
        console.print(f"settings of this run alone: {', '.join(row.given)}\n", markup=False, soft_wrap=True)
    for line in tick_lines(tick, mark):
        console.print(line, markup=False, soft_wrap=True)
    shown = [{**asdict(step), "seconds": f"{step.seconds:.1f}", "digest": step.digest[:12]} for step in steps]
    print_rows(shown, ("step", "state", "n_in", "n_out", "seconds", "digest", "error"))
    if sentence := memory_sentence(memory):
        console.print(f"\nmemory of training: {sentence}", markup=False)
    if chosen is not None:
        console.print(f"\nchosen on validation: {chosen[0].why}", markup=False, soft_wrap=True)
        print_rows([choice_row(trial, chosen[1]) for trial in chosen[0].rows])
    if decision is not None:
        console.print()
        console.print(gate_table(decision))
    return 0


@command(app, example="tunegate report --last support-replies --out report.html")
def report(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Run id, or the start of one.")] = None,
    last: Annotated[
        str | None,
        typer.Option(
            metavar="PIPELINE",
            help="The pipeline's last run with a verdict.",
            show_default=False,
            autocompletion=complete_pipeline,
        ),
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the page here as well.", show_default=False)
    ] = None,
    items: Items = 0,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Write a run's report: a page, JSON, a comment and a JUnit file."""
    from flows.ledger.open import open_ledger
    from flows.views.report import gather, report_folder, write_report
    from flows.workspace.disk import is_read_only

    settings = load_settings(config)
    if (run_id is None) == (last is None):
        raise ConfigError(
            "which run? give one RUN, or --last PIPELINE", code="TG0139", where="report",
            hint="`tunegate runs` lists them",
        )  # fmt: skip
    if run_id is None:
        rows = open_ledger(settings).runs(limit=1000, pipeline=last)
        run_id = next((row.run_id for row in rows if row.verdict and row.as_of is None), None)
    if run_id is None:
        raise ConfigError(
            f"pipeline {last!r} has no run with a verdict", code="TG0139", where="--last",
            hint="`tunegate runs` lists all runs; give the id of one",
        )  # fmt: skip
    found, card = gather(settings, run_id, n_items=items)
    with TemporaryDirectory(prefix="tunegate-report-") as scratch:
        page = report_folder(settings.home, found.run_id) / "report.html"
        # In a home that can only be read the page stays as the run left it.
        written = write_report(found, card, Path(scratch) if is_read_only(settings.home) else page.parent)
        if to is not None:
            write_file(to, written["report.html"].read_bytes(), replace=True)
            page = to
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        out().print(f"{found.verdict}  {found.sentence}\n{page}", markup=False, soft_wrap=True)
    return 0


@command(app, example="tunegate predict support-replies --file ticket.txt")
def predict(
    pipeline: Pipeline,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Ticket text; stdin if not given.")] = None,
    subject: Annotated[str, typer.Option(help="Subject line of the ticket.")] = "",
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Let the champion answer a ticket, redacted as it was trained."""
    from flows.cli.answering import answer_ticket, no_champion, read_ticket
    from flows.ledger.open import open_ledger
    from schemas.load import load_file

    spec = load_file(config).get(pipeline)
    champion = open_ledger(load_settings(config)).champion(spec.registry.name)
    if champion is None:
        raise no_champion(spec)
    reply = answer_ticket(spec, champion, subject=subject, body=read_ticket(file))
    if as_json:
        print_json({"name": spec.registry.name, "version": champion.version, "reply": reply})
    else:
        write(reply + "\n", sys.stdout)
    return 0


@command(app, example="tunegate graph support-replies --mermaid")
def graph(
    pipeline: Pipeline,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print it as a Mermaid flowchart.")] = False,
    run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Run id, or the start of one; what a run would do now if not given."),
    ] = None,
    config: Config = CONFIG,
    as_json: Json = False,
) -> int:
    """Draw the pipeline's steps and what they take from each other.

    Each step is reused, left out, or to be run; writes nothing.
    """
    from flows.forecast.planned_run import plan_pipeline
    from flows.graph.draw import as_mermaid, as_text, picture_of_plan

    if mermaid and as_json:
        raise ConfigError(
            "one form at a time: --mermaid or --json", code="TG0139", where="graph", hint="tunegate graph --help"
        )
    if run is None:
        found = plan_pipeline(pipeline, config)
        picture = picture_of_plan(found.pipeline.graph, found.nodes, found.seconds)
    else:
        picture = _recorded_picture(pipeline, run, config)
    if as_json:
        print_json(picture.to_json())
    elif mermaid:
        write(as_mermaid(picture), sys.stdout)
    else:
        write(as_text(picture, width=out().width) + "\n", sys.stdout)
        counts = ", ".join(f"{n} {state}" for state, n in picture.counts().items())
        talk().print(f"{counted(len(picture.nodes), 'node')}: {counts}", markup=False)
    return 0


def _recorded_picture(pipeline: str, run_id: str, config: Path) -> GraphPicture:
    """The graph as the run left it.

    Raises:
        ConfigError: TG0139, the run is of another pipeline; TG0151, no such run or several; TG0159, it kept no graph.
    """
    from flows.ledger.open import open_ledger
    from flows.records.run_picture import read_picture
    from schemas.load import load_file

    name, settings = load_file(config).get(pipeline).name, load_settings(config)
    row = open_ledger(settings).run(run_id)
    if row.pipeline != name:
        raise ConfigError(
            f"run {row.run_id} is of pipeline {row.pipeline}", code="TG0139", where="--run",
            hint=f"tunegate graph {row.pipeline} --run {row.run_id}",
        )  # fmt: skip
    picture = read_picture(settings.home, row.run_id)
    if picture is None:
        why = "it has not come so far" if row.status == "RUNNING" else "it was killed"
        raise ConfigError(
            f"run {row.run_id} kept no graph: {why}", code="TG0159", where="--run",
            hint=f"`tunegate show {row.run_id}` lists its steps; `tunegate graph {name}` draws what a run would do now",
        )  # fmt: skip
    return picture


@command(app, example="tunegate explain TG0220")
def explain(
    code: Annotated[str, typer.Argument(help="Error code, such as TG0220; TG02 gives its range.", show_default=False)],
    as_json: Json = False,
) -> int:
    """Explain an error code and what to do about it."""
    from flows.cli.error_codes import rows_of

    found = rows_of(code)
    if as_json:
        print_json({"codes": [asdict(row) for row in found]})
        return 0
    for row in found:
        text = f"{row.code} ({row.range}): {row.meaning}\n  {row.what_to_do}\n  exit code {row.exit_code}"
        out().print(text, markup=False, soft_wrap=True)
    return 0
