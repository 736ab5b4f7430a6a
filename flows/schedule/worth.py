"""Whether a run is worth it: decided before curation, and once its tickets are known, before anything is trained.

A run that finds nothing to do ends with SKIP and the verdict that still holds.
"""

from collections.abc import Callable

from flows.champion.mlflow_sync import synchronise
from flows.context.outcome import Holds, Outcome, outcome_of
from flows.context.run_context import RunContext
from flows.effects.contract import check_data
from flows.forecast.gate_power import warn_of_weak_gate
from flows.forecast.training_budget import refuse_over_budget
from flows.ledger.rows import EventRow, RunRow
from flows.registry.state import waits_of
from flows.release import close_data
from flows.run.faults import check_early
from flows.run.open_run import OpenRun
from flows.schedule.next_look import look_instead, too_few_for_look, waits_for_look
from flows.schedule.ticks import decide_after_curation, record_decision, skip_before_curation
from schemas.artifacts import GateDecision, Splits
from schemas.pipeline import PipelineSpec, model_of
from schemas.schedule import Decision

UNFINISHED = ("INTERRUPTED", "FAILED")
"""Status of a run that was killed, or failed because the disk was full, say, between its promotion and its end."""


def is_worth_running(opened: OpenRun) -> bool:
    """Decide before curation, once; a run that is not worth it has its outcome then.

    Raises:
        ConfigError: settings, base model or machine contradict each other.
        DataError: TG0222, nothing has changed, and a check of the last tickets does not pass any more.
    """
    return _decided_once(opened, "running", _is_worth_running)


def is_worth_training(opened: OpenRun) -> bool:
    """Decide by the curated tickets, once; a run that is not worth it has its outcome then, unless it was to end here.

    So has a run of data alone, which is complete.

    Raises:
        ConfigError: TG0196, the gate could not decide, and `gates.strict_power` is set.
        TrainingError: TG0406, the training would not fit into its budget.
    """
    return _decided_once(opened, "training", _is_worth_training)


def close_outcome(opened: OpenRun) -> Outcome:
    """Return how the run ended, once everything is done; one that was to end before `release` has no verdict."""
    context, until = opened.context, opened.context.request.until
    if context.outcome is None:
        if until == "release":
            raise TypeError("the stage `release` reached no verdict")
        context.outcome = outcome_of(context.ledger, context.run_id, "DONE", f"ran until {until}")
    context.is_complete = True
    return context.outcome


def _decided_once(opened: OpenRun, what: str, decide: Callable[[OpenRun], bool]) -> bool:
    decided = opened.context.decided
    if what not in decided:
        with opened.run.keeping_errors():
            decided[what] = decide(opened)
    return decided[what]


def _is_worth_running(opened: OpenRun) -> bool:
    context, request = opened.context, opened.context.request
    # A look at the past decides again, from stored results: what held then is not what holds now.
    again = request.again or request.as_of is not None or request.resume is not None or not context.is_whole
    last = None if again else _last_valid_run(context)
    if last is not None:
        checks = opened.graph_context.previous_run.checks if context.spec.checks else None
        if checks is not None:
            check_data(context, results=checks)  # stored results age
        look = look_instead(opened)  # a declared look may need no ticket that is not here yet
        skip = Decision(run=False, code="unchanged", reason=_unchanged(context, last)) if look is None else look[0]
        _skip(context, record_decision(context, skip), _holds(context, last), None if look is None else look[1])
        return False
    early = None if waits_for_look(opened) else skip_before_curation(context)
    if early is not None:
        _skip(context, early)
        return False
    if context.reaches("finetune") or context.is_whole:
        check_early(context.spec, context.settings, root=context.root)
    return True


def _is_worth_training(opened: OpenRun) -> bool:
    context, request = opened.context, opened.context.request
    if context.held is not None:
        missing = too_few_for_look(opened)
        if missing:
            _skip(context, Decision(run=False, code="look", reason=missing), "HOLD")
            return False
    if request.tick is not None:
        look = look_instead(opened)
        if look is not None:
            _skip(context, record_decision(context, look[0]), resume=look[1])
            return False
        decision = (skip_before_curation(context) if waits_for_look(opened) else None) or decide_after_curation(opened)
        if not decision.run:
            _skip(context, decision)
            return False
    if not context.reaches("finetune"):
        if context.is_whole:
            curated = opened.pipeline.curated
            close_data(context, opened.run.result(curated.clean), opened.run.find(curated.checks))
        return False
    if request.reaches("release") and not request.again and request.as_of is None:
        recovered = _recover_promotion(context)
        if recovered is not None:
            context.outcome = recovered
            return False
    if context.held is None:
        warn_of_weak_gate(context, opened.run.find(opened.pipeline.curated.clean))
        refuse_over_budget(opened)
    return True


