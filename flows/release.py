"""Stage four: bundle the candidate, record it in the ledger, promote it if the verdict says so, update MLflow.

The ledger is the source of truth: a promotion is one compare-and-set transaction there. MLflow's versions and aliases
follow it and can be updated at any time, so a dead MLflow never decides who is champion.
"""

from flows.assess import Assessed
from flows.champion.mlflow_sync import synchronise
from flows.champion.run_record import RecordedResults, write_record
from flows.context.outcome import Outcome, held, outcome_of
from flows.context.run_context import RunContext
from flows.curate import Curated
from flows.effects.pages import show_model, show_report
from flows.finetune import Tuned
from flows.graph.graph import Graph
from flows.graph.keys import digest_of
from flows.ledger.rows import MOVES, EventRow, RunVerdict
from flows.records.run_picture import keep_picture
from flows.registry.owner import check_registry
from flows.registry.state import recipe_of, waits_of
from flows.views.report import report_run
from flows.workspace.clock import present
from schemas.artifacts import (
    BundleRef,
    ChampionRef,
    CheckEvidence,
    CheckResults,
    DatasetRef,
    EvalSet,
    GateDecision,
    ModelRef,
    Predictions,
    Scores,
    Splits,
    TrainedRef,
    ValidationCurves,
)
from schemas.data_checks import count_checks
from schemas.pipeline import PipelineSpec
from schemas.trials import ChoiceRef
from tasks.assess.decision import surpassed
from tasks.curate.data_checks import judge_now
from tasks.release.bundle import bundle_candidate, check_evaluated
from tasks.release.serve import read_serving


def release(graph: Graph, spec: PipelineSpec, *, curated: Curated, tuned: Tuned, assessed: Assessed) -> Outcome:
    """Add the stage: one stored step, then what changes the ledger, the report and MLflow."""
    arms, decision, certificates = assessed.arms, assessed.decision, assessed.certificates
    with graph.stage("release"):
        bundle = graph.add(
            bundle_candidate,
            trained=tuned.trained,
            model=tuned.model,
            name=spec.registry.name,
            prompt=spec.train.prompt,
            decoding=spec.evaluate.decoding(),
            corpus=curated.corpus if spec.train.prompt.shows_passages else None,
            certificate=None if certificates is None else certificates.of_arms["tuned"],
            labels=None if certificates is None else certificates.labels,
        )
        version = graph.effect(
            record,
            decision=decision,
            model=tuned.model,
            trained=tuned.trained,
            bundle=bundle,
            items=assessed.items,
            answers=arms.answers["tuned"],
            scores=tuple(arms.scores.values()),
            splits=curated.clean,
            dataset=tuned.dataset,
            curves=tuned.curves,
            choice=tuned.choice,
            latency=assessed.checks.evidence.get("latency"),
        )
        with graph.unless(not_promoted, decision):
            event = graph.effect(promote, version=version, decision=decision, bundle=bundle, trained=tuned.trained)
        outcome = graph.effect(report, version=version, decision=decision, event=event)
        graph.effect(register, outcome=outcome)
    return outcome


def release_as_of(graph: Graph, *, assessed: Assessed) -> Outcome:
    """Add the stage of a run with `--as-of`: no candidate is bundled and recorded, so nothing can promote it."""
    with graph.stage("release"):
        return graph.effect(report_as_of, decision=assessed.decision)


def not_promoted(decision: GateDecision) -> str | None:
    """Return why the champion stays; None for PROMOTE."""
    return None if decision.verdict == "PROMOTE" else f"the gate says {decision.verdict}"


