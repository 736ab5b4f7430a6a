"""Pair the items of files of results: what is not shown to be the same item in both is named, and nothing is left out.

Knows nothing of statistics. `flows/views/gate_check.py` makes each fault a finding with the verdict ERROR.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from schemas.counted import counted
from tasks.results.rows import ItemResult, ResultFile

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


def pair(candidate: ResultFile, other: ResultFile, *, arm: str, metrics: Sequence[str]) -> Pairing:
    """Compare the items of two files by their ids.

    Args:
        arm: What the other file is: champion, anchor or a baseline.
        metrics: Those that the file must have for each item.
    """
    ours, theirs = _by_id(candidate), _by_id(other)
    both = [item for item in ours if item in theirs]
    prompts = _compared(ours, theirs, both, "prompt")
    references = _compared(ours, theirs, both, "reference")
    faults = [
        *_fault("the files are two", f"candidate and {arm} are the same file", candidate.digest == other.digest),
        *_of_items("each item is in both files", "only the candidate has", [i for i in ours if i not in theirs]),
        *_of_items("each item is in both files", f"only the {arm} has", [i for i in theirs if i not in ours]),
        *_of_items("equal ids are equal prompts", "another prompt under the same id:", prompts[1]),
        *_of_items("equal ids are equal references", "another reference under the same id:", references[1]),
        *_of_items(
            "each item is repeated as often in both files", "another number of repeats:",
            [item for item in both if len(ours[item]) != len(theirs[item])],
        ),
        *_repeated(other, arm),
        *_valueless(other, arm, metrics),
    ]  # fmt: skip
    notes = [f"{counted(len(both), 'item')} of candidate and {arm} paired by id"]
    for name, (n_compared, _) in (("prompts", prompts), ("references", references)):
        notes[0] += f", {n_compared:,} with equal {name}" if n_compared else ""
    if not prompts[0]:
        notes.append(f"no prompts in both files: nothing shows that equal ids of candidate and {arm} are equal items")
    return Pairing(tuple(faults), tuple(notes))


def faults_of(candidate: ResultFile, metrics: Sequence[str]) -> tuple[PairFault, ...]:
    """The faults of the candidate's file alone."""
    return (*_repeated(candidate, "candidate"), *_valueless(candidate, "candidate", metrics))


def _by_id(file: ResultFile) -> Mapping[str, list[ItemResult]]:
    found: dict[str, list[ItemResult]] = {}
    for row in file.rows:
        found.setdefault(row.item_id, []).append(row)
    return found


def _compared(
    ours: Mapping[str, list[ItemResult]], theirs: Mapping[str, list[ItemResult]], both: Iterable[str], name: str
) -> tuple[int, list[str]]:
    """How many items have the attribute in both files, and those in which it differs."""
    n_compared, differing, one_sided = 0, list[str](), list[str]()
    for item in both:
        mine, other = ({getattr(row, name) for row in rows} - {None} for rows in (ours[item], theirs[item]))
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
    yield from _of_items("each item is there once", f"the {arm} has twice", twice)


def _valueless(file: ResultFile, arm: str, metrics: Sequence[str]) -> Iterator[PairFault]:
    for metric in metrics:
        if metric not in file.metrics:
            continue  # scored from answers, or missing, which the gate says
        broken = [row.item_id for row in file.rows if not math.isfinite(row.values.get(metric, math.nan))]
        yield from _of_items(f"{metric} is a number for each item", f"the {arm} has none for", broken)


def _of_items(rule: str, what: str, items: Sequence[str]) -> Iterator[PairFault]:
    if items:
        shown = ", ".join(dict.fromkeys(sorted(items)[:SHOWN]))
        more = f" and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
        yield PairFault(rule, f"{what} {counted(len(items), 'item')}: {shown}{more}", len(items))


def _fault(rule: str, reason: str, is_there: bool) -> Iterator[PairFault]:
    if is_there:
        yield PairFault(rule, reason)
