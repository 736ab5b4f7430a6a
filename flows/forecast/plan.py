"""What `tunegate plan` shows: what would run and why, how large, how long. Reads only."""

import os
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flows.context.ingest import ingested_summary
from flows.finetune import Tuned
from flows.forecast.calls import Calls, planned_calls
from flows.forecast.gate_power import calibration_plan, gate_power, interim_plan
from flows.forecast.label_probe import LabelProbe, probe_label
from flows.forecast.pace import Pace, Size, answers_advice, measured_answers, pace_of, size_of
from flows.forecast.planned_run import PlannedRun, causes_of, plan_pipeline
from flows.forecast.training_budget import optimiser_steps, over_budget, training_seconds
from flows.forecast.validation import advice_on, missing_columns, prompt_findings, read_source, time_advice
from flows.graph.budget import times
from flows.graph.execute import Run
from flows.graph.graph import Node
from flows.graph.plan import PlannedNode
from flows.registry.state import describe_champion, describe_start
from flows.run.faults import check_libraries
from flows.views.labelling import planned_labels
from flows.views.phrases import describe
from flows.views.selection_report import changes_text
from flows.workspace.login import read_login
from flows.workspace.servers import answer_code, read_state
from schemas.artifacts import TicketTable
from schemas.choice import candidates
from schemas.errors import ConfigError, ServiceError
from schemas.pipeline import DataPipeline, PipelineSpec, with_model
from schemas.trials import TrialRef
from tasks.assess.plan_gate import CalibrationPlan, InterimPlan, RulePower
from tasks.release.reports.read import cut_replies
from tasks.start.source_size import measure_source
from tasks.train.memory import Forecast, Workload, describe_path, forecast, workload_of


@dataclass(frozen=True)
class PlanView:
    """A plan as it is shown.

    Attributes:
        champion: Version of today's champion.
        rows: One for each step: id, state, seconds, result, why.
        figures: Rows, tokens, minutes and GiB by name; null if nothing says them.
        source: A remark on a source that a plan does not contact; null for the others.
        places: Stage -> where it runs.
    """

    spec: DataPipeline
    champion: str | None
    rows: Sequence[Mapping[str, Any]]
    figures: Mapping[str, Any]
    causes: Mapping[str, Sequence[str]]
    """Kind of change -> the steps that certainly run for it."""
    power: Sequence[RulePower]
    interim: InterimPlan | None
    calibration: CalibrationPlan | None
    source: str | None
    places: Mapping[str, str]
    calls: Sequence[Calls]
    memory: Forecast | None
    resources: Mapping[str, float]
    advice: Sequence[str]
    """What is allowed but worth a second look."""
    label: LabelProbe | None
    """How well a count of words predicts the label; None without one, or where nothing will be trained."""
    start: str | None
    """Where the training starts; None unless `train.start: champion` is declared."""

    def to_json(self) -> dict[str, Any]:
        """As `tunegate plan --json` prints it."""
        return {
            "pipeline": self.spec.name,
            "champion": self.champion,
            "steps": self.rows,
            **self.figures,
            "causes": self.causes,
            "gates": [{**asdict(row), "underpowered": row.underpowered} for row in self.power],
            "interim": None if self.interim is None else asdict(self.interim),
            "calibration": None if self.calibration is None else asdict(self.calibration),
            "source": self.source,
            "places": self.places,
            "calls": [asdict(each) for each in self.calls],
            "warnings": self.advice,
            "label_probe": None if self.label is None else {"label": self.label.field, **asdict(self.label.probe)},
            "start": self.start,
        }


