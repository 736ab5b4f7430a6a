"""`tunegate validate`, `plan` and `graph`: what would run. They write nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.command import command
from flows.cli.data_diff import diff_text
from flows.cli.options import CONFIG, AsOf, Config, Given, Json, Pipeline
from flows.cli.output import Result, TextTable, note, out, render, talk, warn
from flows.forecast.calls import Calls
from flows.forecast.gate_power import refuse_weak_gate
from flows.forecast.plan import PlanView, view_plan
from flows.forecast.planned_run import plan_pipeline
from flows.forecast.row_changes import row_changes
from flows.forecast.validation import DataFindings, address_fault, advice_by_pipeline, check_data, faults_of
from flows.graph.draw import as_mermaid, as_text, picture_of_plan
from flows.graph.plan import NEVER_RAN
from flows.ledger.open import open_ledger
from flows.records.run_picture import read_picture
from flows.workspace.settings import load_settings
from schemas.check import Declared
from schemas.counted import counted
from schemas.errors import ConfigError, SeveralErrors, TunegateError
from schemas.load import ConfigErrors, load_file
from schemas.pipeline import PipelineSpec
from schemas.report import GraphPicture
from tasks.assess.plan_gate import RulePower
from tasks.train.memory import Forecast


@command(example="tunegate validate --config other.yaml")
def validate(
    config: Config = CONFIG,
    data: Annotated[bool, typer.Option("--data", help="Read the base models and sources that it names, too.")] = False,
) -> Result:
    """Check pipelines.yaml: all errors at once, each with its place.

    The base models' addresses, the sources, the SQL and the functions that the file names are checked, too. With --data
    the base models' files are compared with the settings, and every source is read as a run reads it (a remote one as
    it was ingested last): missing files, columns that are not there, columns that a prompt needs and no ticket has.
    """
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
    rows = {"data": {name: counts.model_dump() for name, counts in found.rows.items()}} if data else {}
    text = [f"{config}: {counted(len(names), 'pipeline is', 'pipelines are')} valid: {', '.join(names)}"]
    text += [
        f"{name}: {counted(counts.n_in, 'row')} read, {counted(counts.n_out, 'ticket')}, "
        f"{counts.n_quarantined:,} quarantined, {counts.n_dropped:,} dropped"
        for name, counts in found.rows.items()
    ]
    return Result({"file": str(config), "pipelines": names, "warnings": list(advice), **rows}, text)


@command(example="tunegate plan support-replies --json")
def plan(
    pipeline: Pipeline,
    as_of: AsOf = None,
    given: Given = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="COMMIT",
            help="Curate as this commit of git declares too, with its Python, and show what differs.",
            show_default=False,
        ),
    ] = None,
    config: Config = CONFIG,
) -> Result:
    """Show what would run and why, how long and how large it is.

    Walks the same steps as a run would and writes nothing. With --against the tickets are curated twice, into a folder
    that is removed, as the files next to pipelines.yaml are now and as they were; what is stored is not made again.
    Exit code 2 where `gates.strict_power` is set and the gate has too few held-out items.
    """
    if against is not None:
        changes = row_changes(pipeline, config, against, as_of=as_of, given=tuple(given or ()))
        return Result({"pipeline": pipeline, "against": changes.to_json()}, diff_text(changes))
    view = view_plan(pipeline, config, as_of=as_of, given=tuple(given or ()))
    strict = isinstance(view.spec, PipelineSpec) and view.spec.gates.strict_power
    refused = strict and any(row.underpowered for row in view.power)
    return Result(view.to_json(), _plan_text(view), exit_code=2 if refused else 0)


def _plan_text(view: PlanView) -> Iterator[Any]:
    """Steps, figures, places, the gate's power and the calls; warnings go to stderr.

    Raises:
        GateError: as `flows.forecast.gate_power.refuse_weak_gate`, after everything is printed but the warnings.
    """
    for remark in (view.source, view.start):
        if remark is not None:
            note(remark)
    # What no run has made says so once, below: in a first plan that is every step.
    rows = [{**row, "why": "" if row["why"] == NEVER_RAN else row["why"]} for row in view.rows]
    yield TextTable(rows, ("step", "state", "seconds", "result", "why"))
    yield ""
    n_run = sum(row["state"] == "run" for row in view.rows)
    for name, value in view.figures.items():
        shown = "not known yet" if value is None else f"{value:,}" if isinstance(value, int) else value
        yield f"{name.replace('_', ' '):<24} {shown}"
    if view.label is not None:
        yield f"{'label':<24} {view.label.field}: {view.label.probe.figures}, in {view.label.probe.n_tickets:,} tickets"
    for cause, steps in view.causes.items():
        named = f"all {len(steps)} steps that run" if len(steps) == n_run > 1 else ", ".join(steps)
        yield f"{'runs for: ' + cause:<24} {named}"
    for stage, where in view.places.items():
        yield f"{stage} runs on {where}"
    yield f"stages run one after the other; within one, steps run side by side on {_resources(view)}\n"
    if view.power:
        yield TextTable([_power_row(row) for row in view.power], ("gate", "needs", "has", "shows", "what"))
    if (does := next((row for row in view.power if row.passes), None)) is not None and does.passes is not None:
        yield does.passes.sentence()
    if view.interim is not None:
        yield view.interim.sentence()
    if view.calibration is not None:
        yield view.calibration.sentence()
    if view.calls:
        yield ""
        yield TextTable([_call_row(each) for each in view.calls])
    about_model: tuple[str | None, ...] = ()
    if isinstance(view.spec, PipelineSpec):
        about_model = refuse_weak_gate(view.spec, tuple(view.power)), _memory_warning(view.spec, view.memory)
    for warning in (*about_model, *view.advice):
        if warning is not None:
            warn(warning)


def _resources(view: PlanView) -> str:
    budget = view.resources
    gpus = f", {budget['gpu']:g} GPUs" if budget.get("gpu") else ""
    return f"{budget['cpu']:g} cores, {budget['memory_gb']:.0f} GB{gpus}, one training or generation at a time"


def _call_row(this: Calls) -> dict[str, Any]:
    return {
        "asked": this.what,
        "calls": "" if this.calls is None else f"{this.calls:,}",
        "tokens in": "" if this.tokens_in is None else f"{this.tokens_in:,}",
        "at most out": "" if this.tokens_out is None else f"{this.tokens_out:,}",
        "USD": "" if this.usd is None else f"{this.usd:.4f}",
        "seconds": "" if this.seconds is None else f"{this.seconds:.1f}",
        "how": this.note,
    }


def _power_row(row: RulePower) -> dict[str, Any]:
    return {
        "gate": row.rule,
        "needs": "" if row.needed is None else row.needed,
        "has": "" if row.at_hand is None else row.at_hand,
        "shows": "" if row.smallest is None else f"{row.smallest:.3f}",
        "what": row.what,
    }


def _memory_warning(spec: PipelineSpec, memory: Forecast | None) -> str | None:
    if memory is None or memory.fits or spec.train.memory_check == "off":
        return None
    end = "will be refused" if spec.train.memory_check == "refuse" else "may run out of memory"
    remedy = f"; this fits: {memory.remedy}" if memory.remedy else "; use a smaller base model"
    return f"the training {end}: {memory.sentence()}{remedy}"


@command(example="tunegate graph support-replies --mermaid")
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
    if mermaid and as_json:
        raise ConfigError(
            "one form at a time: --mermaid or --json", code="TG0139", where="graph", hint="tunegate graph --help"
        )
    if run is None:
        found = plan_pipeline(pipeline, config)
        picture = picture_of_plan(found.pipeline.graph, found.nodes, found.seconds)
    else:
        picture = _recorded_picture(pipeline, run, config)
    text = iter([as_mermaid(picture).removesuffix("\n")]) if mermaid else _drawn(picture)
    return render(Result(picture.to_json(), text), as_json=as_json)


def _drawn(picture: GraphPicture) -> Iterator[str]:
    yield as_text(picture, width=out().width)
    counts = ", ".join(f"{n} {state}" for state, n in picture.counts().items())
    talk().print(f"{counted(len(picture.nodes), 'node')}: {counts}", markup=False)


def _recorded_picture(pipeline: str, run_id: str, config: Path) -> GraphPicture:
    """The graph as the run left it.

    Raises:
        ConfigError: TG0139, the run is of another pipeline; TG0151, no such run or several; TG0159, it kept no graph.
    """
    name, settings = load_file(config).find(pipeline).name, load_settings(config)
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
