"""A tick: a scheduled run first decides whether it is worth running, and the ledger records the decision.

First come checks without tickets: was it missed or superseded, is another run in progress, has nothing changed, is
there a cooldown? Then tickets are curated (unchanged results come from the store) and counted.
`tasks/monitor/conditions.py` decides; this module collects the figures.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from flows.context.outcome import Outcome, outcome_of
from flows.context.request import RunRequest
from flows.context.run_context import RunContext, new_run_id
from flows.forecast.gate_power import gate_power, planned_items
from flows.ledger.ledger import Ledger
from flows.ledger.open import open_ledger
from flows.ledger.ticks import Mark
from flows.registry.feedback import routed
from flows.registry.held import learned_by
from flows.run.notify import notify_warning
from flows.run.open_run import OpenRun
from flows.workspace.clock import present
from flows.workspace.settings import Settings
from schemas.artifacts import Splits
from schemas.pipeline import DataPipeline, PipelineSpec, model_of
from schemas.schedule import Decision, ScheduleSpec
from tasks.monitor.arrivals import count_arrivals, windows
from tasks.monitor.conditions import Situation, before_curation, decide
from tasks.monitor.drift import measure_drift

RECENT_RUNS = 100
QUEUE_WAIT_S = 7 * 86_400.0
"""Seconds that a queued tick waits for the run before it."""
BEYOND = 10**9
"""Held-out items needed by a rule for which no number is enough."""


def skip_without_lock(spec: DataPipeline, settings: Settings, request: RunRequest) -> Outcome | None:
    """Skip a tick that is late or overlaps with another run; None if the run may continue. Takes no lock."""
    if request.tick is None:
        return None
    ledger = open_ledger(settings)
    decision = _late(spec.schedule, request, present())
    if decision is None and spec.schedule.overlap == "skip":
        decision = _overlap(ledger, spec, request)
    if decision is None:
        return None
    run_id = new_run_id()
    ledger.record_skip(
        run_id, pipeline=spec.name, model_name=model_of(spec), cause=request.tick,
        scheduled_for=request.due_utc, decision=decision,
    )  # fmt: skip
    return outcome_of(ledger, run_id, "SKIP", decision.reason)


def tick_wait_s(spec: DataPipeline) -> float:
    """Return the seconds that a tick waits for another run of the pipeline."""
    return QUEUE_WAIT_S if spec.schedule.overlap == "queue" else 0.0


def skip_before_curation(run: RunContext) -> Decision | None:
    """Record the SKIP of a tick that no ticket could change; None if the tickets have to be counted."""
    if run.request.tick is None or forced_retrain(run):
        return None
    mark = _last_mark(run)
    last = datetime.fromisoformat(mark.at) if mark else None
    decision = before_curation(run.spec.schedule.retrain, now=present(), last=last)
    return None if decision is None else record_decision(run, decision)


def decide_after_curation(opened: OpenRun) -> Decision:
    """Decide a tick by the curated tickets of this run, and record the decision before acting on it."""
    run, curated = opened.context, opened.pipeline.curated
    spec, now, warehouse = run.spec, opened.run.result(curated.clean), opened.run.result(curated.warehouse)
    last = _last_mark(run)
    # Data alone use every ticket of a whole run: there is no candidate that could fail its rules.
    used = run.ledger.used_mark(spec.name) if isinstance(spec, PipelineSpec) else last
    then = _splits_of(run, last)
    known = None if used is None else _learned_at(run, used) or then
    tried = last is not None and last != used
    arrivals = count_arrivals(now=now, used=known, last=then, warehouse=warehouse, tried=tried)
    drift = spec.schedule.retrain.drift
    shifts = (
        measure_drift(*windows(now=now, then=known, warehouse=warehouse, size=drift.window), drift)
        if drift is not None and known is not None
        else ()
    )
    situation = Situation(
        now=present(),
        last=datetime.fromisoformat(last.at) if last else None,
        arrivals=arrivals,
        used=datetime.fromisoformat(used.at) if used and tried else None,
        shifts=shifts,
        n_held_out_needed=_held_out_needed(run, now),
        n_held_out_max=spec.evaluate.max_items if isinstance(spec, PipelineSpec) else None,
        ordered=forced_retrain(run),
    )
    return record_decision(run, decide(spec.schedule.retrain, situation))


def _last_mark(run: RunContext) -> Mark | None:
    """Return the mark of the last run that counts: a model has not seen what was curated before there was one."""
    return run.ledger.mark(run.spec.name, judged=isinstance(run.spec, PipelineSpec))


def _splits_of(run: RunContext, mark: Mark | None) -> Splits | None:
    """Return the splits of the mark's run; None if they are no longer in the store."""
    key = run.ledger.keys_of(mark.run_id).get("decontaminate") if mark else None
    return run.store.whole("decontaminate", key, Splits)


def _learned_at(run: RunContext, mark: Mark) -> Splits | None:
    """Return the tickets that the candidate of the mark's run knew: of one that was judged again those of then."""
    return learned_by(run.ledger.keys_of(mark.run_id), run.store)


