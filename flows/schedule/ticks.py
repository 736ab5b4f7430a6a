"""A tick: before a scheduled run does its work it asks whether that is worth doing, and the ledger keeps the answer.

First what needs no tickets: was it missed or superseded, is another run in the way, has nothing changed, is there a
cooldown? Then the tickets are curated (what is unchanged comes from the store) and counted. What decides is
`tasks/watch/conditions.py`; here is where the figures come from. Called by `flows/pipeline.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from flows.context.outcome import Outcome
from flows.context.run_context import RunContext, new_run_id
from flows.ledger.ledger import Ledger
from flows.ledger.opened import open_ledger
from flows.schedule.cron import next_tick, tick_for
from flows.views.power import gate_power
from flows.workspace.clock import present
from flows.workspace.settings import Settings
from schemas.artifacts import Splits
from schemas.pipeline import PipelineSpec
from schemas.schedule import ScheduleSpec
from schemas.ticks import Cause, Decision
from tasks.watch.arrivals import count_arrivals, windows
from tasks.watch.conditions import Situation, before_curation, decide
from tasks.watch.drift import measure_drift

if TYPE_CHECKING:
    from flows.run.open_run import OpenRun

RECENT_RUNS = 100
QUEUE_WAIT_S = 7 * 86_400.0
"""Seconds that a queued tick waits for the run before it."""
BEYOND = 10**9
"""Held-out items that a rule needs of which no number would do."""


@dataclass(frozen=True)
class Tick:
    """What made this run."""

    cause: Cause
    scheduled_for: datetime | None = None
    """The time that the schedule meant; None for an event or a person."""

    @property
    def told(self) -> str:
        """The scheduled time as the ledger keeps it."""
        return "" if self.scheduled_for is None else self.scheduled_for.astimezone(UTC).isoformat(timespec="seconds")


def turned_away(spec: PipelineSpec, settings: Settings, tick: Tick) -> Outcome | None:
    """The SKIP of a tick that is late or in the way of another run; None when it may go on. Takes no lock."""
    ledger = open_ledger(settings)
    schedule = spec.schedule or ScheduleSpec(cron="@yearly")
    decision = _late(schedule, tick, present()) if spec.schedule else None
    if decision is None and schedule.overlap == "skip":
        decision = _in_the_way(ledger, spec, tick)
    if decision is None:
        return None
    run_id = new_run_id()
    ledger.record_skip(
        run_id, pipeline=spec.name, model_name=spec.registry.name, cause=tick.cause, scheduled_for=tick.told,
        decision=decision,
    )  # fmt: skip
    champion = ledger.champion(spec.registry.name)
    return Outcome(
        run_id=run_id, pipeline=spec.name, verdict="SKIP", reason=decision.reason,
        champion=champion.version if champion else None,
    )  # fmt: skip


def waits_s(spec: PipelineSpec) -> float:
    """Seconds that a tick waits for another run of the pipeline."""
    return QUEUE_WAIT_S if spec.schedule is not None and spec.schedule.overlap == "queue" else 0.0


def unchanged(run: RunContext, tick: Tick, reason: str) -> Decision:
    """Enter that nothing has changed since the last verdict."""
    return _enter(run, tick, Decision(run=False, code="unchanged", reason=reason))


def too_early(run: RunContext, tick: Tick) -> Decision | None:
    """The SKIP of a tick that no ticket could change, entered; null when the tickets have to be looked at."""
    if ordered_retrain(run):
        return None
    mark = run.ledger.mark(run.spec.name)
    last = datetime.fromisoformat(mark.at) if mark else None
    decision = before_curation(run.spec.retrain, now=present(), last=last)
    return None if decision is None else _enter(run, tick, decision)


def weigh(opened: OpenRun, tick: Tick) -> Decision:
    """Decide by the curated tickets of this run; entered before anything is done about it."""
    run, curated = opened.context, opened.pipeline.curated
    spec, now, warehouse = run.spec, opened.run.result(curated.clean), opened.run.result(curated.warehouse)
    mark = run.ledger.mark(spec.name)
    then = _known(run, mark.run_id) if mark else None
    arrivals = count_arrivals(now=now, then=then, warehouse=warehouse)
    drift = spec.retrain.drift
    shifts = (
        measure_drift(*windows(now=now, then=then, warehouse=warehouse, size=drift.window), drift)
        if drift is not None and then is not None
        else ()
    )
    situation = Situation(
        now=present(),
        last=datetime.fromisoformat(mark.at) if mark else None,
        arrivals=arrivals,
        shifts=shifts,
        n_held_out_needed=_held_out_needed(run, now),
        n_held_out_max=spec.evaluate.max_items,
        ordered=ordered_retrain(run),
    )
    return _enter(run, tick, decide(spec.retrain, situation))


def ordered_retrain(run: RunContext) -> str:
    """Why the champion has to be trained anew: it learned from a customer who was forgotten, and no verdict has been
    given since. Empty when it has not."""
    champion = run.ledger.champion(run.spec.registry.name)
    marks = run.ledger.marked(champion.name, champion.version) if champion is not None else ()
    mark = run.ledger.mark(run.spec.name)
    fresh = [each for each in marks if mark is None or each.at >= mark.at]
    return f"the champion {fresh[-1].told}; it is trained anew without" if fresh else ""


def _enter(run: RunContext, tick: Tick, decision: Decision) -> Decision:
    decision = _dated(run.spec, decision)
    run.ledger.record_tick(
        run.run_id, pipeline=run.spec.name, cause=tick.cause, scheduled_for=tick.told, decision=decision
    )
    return decision


def _dated(spec: PipelineSpec, decision: Decision) -> Decision:
    """A SKIP with the time of the tick that is expected to run, in its sentence as well."""
    if decision.run or decision.expected is None:
        return decision
    moment = tick_for(spec.schedule, datetime.fromisoformat(decision.expected)).isoformat(timespec="seconds")
    return decision.model_copy(update={"expected": moment, "reason": f"{decision.reason}; expected to run on {moment}"})


def _late(schedule: ScheduleSpec, tick: Tick, now: datetime) -> Decision | None:
    if tick.cause != "schedule" or tick.scheduled_for is None:
        return None
    meant = tick.scheduled_for
    if schedule.catch_up == "latest" and next_tick(schedule, after=meant) <= now:
        reason = f"the tick of {tick.told} was missed, and a later one is due: only the latest is caught up on"
        return Decision(run=False, code="superseded", reason=reason)
    if schedule.catch_up == "none" and now - meant > timedelta(minutes=schedule.late_minutes):
        following = next_tick(schedule, after=now).isoformat(timespec="seconds")
        reason = f"the tick of {tick.told} was missed by more than {schedule.late_minutes} minutes"
        return Decision(run=False, code="missed", reason=reason, expected=following)
    return None


def _in_the_way(ledger: Ledger, spec: PipelineSpec, tick: Tick) -> Decision | None:
    """A run of the pipeline that is in progress, or was at the time that the schedule meant."""
    holder = ledger.holder_of(spec.name)
    if holder is not None:
        told = f"run {holder.run} is in progress since {holder.since}"
    else:
        meant = tick.told
        before = next(
            (
                row
                for row in ledger.runs(limit=RECENT_RUNS, pipeline=spec.name)
                if row.status != "SKIPPED" and row.ended_at is not None and row.started_at <= meant < row.ended_at
            ),
            None,
        )
        if not meant or before is None:
            return None
        told = f"run {before.run_id} was in progress until {before.ended_at}"
    expected = None
    if spec.schedule is not None:
        expected = next_tick(spec.schedule, after=present()).isoformat(timespec="seconds")
    return Decision(run=False, code="overlap", reason=f"{told} (schedule.overlap: skip)", expected=expected)


def _known(run: RunContext, run_id: str) -> Splits | None:
    """The tickets of the last verdict; null when they are not in the store any more: then everything is new."""
    key = next((step.key for step in run.ledger.steps(run_id) if step.step == "decontaminate"), "")
    found = run.store.look("decontaminate", key, Splits) if key else None
    return found if isinstance(found, Splits) else None


def _held_out_needed(run: RunContext, splits: Splits) -> int | None:
    wanted = run.spec.retrain.min_held_out
    if wanted != "planned":
        return wanted
    rows = gate_power(run.spec, splits=splits, ledger=run.ledger, store=run.store)
    n_items = min(run.spec.evaluate.max_items, splits.n_test)
    asked = [BEYOND if row.needed is None else row.needed for row in rows if row.at_hand == n_items]
    return max(asked, default=None)
