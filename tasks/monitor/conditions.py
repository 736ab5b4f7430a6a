"""What a tick decides: whether a run is worth it, and if not, when it will be.

It reads neither files nor a clock: the current time is an argument. Called by `flows/schedule/ticks.py`. The first
reason that applies is reported; drift only lowers the required number of tickets and the time between runs.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from schemas.schedule import RetrainSpec
from schemas.ticks import Arrivals, Code, Decision, Shift


@dataclass(frozen=True)
class Situation:
    """The facts that a decision is based on."""

    now: datetime
    last: datetime | None
    """Time of the last verdict; None when there was none."""
    arrivals: Arrivals
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
            return skip("few", f"{found.n_curated} tickets, {needed} are needed for a first run", None)
        return run("first", f"no verdict yet; {found.n_curated} tickets")
    cool = cooldown_end(spec, here.last)
    cooling = spec.cooldown_days > 0 and here.now < cool
    if cooling and not drifted:
        return skip("cooldown", f"cooldown until {_text(cool)} after the last verdict", cool)
    arrived = f"{found.n_new} new and {found.n_edited} edited tickets since the last verdict"
    if n_arrived >= needed and n_arrived:
        if (drifted and n_arrived < spec.min_new) or here.now < cool:
            return run("drift", f"{arrived}, and they have drifted: {_kinds(drifted)}")
        return run("enough", f"{arrived}, {needed} are enough")
    waited = spec.max_wait_days is not None and here.now - here.last >= timedelta(days=spec.max_wait_days)
    if waited and n_arrived:
        return run("waited", f"{arrived}, and the last verdict is more than {spec.max_wait_days:g} days old")
    return skip("few", f"{arrived}, {max(1, needed)} are needed", _expected(spec, here, n_arrived, needed))


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
            reason = f"{needed} held-out items are needed{planned}, and evaluate.max_items is {here.n_held_out_max}"
            return "held_out", reason, None
        reason = f"{available} held-out items, and {needed} are needed{planned}"
        return "held_out", reason, _when(here, fresh, needed - available)
    if here.last is not None and fresh < spec.min_fresh_held_out:
        missing = spec.min_fresh_held_out - fresh
        reason = f"{fresh} held-out items that no verdict has seen, {spec.min_fresh_held_out} are needed"
        return "fresh", reason, _when(here, fresh, missing)
    return None


def _expected(spec: RetrainSpec, here: Situation, n_arrived: int, needed: int) -> datetime | None:
    found = _when(here, n_arrived, max(1, needed) - n_arrived)
    if spec.max_wait_days is None or here.last is None or not n_arrived:
        return found
    latest = here.last + timedelta(days=spec.max_wait_days)
    return latest if found is None else min(found, latest)


def _when(here: Situation, n_arrived: int, n_missing: int) -> datetime | None:
    """When the missing ones will be there if they keep arriving as they did since the last verdict."""
    if here.last is None or n_arrived <= 0 or here.now <= here.last:
        return None
    try:
        return here.now + (here.now - here.last) / n_arrived * n_missing
    except OverflowError:
        return None


def _kinds(shifts: list[Shift]) -> str:
    return ", ".join(f"{shift.kind} {shift.distance:.2f} (limit {shift.limit:g})" for shift in shifts)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
