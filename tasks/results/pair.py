"""Pair the items of files of results: what is not shown to be the same item in both is named, and nothing is left out.

Knows nothing of statistics. `flows/views/gate_check.py` makes each fault a finding with the verdict ERROR.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from schemas.counted import counted
from tasks.results.rows import ItemResult, ResultFile, is_scored

SHOWN = 10
"""Ids that a fault names at most."""


@dataclass(frozen=True)
class PairFault:
    """A reason for which files cannot be compared, with the items that show it."""

    rule: str
    """What must hold."""
    reason: str
    n_items: int = 0


@dataclass(frozen=True)
class Pairing:
    """How items were matched, as sentences for people; nothing is compared if there are faults."""

    faults: tuple[PairFault, ...]
    notes: tuple[str, ...]


def pair(
    candidate: ResultFile, other: ResultFile, *, arm: str, metrics: Sequence[str], columns: Sequence[str] = ()
) -> Pairing:
    """Compare the items of two files by their ids.

    Args:
        arm: What the other file is: champion, anchor or a baseline.
        metrics: Those that are judged.
        columns: Those of slices and clusters.
    """
    ours, theirs = _by_id(candidate), _by_id(other)
    both = [item for item in ours if item in theirs]
    parts: dict[str, _Part] = {
        "prompt": lambda row: row.prompt,
        "reference": lambda row: row.reference,
        "set of assertions": lambda row: row.assertions,
    }
    parts |= {column: partial(_column, column) for column in columns}
    compared = {name: _compared(ours, theirs, both, part) for name, part in parts.items()}
    notes = [f"{counted(len(both), 'item')} of candidate and {arm} paired by id"]
    for name in ("prompt", "reference"):
        notes[0] += f", {compared[name][0]:,} with equal {name}s" if compared[name][0] else ""
    if not compared["prompt"][0]:
        notes.append(f"no prompts in both files: nothing shows that equal ids of candidate and {arm} are equal items")
    same = PairFault("the files are two", f"candidate and {arm} are the same file")
    faults = (
        *([same] if candidate.digest == other.digest else []),
        *_unpaired(ours, theirs, arm),
        *(
            fault
            for name, (_, differing) in compared.items()
            for fault in of_items(f"equal ids have an equal {name}", f"another {name} under the same id:", differing)
        ),
        *_measured_otherwise(candidate, other, arm, metrics),
        *faults_of(other, arm, metrics),
    )
    return Pairing(faults, tuple(notes))


def faults_of(file: ResultFile, arm: str, metrics: Sequence[str]) -> Iterator[PairFault]:
    """Yield the faults of one file alone."""
    yield from _repeated(file, arm)
    for metric in metrics:
        if metric in file.metrics:
            broken = [row.item_id for row in file.rows if not math.isfinite(row.values.get(metric, math.nan))]
            yield from of_items(f"{metric} is a number for each item", f"the {arm} has none for", broken)
    lacking = [row.item_id for row in file.rows if row.answer is None or row.reference is None]
    if not set(metrics) <= set(file.metrics) and len(lacking) < len(file.rows):
        what = "each item has an answer and its reference, by which it is scored"
        yield from of_items(what, f"the {arm} lacks one of", lacking)


_Part = Callable[[ItemResult], str | None]


def _column(name: str, row: ItemResult) -> str | None:
    return row.columns.get(name)


def _by_id(file: ResultFile) -> Mapping[str, list[ItemResult]]:
    found: dict[str, list[ItemResult]] = {}
    for row in file.rows:
        found.setdefault(row.item_id, []).append(row)
    return found


def _unpaired(
    ours: Mapping[str, list[ItemResult]], theirs: Mapping[str, list[ItemResult]], arm: str
) -> Iterator[PairFault]:
    rule = "each item is in both files"
    yield from of_items(rule, "only the candidate has", [item for item in ours if item not in theirs])
    yield from of_items(rule, f"only the {arm} has", [item for item in theirs if item not in ours])
    uneven = [item for item in ours if item in theirs and len(ours[item]) != len(theirs[item])]
    yield from of_items("each item is repeated as often in both files", "another number of repeats:", uneven)


def _measured_otherwise(
    candidate: ResultFile, other: ResultFile, arm: str, metrics: Sequence[str]
) -> Iterator[PairFault]:
    for metric in metrics:
        if (metric in candidate.metrics) != (metric in other.metrics) and (is_scored(candidate) or is_scored(other)):
            yield PairFault(
                f"{metric} is measured alike in both files",
                f"one of candidate and {arm} has a column of it, the other only answers, which would be scored here",
            )


def _compared(
    ours: Mapping[str, list[ItemResult]],
    theirs: Mapping[str, list[ItemResult]],
    both: Iterable[str],
    part: _Part,
) -> tuple[int, list[str]]:
    """How many items have this part in both files, and those in which it differs."""
    n_compared, differing, one_sided = 0, list[str](), list[str]()
    for item in both:
        mine, other = ({part(row) for row in rows} - {None} for rows in (ours[item], theirs[item]))
        if mine and other:
            n_compared += 1
            differing += [item] if mine != other else []
        elif mine or other:
            one_sided.append(item)
    # A file that has none at all is another matter than one from which some are missing.
    return n_compared, differing + (one_sided if n_compared else [])


def _repeated(file: ResultFile, arm: str) -> Iterator[PairFault]:
    counts = Counter((row.item_id, row.repeat) for row in file.rows)
    twice = list(dict.fromkeys(item for (item, _), n in counts.items() if n > 1))
    yield from of_items("each item is there once", f"the {arm} has twice", twice)


def of_items(rule: str, what: str, items: Sequence[str]) -> Iterator[PairFault]:
    """Yield the fault of these items, with the first of their ids; nothing without any."""
    if items:
        shown = ", ".join(dict.fromkeys(sorted(items)[:SHOWN]))
        more = f" and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
        yield PairFault(rule, f"{what} {counted(len(items), 'item')}: {shown}{more}", len(items))