def view_plan(pipeline: str, config: Path, *, as_of: str | None = None, given: tuple[str, ...] = ()) -> PlanView:
    """Walk the same steps as a run would; writes nothing. Options as of `plan_pipeline`."""
    found = plan_pipeline(pipeline, config, as_of=as_of, given=given)
    if not isinstance(found.spec, PipelineSpec):
        return _view_data(found, root=config.resolve().parent, as_of=as_of)
    spec, settings, champion = with_model(found.spec), found.settings, found.registry_state.champion
    planned = tuple(each for each in found.nodes if each.node.kind != "effect")
    tried = {each.name: changes_text(each.changes or {}) for each in candidates(spec.train)}
    work = _workload(spec, found.run, found.pipeline.tuned)
    memory = None if work is None else forecast(work, spec.train.first())
    root = config.resolve().parent
    splits = found.run.find(found.pipeline.curated.clean)
    size, missing, label = _size(found, root, as_of)
    nodes, model = _timed(planned), found.run.find(found.pipeline.tuned.first_model)
    pace = (
        None
        if nodes is None
        else pace_of(spec, nodes, size=size, model=model, ledger=found.ledger, store=found.run.store, root=root)
    )
    n_estimated = size.n_test if size else None
    per_minute = measured_answers(model, ledger=found.ledger, store=found.run.store)
    return PlanView(
        spec=spec,
        champion=champion.version if champion is not None else None,
        rows=[
            _row(this, (pace.seconds if pace else found.seconds).get(this.node.name), tried.get(this.id, ""))
            for this in planned
        ],
        figures=_figures(found, planned, size, pace, memory)
        | {"training_path": None if work is None else describe_path(work, spec.train.first())}
        | {"answers_per_minute": per_minute and float(f"{per_minute:.2g}")},
        causes=_causes(planned),
        power=gate_power(spec, splits=splits, ledger=found.ledger, store=found.run.store, n_estimated=n_estimated),
        interim=interim_plan(spec, splits=splits),
        calibration=calibration_plan(
            spec, splits=splits, ledger=found.ledger, store=found.run.store, n_estimated=n_estimated
        ),
        source=ingested_summary(spec, settings),
        places=where_stages_run(spec, settings.home),
        calls=planned_calls(spec, planned, settings=settings, root=root, has_champion=champion is not None),
        memory=memory,
        resources=found.run.budget,
        advice=[
            *advice_on(
                spec,
                settings,
                root=root,
                n_items=None if splits is None else min(spec.evaluate.max_items, splits.n_test),
            ),
            *missing,
            *([] if label is None else label.findings),
            *filter(None, [describe_champion(spec, found.registry_state), answers_advice(spec, per_minute)]),
            *_library_advice(spec),
            *_budget_advice(found, planned),
            *_limits(found),
        ],
        label=label,
        start=describe_start(spec, found.registry_state),
    )


def _view_data(found: PlannedRun, *, root: Path, as_of: str | None) -> PlanView:
    """Return the plan of a pipeline of data alone."""
    spec, settings = found.spec, found.settings
    planned = tuple(each for each in found.nodes if each.node.kind != "effect")
    splits = found.run.find(found.pipeline.curated.clean)
    source_rows, missing = None, list[str]()
    if splits is None:
        with tempfile.TemporaryDirectory(prefix="tunegate-plan-") as aside:
            table = _source_table(found, root, as_of, Path(aside))
            if table is not None:
                source_rows, missing = table.rows.n_in, _missing(spec, table, Path(aside), root)
    runs = [each for each in planned if each.state == "run"]
    took = [found.seconds.get(each.node.name) for each in runs]
    known = [seconds for seconds in took if seconds is not None]
    return PlanView(
        spec=spec,
        champion=None,
        rows=[_row(this, found.seconds.get(this.node.name), "") for this in planned],
        figures={
            **({} if source_rows is None else {"source_rows": source_rows}),
            "train_tickets": splits and splits.n_train,
            "validation_tickets": splits and splits.n_validation,
            "test_tickets": splits and splits.n_test,
            "minutes": _minutes(sum(known)) if len(known) == len(took) else None,
        },
        causes=_causes(planned),
        power=(),
        interim=None,
        calibration=None,
        source=ingested_summary(spec, settings),
        places=where_stages_run(spec, settings.home),
        calls=(),
        memory=None,
        resources=found.run.budget,
        advice=[*advice_on(spec, settings, root=root), *missing],
        label=None,
        start=None,
    )


def _library_advice(spec: PipelineSpec) -> list[str]:
    try:
        check_libraries(spec)
    except ConfigError as error:
        return [f"{error.message}; {error.hint}"]
    return []


def _budget_advice(found: PlannedRun, planned: tuple[PlannedNode, ...]) -> list[str]:
    seconds = _training_seconds(found, planned)
    reached = None if seconds is None else over_budget(with_model(found.spec), found.context, seconds)
    return [] if reached is None else [f"the training will be refused: it would use about {reached} of train.budget"]


