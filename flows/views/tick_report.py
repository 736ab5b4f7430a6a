"""Decisions of ticks, for people: rows of `tunegate model history` and lines of `tunegate show`."""

from typing import Any

from flows.ledger.ticks import Mark, TickRow


def tick_json(row: TickRow) -> dict[str, Any]:
    """Return the tick with all its figures."""
    head = {"run_id": row.run_id, "at": row.at, "cause": row.cause, "scheduled_for": row.scheduled_for}
    return {**head, **row.decision.model_dump(mode="json")}


def tick_row(row: TickRow) -> dict[str, Any]:
    decision, found = row.decision, row.decision.arrivals
    drifted = [shift.kind for shift in decision.shifts if shift.drifted]
    return {
        "at": row.at,
        "cause": row.cause,
        "decision": "RUN" if decision.run else "SKIP",
        "code": decision.code,
        "new": found.n_new if found else "",
        "edited": found.n_edited if found else "",
        "needed": "" if decision.n_needed is None else decision.n_needed,
        "held_out": found.n_held_out if found else "",
        "fresh": found.n_fresh_held_out if found else "",
        "drift": ", ".join(drifted) or ("none" if decision.shifts else ""),
        "run_id": row.run_id,
    }


def tick_lines(row: TickRow | None, mark: Mark | None) -> list[str]:
    """Return what started the run and which tickets it used; nothing for a run without a tick."""
    lines = []
    if row is not None:
        lines.append(f"tick ({row.cause}): {'RUN' if row.decision.run else 'SKIP'}, {row.decision.reason}")
        lines += [
            f"  {shift.kind}: distance {shift.distance:.3f}, limit {shift.limit:g}, chance {shift.p_chance:.4f}"
            for shift in row.decision.shifts
        ]
    if mark is not None:
        lines.append(f"snapshot {mark.snapshot_id}: {mark.n_tickets} tickets up to {mark.watermark or 'no time'}")
    return lines
