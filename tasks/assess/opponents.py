"""Whom a rule compares the candidate with: the champion, the anchor, or the best prompting arm.

Knows nothing of statistics; `tasks/assess/gate.py` asks per rule and turns every refusal into ERROR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import GateError
from schemas.gates import GatesSpec
from tasks.assess.evidence import ArmScores, best_prompting_arm


@dataclass(frozen=True)
class Arms:
    """Every scored arm of one decision."""

    candidate: ArmScores
    champion: ArmScores | None
    champion_version: str | None
    anchor: ArmScores | None
    anchor_version: str | None
    baselines: Mapping[str, ArmScores]


@dataclass(frozen=True)
class Opponent:
    """The other side of a comparison."""

    scores: ArmScores
    name: str
    """In rule texts and reasons."""
    baseline: str | None = None
    """The arm, where the opponent is a baseline."""
    replaced: bool = False
    """Stands in for a champion that does not exist."""


def find_champion(arms: Arms, gates: GatesSpec, *, metric: str, items: frozenset[str] | None) -> Opponent:
    """The champion, or with `if_missing: baseline` the best prompting arm in its place.

    Raises:
        GateError: TG0605, there is none and none may stand in, or only half of it arrived.
    """
    if (arms.champion is None) != (arms.champion_version is None):
        missing = "scores" if arms.champion is None else "version"
        raise GateError(f"there is a champion, but its {missing} did not arrive at the gate", code="TG0605")
    if arms.champion is not None:
        return Opponent(arms.champion, f"champion (version {arms.champion_version})")
    if gates.if_missing == "error":
        raise GateError("there is no champion, and gates.if_missing is error", code="TG0605")
    return find_baseline(arms, metric=metric, items=items, replaced=True)


def find_baseline(arms: Arms, *, metric: str, items: frozenset[str] | None, replaced: bool = False) -> Opponent:
    """The prompting arm with the best mean on the items.

    Raises:
        GateError: TG0605, no prompting arm was scored.
    """
    best = best_prompting_arm(arms.baselines, arms.candidate, metric=metric, items=items)
    return Opponent(best, f"best_baseline ({best.arm})", best.arm, replaced)


def find_anchor(arms: Arms) -> Opponent | None:
    """The anchor; null where it is the champion itself, whom the rule compares with anyway.

    Raises:
        GateError: TG0605, its scores or its version did not arrive.
    """
    if arms.champion is None or (arms.anchor_version is not None and arms.anchor_version == arms.champion_version):
        return None
    if arms.anchor is None or arms.anchor_version is None:
        missing = "version" if arms.anchor_version is None else "scores"
        raise GateError(f"gates.anchor asks for an anchor, and its {missing} did not arrive at the gate", code="TG0605")
    return Opponent(arms.anchor, f"anchor (version {arms.anchor_version})")
