"""Whether there are enough held-out items for the next declared look at a held candidate (`gates.looks.at`).

Counted exactly, before anything is answered: a look that is too small spends nothing.
"""

from dataclasses import replace

from flows.build import build_run
from flows.context.run_context import RunContext
from flows.graph.execute import Observer, run_plainly
from flows.registry.held import HeldCandidate, newest_held
from flows.run.guarded_run import guarded_run
from flows.run.open_run import OpenRun
from flows.schedule.ticks import forced_retrain
from schemas.artifacts import EvalSet
from schemas.counted import counted
from schemas.pipeline import PipelineSpec
from schemas.schedule import Decision
from tasks.assess.items import extra_items


def waits_for_look(opened: OpenRun) -> bool:
    """Return whether this is a tick that resumes a HOLD, and one waits for tickets."""
    return _waiting(opened.context) is not None


def look_instead(opened: OpenRun) -> tuple[Decision, str] | None:
    """Return the decision of a tick to judge a held candidate again, and its run; None if there is nothing to resume.

    The tickets are curated as for a training; what is made for this is in the store when the run is resumed.
    """
    context, held = opened.context, _waiting(opened.context)
    if held is None or not isinstance(context.spec, PipelineSpec):
        return None
    if held.is_champion:
        reason = f"the candidate of run {held.run_id} became champion in a run that was interrupted, which is ended"
        return Decision(run=False, code="look", reason=f"{reason} (schedule.resume_hold)"), held.run_id
    graph_context = replace(opened.graph_context, held=held)
    pipeline, _, _ = build_run(context.spec, graph_context, context.ledger)
    run = guarded_run(pipeline.graph, context.spec, context.store, context.settings, observer=Observer(), live=context)
    items = pipeline.assessed.items
    run_plainly(run, targets=(items,))
    n_items = _planned(run.result(items))
    if n_items < held.sizes[0]:
        return None
    reason = f"the candidate of run {held.run_id}, which got HOLD, is judged again on {n_items:,} held-out items"
    return Decision(run=False, code="look", reason=f"{reason} (schedule.resume_hold)"), held.run_id


def too_few_for_look(opened: OpenRun) -> str:
    """Say how many held-out items a resumed run has and needs; empty if there are enough."""
    held = opened.context.held
    if held is None or held.is_champion:
        return ""
    n_items, needed = _planned(opened.run.result(opened.pipeline.assessed.items)), held.sizes[0]
    if n_items >= needed:
        return ""
    are = counted(n_items, "held-out item", "held-out items")
    return (
        f"{are} for the candidate of run {held.run_id}, and its next look needs {needed:,} (gates.looks.at); it was "
        f"judged on {held.n_before:,}. Nothing is spent: resume the run when {needed - n_items:,} more have arrived"
    )


def _waiting(context: RunContext) -> HeldCandidate | None:
    spec = context.spec
    if context.request.tick is None or not spec.schedule.resume_hold or not isinstance(spec, PipelineSpec):
        return None
    if forced_retrain(context):  # the champion has to go, and only a training replaces it for certain
        return None
    return newest_held(spec, context.ledger, context.store, context.registry_state)


def _planned(items: EvalSet) -> int:
    return items.n_items - len(extra_items(items))
