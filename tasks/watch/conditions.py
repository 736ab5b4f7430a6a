"""What a tick decides: is a run worth it, and if not, when will it be? Plain arithmetic on what was found.

It reads nothing and asks no clock: the present is an argument. Called by `flows/schedule/ticks.py`. The first reason
that holds is told; drift only lowers what is asked of the number of tickets and the time between runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from schemas.schedule import RetrainSpec
from schemas.ticks import Arrivals, Code, Decision, Shift


@dataclass(frozen=True)
class Situation:
    """What a decision is made from."""

    now: datetime
    last: datetime | None
    """When the last verdict was given; null when there was none."""
    arrivals: Arrivals
    shifts: tuple[Shift, ...] = ()
    n_held_out_needed: int | None = None
    """Held-out items that are asked for; null when nothing is asked."""
    n_held_out_max: int | None = None
    """`evaluate.max_items`: the gate takes no more."""
    ordered: str = ""
    """Why a retrain is ordered, whatever has arrived; empty when none is."""


def decide(spec: RetrainSpec, here: Situation) -> Decision:
    """RUN or SKIP, and why, with the numbers."""
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

    def skip(code: Code, reason: str, expected: datetime | None) -> Decision:
        return Decision(run=False, code=code, reason=reason, expected=_text(expected), **numbers)

    if here.ordered:
        return Decision(run=True, code="forgotten", reason=here.ordered, **numbers)
    short = _too_few_held_out(spec, here)
    if short is not None:
        return skip(*short)
    if here.last is None:
        if found.n_curated < needed:
            return skip("few", f"{found.n_curated} tickets, and {needed} are needed for a first run", None)
        return Decision(run=True, code="first", reason=f"no verdict yet; {found.n_curated} tickets", **numbers)
    cool = cooldown_end(spec, here.last)
    cooling = spec.cooldown_days > 0 and here.now < cool
    if cooling and not drifted:
        return skip("cooldown", f"cooldown until {_text(cool)} after the last verdict", cool)
    told = f"{found.n_new} new and {found.n_edited} edited tickets since the last verdict"
    if n_arrived >= needed and n_arrived:
        if (drifted and n_arrived < spec.min_new) or here.now < cool:
            return Decision(
                run=True, code="drift", reason=f"{told}, and they have drifted: {_kinds(drifted)}", **numbers
            )
        return Decision(run=True, code="enough", reason=f"{told}, {needed} are enough", **numbers)
    waited = spec.max_wait_days is not None and here.now - here.last >= timedelta(days=spec.max_wait_days)
    if waited and n_arrived:
        reason = f"{told}, and the last verdict is more than {spec.max_wait_days:g} days old"
        return Decision(run=True, code="waited", reason=reason, **numbers)
    return skip("few", f"{told}, {max(1, needed)} are needed", _expected(spec, here, n_arrived, needed))


def before_curation(spec: RetrainSpec, *, now: datetime, last: datetime | None) -> Decision | None:
    """The cooldown, where nothing that the tickets may show would end it; null when they have to be looked at."""
    if last is None or spec.drift is not None or not spec.cooldown_days or now >= cooldown_end(spec, last):
        return None
    until = _text(cooldown_end(spec, last))
    return Decision(run=False, code="cooldown", reason=f"cooldown until {until} after the last verdict", expected=until)


def cooldown_end(spec: RetrainSpec, last: datetime) -> datetime:
    """When the cooldown after the last verdict is over."""
    return last + timedelta(days=spec.cooldown_days)


def _too_few_held_out(spec: RetrainSpec, here: Situation) -> tuple[Code, str, datetime | None] | None:
    """Code, reason and when there will be enough; null when there are enough held-out items."""
    found, needed = here.arrivals, here.n_held_out_needed
    fresh = found.n_fresh_held_out
    at_hand = found.n_held_out if here.n_held_out_max is None else min(found.n_held_out, here.n_held_out_max)
    if needed is not None and not at_hand >= needed:
        planned = " by the gate's plan" if spec.min_held_out == "planned" else ""
        if here.n_held_out_max is not None and needed > here.n_held_out_max:
            reason = f"{needed} held-out items are needed{planned}, and evaluate.max_items is {here.n_held_out_max}"
            return "held_out", reason, None
        reason = f"{at_hand} held-out items, and {needed} are needed{planned}"
        return "held_out", reason, _when(here, fresh, needed - at_hand)
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
    """When the missing ones will be there if they go on to arrive as they did since the last verdict."""
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