def _training_seconds(found: PlannedRun, planned: tuple[PlannedNode, ...]) -> float | None:
    start = found.registry_state.start
    return training_seconds(with_model(found.spec), found.pipeline, found.run, planned, found.ledger, start=start)


def _row(this: PlannedNode, seconds: float | None, changes: str) -> dict[str, Any]:
    return {
        "step": this.id,
        "state": this.state,
        "seconds": 0.0 if this.state == "reused" else seconds and round(seconds, 1),
        "result": describe(this.artifact) if this.artifact is not None else changes,
        "why": "; ".join(this.reasons),
        "causes": list(causes_of(this)),
    }


def _limits(found: PlannedRun) -> Iterator[str]:
    """Say if answers are shorter than the replies that are learned; nothing before these are encoded."""
    dataset = found.run.find(found.pipeline.tuned.first_dataset)
    if dataset is not None:
        warning = cut_replies(dataset, max_new_tokens=with_model(found.spec).evaluate.max_new_tokens)
        yield from [warning] if warning else []


def _workload(spec: PipelineSpec, run: Run, tuned: Tuned) -> Workload | None:
    """What determines the memory of the (first) training, as it will count it; None without its base model.

    On a cluster each node makes its own forecast.
    """
    if spec.engine == "ray" or spec.train.is_external:
        return None
    dataset, model = run.find(tuned.first_dataset), run.find(tuned.first_model)
    if model is None:
        return None
    if dataset is None:
        return workload_of(model, max_tokens=spec.train.first().max_length)
    share = dataset.n_supervised / max(1, dataset.n_tokens)
    return workload_of(model, max_tokens=dataset.max_tokens, supervised_share=share)


def _size(found: PlannedRun, root: Path, as_of: str | None) -> tuple[Size | None, list[str], LabelProbe | None]:
    """How large the run is, what its source lacks, and whether words predict its label.

    By stored results, else by reading the source now.

    Raises:
        TunegateError: the source cannot be read, or too many of its rows are faulty; a run would end with the same
            error.
    """
    spec, run, pipeline = with_model(found.spec), found.run, found.pipeline
    splits, dataset = run.find(pipeline.curated.clean), run.find(pipeline.tuned.first_dataset)
    prompt = spec.train.first().prompt
    measure = partial(
        size_of, spec, splits=splits, dataset=dataset, previous=found.context.previous_run,
        start=found.registry_state.start,
    )  # fmt: skip
    if splits is not None and dataset is not None:
        is_trained = found.run.find(pipeline.tuned.trained) is not None
        return measure(source=None), [], None if is_trained else probe_label(spec, splits.train, curated=True)
    with tempfile.TemporaryDirectory(prefix="tunegate-plan-") as aside:
        table = _source_table(found, root, as_of, Path(aside))
        missing = [] if table is None or splits is not None else _missing(spec, table, Path(aside), root)
        if table is not None and splits is None:
            faults, advice = prompt_findings(spec, table, root=root, settings=found.settings)
            if faults:
                raise faults[0]
            missing += advice
        source = None if table is None else measure_source(table, prompt)
        label = None
        if spec.train.is_external:
            pass  # nothing will be trained
        elif splits is not None:
            label = probe_label(spec, splits.train, curated=True)
        elif table is not None:
            label = probe_label(spec, table.tickets, curated=False)
    return measure(source=source), missing, label


def _source_table(found: PlannedRun, root: Path, as_of: str | None, aside: Path) -> TicketTable | None:
    """Return the rows of the source, stored or read now; None of a remote one that was never ingested."""
    table = found.run.find(found.pipeline.curated.tables[0][1])
    if table is not None:
        return table
    return read_source(found.spec.source, root, found.settings, aside=aside, pipeline=found.spec.name, as_of=as_of)


def _missing(spec: DataPipeline, table: TicketTable, aside: Path, root: Path) -> list[str]:
    """Return what the source lacks, in sentences."""
    return [
        *time_advice(spec, table),
        *(f"{each.message}; {each.hint}" for each in missing_columns(spec, table, aside=aside, root=root)),
    ]


