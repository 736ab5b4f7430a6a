"""What ledger and store still know of the champion's earlier verdicts: its scores, and the tickets of its own.

The gate compares them with its scores now: if the champion falls on fresh items, tickets or labels have changed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from flows.graph.store import Store
from flows.ledger.ledger import Ledger
from flows.ledger.rows import RunRow
from schemas.artifacts import ChampionRef, GateDecision, Scores, Splits

NEWEST = 4
"""Verdicts that are shown besides the champion's own."""


@dataclass(frozen=True)
class PastVerdict:
    """A verdict on the champion: its own, or a later one that compared with it."""

    items: str
    """Digest of the held-out set."""
    candidate: str
    """Digest of the trained model that it judged."""
    scores: Scores | None
    """The champion's; None if they are no longer in the store."""
    is_own: bool = False


@dataclass(frozen=True)
class ChampionPast:
    """The champion's verdicts, its own first, then by age; empty without a champion."""

    verdicts: tuple[PastVerdict, ...] = ()
    splits: Splits | None = None
    """The tickets of its own verdict; None if they are no longer in the store."""

    def before(self, items: str, candidate: str) -> "ChampionPast":
        """Return what there was before this candidate was first judged on these items, the newest of it.

        A repeated verdict must not depend on its own first time.
        """
        mine = [(each.items, each.candidate) for each in self.verdicts]
        earlier = self.verdicts[: mine.index((items, candidate))] if (items, candidate) in mine else self.verdicts
        return ChampionPast((*earlier[:1], *earlier[1:][-NEWEST:]), self.splits)


NO_PAST = ChampionPast()


def past_of(champion: ChampionRef | None, ledger: Ledger, store: Store, *, before: str | None = None) -> ChampionPast:
    """Read it; change nothing.

    Args:
        before: Only runs that ended before this moment, UTC, ISO 8601.
    """
    if champion is None:
        return NO_PAST
    own = ledger.keys_of(champion.run_id)
    rows = (
        row
        for row in ledger.runs_with_step("gate", model=champion.name)
        if row.verdict is not None and row.as_of is None
        and row.run_id != champion.run_id and (before is None or (row.ended_at or "") < before)
    )  # fmt: skip
    first = tuple(_verdict(ledger, store, champion.run_id, arm="tuned", is_own=True))
    later = tuple(islice(_compared(champion, ledger, store, rows), 2 * NEWEST))
    return ChampionPast((*first, *reversed(later)), store.whole("decontaminate", own.get("decontaminate"), Splits))


def _compared(champion: ChampionRef, ledger: Ledger, store: Store, rows: Iterable[RunRow]) -> Iterator[PastVerdict]:
    """Yield the verdicts that compared with the champion, newest first."""
    for row in rows:
        decision = store.whole("gate", ledger.keys_of(row.run_id).get("gate"), GateDecision)
        if decision is not None and decision.champion_version == champion.version:
            yield from _verdict(ledger, store, row.run_id, arm="champion")


def _verdict(ledger: Ledger, store: Store, run_id: str, *, arm: str, is_own: bool = False) -> Iterator[PastVerdict]:
    steps = {step.step: step for step in ledger.steps(run_id)}
    if "items" not in steps or "train" not in steps:
        return
    for folder in ("labelled", "routed", "scores"):
        if (step := f"{folder}_{arm}") in steps:
            scores = store.whole(folder, steps[step].key, Scores)
            yield PastVerdict(steps["items"].digest, steps["train"].digest, scores, is_own)
            return
