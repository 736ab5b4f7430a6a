"""The scenes: how each candidate is spoilt and what the gate must say, declared before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.verdicts import Part, Verdict


@dataclass(frozen=True)
class Scene:
    """One candidate against the champion."""

    name: str
    """Of its pipeline, without the world."""
    told: str
    """What was done to it."""
    verdict: Verdict
    part: Part
    """The part of the gate that must say so."""
    words: str
    """What its rule and reason must hold."""
    tickets: str = "clean"
    """File of tickets: `clean`, or with something planted."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Of the pipeline, beside those that the world makes of every candidate."""


CHAMPION = Scene(
    "champion", "the first model; must beat the best prompting arm", "PROMOTE", "primary", "at least", "first"
)

_CHAMPION_RULE = {"metric": "exact", "change_threshold": {"against": "champion", "mode": "improve"}}
_REFRESH_RULE = {"metric": "exact", "change_threshold": {"against": "champion", "mode": "refresh", "margin": 0.05}}
_UNGUARDED = {
    "decontaminate": {"near_threshold": 1.0, "long_threshold": 1.0, "short_threshold": 1.0},
}
"""Decontamination declared away: what is left is the gate's own check."""

SAME = (
    Scene(
        "same-improve", "the champion's own twin, `improve`", "HOLD", "primary", "equal on every item", "first",
        {"gates": {"rules": [_CHAMPION_RULE]}},
    ),
    Scene(
        "same-refresh", "the champion's own twin, `refresh`", "HOLD", "primary", "equal on every item", "first",
        {"gates": {"rules": [_REFRESH_RULE]}},
    ),
)  # fmt: skip
PLANTED = (
    Scene("swapped", "labels swapped in all trained tickets", "BLOCK", "primary", "worse by at least", "swapped"),
    Scene("slice", "more data, and the tickets of one slice spoilt", "BLOCK", "slices",
          "worse by at least", "slice"),
    Scene("destroyed", "a huge learning rate", "BLOCK", "forgetting", "worse by at least"),
    Scene("leaked", "held-out tickets among the trained ones", "ERROR", "contamination", "trained tickets", "leaked",
          {"curate": _UNGUARDED}),
    Scene("memorised", "made-up secrets, each told a dozen times", "BLOCK", "safety", "are exposed by", "clean",
          {"train": {"canaries": {"n": 4, "repeats": 12}}, "gates": {"canaries": {}}}),
)  # fmt: skip
TWICE = Scene("twice", "twice the champion's examples", "PROMOTE", "primary", "at least")
SCENES = (CHAMPION, *SAME, *PLANTED)
SEEDS = (11, 12, 13, 14, 15)
"""Predeclared, for the neutral retrain and for twice the data; all are run, all are told."""