def _recover_promotion(run: RunContext) -> Outcome | None:
    """Return the outcome of an unfinished run on the same inputs whose candidate is champion; None without one.

    Its verdict is kept: judged again, its candidate would be compared with itself, and HOLD would be recorded for a
    promotion that was earned. That is so for a resumed run on other tickets, too, which judge nothing.
    """
    champion = run.registry_state.champion
    if champion is None:
        return None
    last = next((row for row in run.ledger.runs(pipeline=run.spec.name) if row.run_id == champion.run_id), None)
    if last is None or last.status not in UNFINISHED:
        return None
    is_same = (last.input_digest, last.labels_digest) == (run.input_digest, run.labels_digest)
    if not is_same and (run.held is None or not run.held.is_champion):
        return None
    late = synchronise(run.ledger, run.settings)
    if late is not None:
        run.listeners.noted(f"MLflow sync pending: {late.message}; `tunegate ops reconcile` later")
    reason = f"run {last.run_id} was interrupted after its promotion; its verdict holds"
    if not is_same:
        return outcome_of(run.ledger, run.run_id, "SKIP", reason, version=champion.version, holds="PROMOTE")
    return outcome_of(run.ledger, run.run_id, "PROMOTE", reason, version=champion.version)


def _skip(context: RunContext, decision: Decision, holds: Holds | None = None, resume: str | None = None) -> None:
    outcome = outcome_of(context.ledger, context.run_id, "SKIP", decision.reason, holds=holds)
    context.outcome = outcome.model_copy(update={"resume": resume})


def _unchanged(context: RunContext, last: RunRow) -> str:
    holds = _holds(context, last)
    if holds is None:
        ended: str | None = last.status
    else:
        ended = last.verdict if holds == last.verdict else f"{last.verdict}, and a person made its candidate champion"
    reason = f"nothing changed since run {last.run_id} ({ended}): same tickets, configuration and code"
    if _waiting(context, last):
        reason += f"; its candidate waits for approval: `tunegate model approve {last.run_id} --by NAME`"
    return reason


def _last_valid_run(context: RunContext) -> RunRow | None:
    """Return the last run with a verdict on the same inputs, if its verdict would be the same today.

    A verdict against another champion does not count: after a rollback, say, a blocked candidate is judged again.
    """
    ledger, champion, spec = context.ledger, context.registry_state.champion, context.spec
    if not isinstance(spec, PipelineSpec):
        last = ledger.last_complete(spec.name, context.input_digest)
        key = ledger.keys_of(last.run_id).get("decontaminate") if last is not None else None
        return last if context.store.whole("decontaminate", key, Splits) is not None else None
    last = ledger.last_verdict(context.spec.name, context.input_digest, context.labels_digest)
    if last is None:
        return None
    if champion is not None and champion.run_id == last.run_id:
        return last
    for event in _waiting(context, last):
        if not ledger.held(spec.registry.name, event.to_version, waits_of(spec)):
            return None  # its cooldown is over
    key = ledger.keys_of(last.run_id).get("gate")
    decision = context.store.find("gate", key, GateDecision) if key else None
    today = champion.version if champion else None
    return last if decision is not None and decision.champion_version == today else None


def _holds(context: RunContext, last: RunRow) -> Holds | None:
    """Return the verdict that still holds: PROMOTE if its candidate is champion, by the gate or by a person.

    None of a pipeline of data alone.
    """
    if not isinstance(context.spec, PipelineSpec):
        return None
    if last.verdict is None or last.verdict == "ERROR":
        raise TypeError(f"run {last.run_id} has no verdict that could hold")
    champion = context.registry_state.champion
    return "PROMOTE" if champion is not None and champion.run_id == last.run_id else last.verdict


def _waiting(context: RunContext, last: RunRow) -> list[EventRow]:
    return [event for event in context.ledger.waiting(model_of(context.spec)) if event.run_id == last.run_id]