def record(
    run: RunContext,
    *,
    decision: GateDecision,
    model: ModelRef,
    trained: TrainedRef,
    bundle: BundleRef,
    items: EvalSet,
    answers: Predictions,
    scores: tuple[Scores, ...],
    splits: Splits,
    dataset: DatasetRef | None,
    curves: ValidationCurves | None,
    choice: ChoiceRef | None,
    latency: CheckEvidence | None,
) -> str:
    """Record the candidate and its verdict in the ledger; return its version.

    First, what MLflow will show of the run is written next to the ledger.

    Raises:
        StorageError: TG0580 or TG0581, the ledger was altered or is another one.
    """
    spec = run.trained_spec
    tuned = next(each for each in scores if each.arm == "tuned")
    certificate = read_serving(bundle.root).certificate
    write_record(
        run,
        RecordedResults(
            splits=splits, dataset=dataset, items=items, decision=decision, trained=trained, scores=scores,
            curves=curves, choice=choice, latency=latency, certificate=certificate,
        ),
    )  # fmt: skip
    candidate = ChampionRef(
        name=spec.registry.name,
        version="",
        run_id=run.run_id,
        model=model,
        trained=trained,
        prompt=spec.train.prompt,
        max_new_tokens=spec.evaluate.max_new_tokens,
        bundle=bundle,
        verdict_digest=decision.digest,
        promoted_at="",
        certificate=certificate,
    )
    evidence = {
        "gates": digest_of(spec.judged_gates),
        "items": items.digest,
        "answers": answers.digest,
        "scores": tuned.digest,
        "decision": decision.digest,
        "better_than": surpassed(decision),
        "recipe": recipe_of(spec),
    }
    return run.ledger.record_candidate(candidate, verdict=decision.verdict, reason=decision.reason, evidence=evidence)


def promote(
    run: RunContext, *, version: str, decision: GateDecision, bundle: BundleRef, trained: TrainedRef
) -> EventRow:
    """Make the candidate champion unless it has to wait for approval; return the ledger's event.

    Raises:
        GateError: the champion moved since the evaluation began; nothing is promoted.
        StorageError: the files to register are not those that were evaluated; TG0581, MLflow's registered model belongs
            to another ledger.
    """
    spec = run.trained_spec
    check_evaluated(bundle, trained)
    check_registry(spec, run.settings, run.ledger)
    return run.ledger.promote(
        spec.registry.name,
        expected=decision.champion_version,
        version=version,
        verdict=RunVerdict(run.run_id, decision.reason, decision.digest),
        waits=waits_of(spec),
    )


def report(run: RunContext, *, version: str, decision: GateDecision, event: EventRow | None) -> Outcome:
    """Set the run's outcome; write its graph and its report."""
    note = f"; {event.note}" if event is not None and event.note else ""
    outcome = outcome_of(run.ledger, run.run_id, decision.verdict, decision.reason + note, version=version)
    if event is not None and event.action not in MOVES:
        outcome = held(outcome, event)
    run.outcome = outcome
    keep_picture(run, ending=(report.__name__, register.__name__))
    report_run(run)
    show_report(run)
    return outcome


def report_as_of(run: RunContext, *, decision: GateDecision) -> Outcome:
    """Set the run's outcome, what the gate would have said; write its graph and its report."""
    would = f"as of {run.request.as_of} the gate would have said {decision.verdict}: {decision.reason}"
    reason = f"{would}; nothing is promoted"
    run.outcome = outcome_of(run.ledger, run.run_id, decision.verdict, reason)
    keep_picture(run, ending=(report_as_of.__name__,))
    report_run(run)
    show_report(run)
    return run.outcome


def close_data(run: RunContext, splits: Splits, checks: CheckResults | None) -> None:
    """Set the outcome of a run of data alone, which has no other stage; write its graph and its report.

    Args:
        splits: What it has made.
        checks: What its checks said; one that fails has ended the run before.
    """
    judged = [] if checks is None else [judge_now(each, present()) for each in checks.results]
    checked = f"{count_checks(judged)}; " if judged else ""
    rows = f"{splits.n_train:,} train, {splits.n_validation:,} validation and {splits.n_test:,} test tickets"
    day = run.request.as_of
    dated = f"; as of {day}, so no table is published" if day is not None else ""
    run.outcome = outcome_of(run.ledger, run.run_id, "DONE", f"{checked}{rows}{dated}")
    keep_picture(run)
    report_run(run)
    show_report(run)


def register(run: RunContext, *, outcome: Outcome) -> None:
    """Update MLflow; if it is down, only note that."""
    late = synchronise(run.ledger, run.settings)
    if late is not None:
        why = f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later"
        run.listeners.noted(f"{outcome.verdict} is recorded, {why}")
    show_model(run)