def forced_retrain(run: RunContext) -> str:
    """Return why the champion must be trained again; empty if it need not.

    It must if it learned from a forgotten customer and there has been no verdict since.
    """
    champion = run.ledger.champion(model_of(run.spec))
    marks = run.ledger.marked(champion.name, champion.version) if champion is not None else ()
    mark = _last_mark(run)
    fresh = [each for each in marks if mark is None or each.at >= mark.at]
    return f"the champion {fresh[-1].summary}; it is trained again without them" if fresh else ""


def record_decision(run: RunContext, decision: Decision) -> Decision:
    """Record what a tick decided, and return it with the time of the next one that is expected to run."""
    if run.request.tick is None:
        return decision
    decision = _dated(run.spec, decision).model_copy(update={"warnings": _warn_of_certificate(run)})
    run.ledger.record_tick(
        run.run_id, pipeline=run.spec.name, cause=run.request.tick, scheduled_for=run.request.due_utc, decision=decision
    )
    return decision


def _warn_of_certificate(run: RunContext) -> tuple[str, ...]:
    """Note and notify that the champion's certificate no longer holds; nothing if it does, or there is none."""
    spec = run.spec
    if not isinstance(spec, PipelineSpec):
        return ()
    champion = run.ledger.champion(spec.registry.name)
    if champion is None or champion.certificate is None:
        return ()
    watched = routed(spec.registry.name, spec.feedback, run.settings, run.ledger)
    warnings = tuple(each.warning() for each in watched if each.version == champion.version and not each.holds)
    for warning in warnings:
        run.listeners.noted(warning)
        notify_warning(run, warning)
    return warnings


def _dated(spec: DataPipeline, decision: Decision) -> Decision:
    """Add to a SKIP the time of the next tick that is expected to run, also to its reason."""
    if decision.run or decision.expected is None:
        return decision
    moment = datetime.fromisoformat(decision.expected)
    # A second earlier, so that a tick at that very moment counts.
    moment = next_tick(spec.schedule, after=moment - timedelta(seconds=1)) or moment
    shown = moment.isoformat(timespec="seconds")
    return decision.model_copy(update={"expected": shown, "reason": f"{decision.reason}; expected to run on {shown}"})


def next_tick(schedule: ScheduleSpec, *, after: datetime) -> datetime | None:
    """Return the first time of the schedule after `after`, UTC, as Prefect's server computes it; None without a cron.

    >>> monday = ScheduleSpec(cron="0 5 * * 1", timezone="Europe/Berlin")
    >>> next_tick(monday, after=datetime(2026, 6, 1, 3, tzinfo=UTC)).isoformat()
    '2026-06-08T03:00:00+00:00'
    """
    from prefect._vendor.croniter.croniter import croniter

    if schedule.cron is None:
        return None
    local = after.astimezone(ZoneInfo(schedule.timezone))
    found: datetime = croniter(schedule.cron.strip(), local).get_next(datetime)  # type: ignore[no-untyped-call]
    return found.astimezone(UTC)


def _late(schedule: ScheduleSpec, request: RunRequest, now: datetime) -> Decision | None:
    due = request.due
    later = None if due is None else next_tick(schedule, after=due)
    if request.tick != "schedule" or due is None or later is None:
        return None
    if schedule.catch_up == "latest" and later <= now:
        reason = f"the tick of {request.due_utc} was missed, and a later one is due: only the latest is made up"
        return Decision(run=False, code="superseded", reason=reason)
    if schedule.catch_up == "none" and now - due > timedelta(minutes=schedule.late_minutes):
        reason = f"the tick of {request.due_utc} was missed by more than {schedule.late_minutes} minutes"
        return Decision(run=False, code="missed", reason=reason, expected=_following(schedule, now))
    return None


def _following(schedule: ScheduleSpec, now: datetime) -> str | None:
    moment = next_tick(schedule, after=now)
    return None if moment is None else moment.isoformat(timespec="seconds")


def _overlap(ledger: Ledger, spec: DataPipeline, request: RunRequest) -> Decision | None:
    """Skip if a run of the pipeline is in progress, or was at the scheduled time."""
    holder = ledger.holder_of(spec.name)
    if holder is not None:
        reason = f"run {holder.run} is in progress since {holder.since}"
    else:
        due = request.due_utc
        before = next(
            (
                row
                for row in ledger.runs(limit=RECENT_RUNS, pipeline=spec.name)
                # The end of an interrupted run is when somebody noticed.
                if row.status not in ("SKIPPED", "INTERRUPTED")
                and row.ended_at is not None
                and row.started_at <= due < row.ended_at
            ),
            None,
        )
        if not due or before is None:
            return None
        reason = f"run {before.run_id} was in progress until {before.ended_at}"
    reason = f"{reason} (schedule.overlap: skip)"
    return Decision(run=False, code="overlap", reason=reason, expected=_following(spec.schedule, present()))


def _held_out_needed(run: RunContext, splits: Splits) -> int | None:
    wanted = run.spec.schedule.retrain.min_held_out
    if wanted != "planned":
        return wanted
    spec = run.trained_spec
    rows = gate_power(spec, splits=splits, ledger=run.ledger, store=run.store)
    n_items = planned_items(spec, splits)
    needed = [BEYOND if row.needed is None else row.needed for row in rows if row.at_hand == n_items]
    return max(needed, default=None)