def _figures(
    found: PlannedRun, planned: tuple[PlannedNode, ...], size: Size | None, pace: Pace | None, memory: Forecast | None
) -> dict[str, Any]:
    """Rows, tokens, steps, minutes and memory: by stored results, else by the source and this machine's pace."""
    spec, run = with_model(found.spec), found.run
    splits = run.find(found.pipeline.curated.clean)
    train = spec.train.first()
    learned = None if spec.train.is_external else size
    several = {"trainings_to_choose_from": len(candidates(spec.train))} if spec.train.choice is not None else {}
    budget = {}
    if spec.train.budget is not None:
        training = _training_seconds(found, planned)
        limits = spec.train.budget.model_dump(exclude_none=True)
        budget = {
            "training_minutes": training and _minutes(training),
            "training_budget": ", ".join(f"{name} {limit}" for name, limit in limits.items()),
        }
    total = None if pace is None else times(run.graph, pace.seconds, run.budget)
    basis = "the rows of the source, before curation" if size and size.estimated else "curated tickets"
    return {
        **several,
        **budget,
        **planned_labels(spec, found.settings, size.n_test if size else None),
        **({"source_rows": size.n_rows} if size and size.estimated else {}),
        "train_examples": learned and learned.n_train,
        "train_tokens": learned and learned.train_tokens * train.epochs,
        "optimiser_steps": learned and optimiser_steps(learned.n_train, train),
        "held_out_items": size and size.n_test,
        "test_tickets_left": size and splits and splits.n_test - size.n_test,
        "sizes_from": size and basis,
        "minutes": total and _minutes(total.side_by_side),
        "minutes_one_by_one": total and _minutes(total.one_by_one),
        "minutes_on_enough_cores": total and _minutes(total.critical_path),
        "minutes_from": pace.origin if pace else None,
        "training_memory_gib": memory and round(memory.predicted / 2**30, 2),
        "memory_at_hand_gib": memory and round(memory.available / 2**30, 2),
    }


def _causes(planned: tuple[PlannedNode, ...]) -> dict[str, list[str]]:
    causes: dict[str, list[str]] = {}
    for this in planned:
        for cause in causes_of(this) if this.state == "run" else ():
            causes.setdefault(cause, []).append(this.id)
    return causes


def _timed(planned: tuple[PlannedNode, ...]) -> list[Node] | None:
    """The nodes that will or may run; None if a training among them is not known yet, as with Optuna."""
    nodes = []
    for this in planned:
        if this.state not in ("run", "maybe"):
            continue
        if this.node.kind == "expand" and this.id != "gate":
            if this.node.returns is TrialRef:
                return None
            continue  # it becomes the result of another node
        nodes.append(this.node)
    return nodes


def _minutes(seconds: float) -> float:
    return round(seconds / 60, 1)


def where_stages_run(spec: DataPipeline, home: Path, *, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return stage -> `pool NAME` of the placed stages; with `, not checked` if no server answers.

    Raises:
        ServiceError: TG0701, the server answers and does not have a pool.
    """
    found: dict[str, str] = {}
    for stage, pool in spec.place.pools().items():
        exists = _has_pool(pool, home, environ)
        if exists is False:
            raise ServiceError(
                f"the Prefect server has no work pool {pool!r}", code="TG0701", where=f"{spec.name}.place.{stage}",
                hint=f"`prefect work-pool create {pool} --type process` creates it",
            )  # fmt: skip
        found[stage] = f"pool {pool}" if exists else f"pool {pool}, not checked: no Prefect server answers"
    return found


def _has_pool(pool: str, home: Path, environ: Mapping[str, str]) -> bool | None:
    """Return whether the server has the pool; None if no server answers that.

    By HTTP, without importing Prefect: it reads its settings when it is imported, which takes long.
    """
    folder = home / "prefect"
    server = read_state(folder)
    url = environ.get("PREFECT_API_URL") or (f"{server.url}/api" if server is not None else "")
    login = environ.get("PREFECT_API_AUTH_STRING") or read_login(folder)
    key = environ.get("PREFECT_API_KEY") if environ.get("PREFECT_API_URL") else None
    code = answer_code(f"{url.rstrip('/')}/work_pools/{urllib.parse.quote(pool, safe='')}", login=login, key=key)
    return {200: True, 404: False}.get(code or 0)
