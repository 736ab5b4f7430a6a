"""What a tick decides: whether a run is worth it, and if not, when it will be.

It reads neither files nor a clock: the current time is an argument. The first reason that applies is reported; drift
only lowers the required number of tickets and the time between runs.

A HOLD or BLOCK uses no ticket: what was new before it is new after it, so that a bad week does not cost the next one.
Then `min_new` alone would start a training at every tick with one more ticket. Hence something must also have changed
since that verdict: a quarter of `min_new`, where tickets that are gone (a bad file was left out) count as well.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from schemas.counted import counted
from schemas.schedule import Arrivals, Code, Decision, RetrainSpec, Shift

RETRY = 0.25
"""Share of `min_new` that must have changed since a HOLD or BLOCK before the next training."""


@dataclass(frozen=True)
class Situation:
    """The facts that a decision is based on."""

    now: datetime
    last: datetime | None
    """Time of the last verdict; None when there was none."""
    arrivals: Arrivals
    used: datetime | None = None
    """Time of the verdict since which tickets are new; None if it is the last one, or there was none."""
    shifts: tuple[Shift, ...] = ()
    n_held_out_needed: int | None = None
    """Required held-out items; None for no requirement."""
    n_held_out_max: int | None = None
    """`evaluate.max_items`: the gate uses no more."""
    ordered: str = ""
    """Why a retrain is required, whatever has arrived; empty when none is."""


def decide(spec: RetrainSpec, here: Situation) -> Decision:
    """Decide to run or to skip, with the reason and the numbers."""
    found, drifted = here.arrivals, [shift for shift in here.shifts if shift.drifted]
    n_arrived = found.n_new + found.n_edited
    needed = spec.min_new
    if drifted and spec.drift is not None:
        needed = min(needed, spec.drift.min_new)
    numbers: dict[str, Any] = {
        "arrivals": found,
        "shifts": here.shifts,
        "n_needed": needed,
        "n_held_out_needed": here.n_held_out_needed,
    }

    def run(code: Code, reason: str) -> Decision:
        return Decision(run=True, code=code, reason=reason, **numbers)

    def skip(code: Code, reason: str, expected: datetime | None) -> Decision:
        return Decision(run=False, code=code, reason=reason, expected=_text(expected), **numbers)

    if here.ordered:
        return run("forgotten", here.ordered)
    short = _too_few_held_out(spec, here)
    if short is not None:
        return skip(*short)
    if here.last is None:
        if found.n_curated < needed:
            return skip("few", f"{found.n_curated} tickets, {_are(needed)} needed for a first run", None)
        return run("first", f"no verdict yet; {found.n_curated} tickets")
    cool = cooldown_end(spec, here.last)
    tried = found.n_changed is not None
    cooling = spec.cooldown_days > 0 and here.now < cool
    if cooling and (tried or not drifted):  # drift ends a cooldown once
        return skip("cooldown", f"cooldown until {_text(cool)} after the last verdict", cool)
    since = "that no promoted candidate knew" if tried else "since the last verdict"
    arrived = f"{found.n_new} new and {found.n_edited} edited tickets {since}"
    waited = spec.max_wait_days is not None and here.now - here.last >= timedelta(days=spec.max_wait_days)
    n_retry = 1 if waited else max(1, math.ceil(RETRY * spec.min_new))
    if found.n_changed is not None and n_arrived >= needed and found.n_changed < n_retry:
        changed = f"{_are(found.n_changed)} new, edited or gone since the last verdict"
        expected = _expected(spec, here, n_since=found.n_changed, n_missing=n_retry - found.n_changed, since=here.last)
        return skip("tried", f"{arrived}; {changed}, {_are(n_retry)} needed", expected)
    if n_arrived >= needed and n_arrived:
        if (drifted and n_arrived < spec.min_new) or here.now < cool:
            return run("drift", f"{arrived}, and they have drifted: {_kinds(drifted)}")
        return run("enough", f"{arrived}, {_are(needed)} enough")
    if waited and n_arrived and found.n_changed != 0:
        return run("waited", f"{arrived}, and the last verdict is more than {spec.max_wait_days:g} days old")
    n_missing = max(1, needed) - n_arrived
    expected = _expected(spec, here, n_since=n_arrived, n_missing=n_missing, since=here.used or here.last)
    return skip("few", f"{arrived}, {_are(max(1, needed))} needed", expected)


def before_curation(spec: RetrainSpec, *, now: datetime, last: datetime | None) -> Decision | None:
    """SKIP for a cooldown that no ticket can end; None when the tickets must be curated first."""
    if last is None or spec.drift is not None or not spec.cooldown_days or now >= cooldown_end(spec, last):
        return None
    until = _text(cooldown_end(spec, last))
    return Decision(run=False, code="cooldown", reason=f"cooldown until {until} after the last verdict", expected=until)


def cooldown_end(spec: RetrainSpec, last: datetime) -> datetime:
    """When the cooldown after the last verdict ends."""
    return last + timedelta(days=spec.cooldown_days)


def _too_few_held_out(spec: RetrainSpec, here: Situation) -> tuple[Code, str, datetime | None] | None:
    """Code, reason and expected time; None when there are enough held-out items."""
    found, needed = here.arrivals, here.n_held_out_needed
    fresh = found.n_fresh_held_out
    available = found.n_held_out if here.n_held_out_max is None else min(found.n_held_out, here.n_held_out_max)
    if needed is not None and not available >= needed:
        planned = " by the gate's plan" if spec.min_held_out == "planned" else ""
        if here.n_held_out_max is not None and needed > here.n_held_out_max:
            items = counted(needed, "held-out item is", "held-out items are")
            return "held_out", f"{items} needed{planned}, and evaluate.max_items is {here.n_held_out_max}", None
        reason = f"{counted(available, 'held-out item')}, and {_are(needed)} needed{planned}"
        return "held_out", reason, _when(here.now, fresh, needed - available, since=here.last)
    if here.last is not None and fresh < spec.min_fresh_held_out:
        missing = spec.min_fresh_held_out - fresh
        reason = f"{counted(fresh, 'held-out item')} that no verdict has seen, {_are(spec.min_fresh_held_out)} needed"
        return "fresh", reason, _when(here.now, fresh, missing, since=here.last)
    return None


def _expected(spec: RetrainSpec, here: Situation, *, n_since: int, n_missing: int, since: datetime) -> datetime | None:
    found = _when(here.now, n_since, n_missing, since=since)
    if spec.max_wait_days is None or here.last is None or not n_since:
        return found
    latest = here.last + timedelta(days=spec.max_wait_days)
    return latest if found is None else min(found, latest)


def _when(now: datetime, n_since: int, n_missing: int, *, since: datetime | None) -> datetime | None:
    """When the missing ones will be there if they keep arriving as they did since then."""
    if since is None or n_since <= 0 or now <= since:
        return None
    try:
        return now + (now - since) / n_since * n_missing
    except OverflowError:
        return None


def _are(n: int) -> str:
    return counted(n, "is", "are")


def _kinds(shifts: list[Shift]) -> str:
    return ", ".join(f"{shift.kind} {shift.distance:.2f} (limit {shift.limit:g})" for shift in shifts)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
