"""The campaign as a table, a line of JSON, and what is needed to see a failure again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from benchmarks.torture.trial import Fault, Tried


def table(faults: Sequence[Fault], tried: Sequence[Tried], skipped: Mapping[str, str]) -> list[str]:
    """A row per fault."""
    lines = [
        "| fault | what is done | tries | lost | wrong | stuck | recovered | missed | no fault |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for fault in faults:
        if fault.name in skipped:
            lines.append(f"| {fault.name} | skipped: {skipped[fault.name]} | 0 | | | | | | |")
            continue
        mine = [one for one in tried if one.fault == fault.name]
        if mine:
            figures = totals(mine)
            cells = (fault.name, fault.told, *(str(figures[key]) for key in FIGURES))
            lines.append(f"| {' | '.join(cells)} |")
    figures = totals(tried)
    lines.append(f"| all | | {' | '.join(str(figures[key]) for key in FIGURES)} |")
    return lines


FIGURES = ("tries", "lost", "wrong", "stuck", "recovered", "missed", "no_fault")


def totals(tried: Sequence[Tried]) -> dict[str, int]:
    """How many tries lost something, left something wrong, could not be finished, recovered from a fault; in how many
    the run was over before the fault came (`missed`), and in how many there was none for this or any other reason."""
    return {
        "tries": len(tried),
        "lost": sum(bool(one.lost) for one in tried),
        "wrong": sum(bool(one.wrong) for one in tried),
        "stuck": sum(bool(one.stuck) for one in tried),
        "recovered": sum(one.is_recovered for one in tried),
        "missed": sum(one.missed for one in tried),
        "no_fault": sum(not one.fired for one in tried),
    }


def again(one: Tried, *, seed: int) -> str:
    """What went wrong in a try, and how to play it once more."""
    told = [f"FAILED {one.fault} #{one.number}: {one.told}"]
    told += [f"  lost: {each}" for each in one.lost] + [f"  wrong: {each}" for each in one.wrong]
    told += [f"  stuck: {one.stuck}"] if one.stuck else []
    told += [f"  | {line}" for line in one.said.splitlines()[-25:]]
    told.append(f"  again: SEED={seed} ONLY={json.dumps(f'{one.fault}#{one.number}')} make torture")
    return "\n".join(told)
