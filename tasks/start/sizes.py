"""How many tickets are trained on and held out, and how wide a gate's margin must be: from the number of rows.

The arithmetic is that of `tunegate plan` (`tasks/assess/power.py`). It knows nothing of files. Called by
`tasks/start/propose.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from schemas.errors import ConfigError
from schemas.gates import ChangeThreshold, GateRule, GatesSpec, PowerSpec
from schemas.metrics import traits_by_name
from tasks.assess.plan_gate import ASSUMED_DISCORDANCE, RulePower, plan_gate
from tasks.assess.power import items_needed, margin_items_needed, smallest_margin
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS

MARGIN = 0.05
"""Loss that is tolerated where there are items enough to see it."""
MIN_TICKETS = 20
"""Below this no split leaves anything on both sides."""
MIN_ITEMS = 50
"""As `gates.min_items`: with fewer no verdict is better than HOLD."""
MAX_EXAMPLES = 1000
_FRACTIONS = (0.2, 0.25, 0.3)
_VALIDATION = 0.05
_CONFIDENCE = 0.95
_CHARS_PER_TOKEN = 3.0
"""Of the embedded model on English; few texts have less, so that few examples are too long."""


@dataclass(frozen=True)
class Sizes:
    """The numbers of a proposed pipeline."""

    n_tickets: int
    """Tickets of use that the file is taken to hold."""
    test_fraction: float
    validation_fraction: float
    n_held_out: int
    max_items: int
    max_examples: int
    max_length: int
    max_new_tokens: int
    margin: float
    n_least: int
    """Held-out tickets below which no verdict is better than HOLD."""

    @property
    def gate_works(self) -> bool:
        """Are there held-out tickets enough for a verdict better than HOLD?"""
        return self.n_held_out >= self.n_least

    @property
    def told(self) -> str:
        """What is to be said of the gate."""
        if self.gate_works:
            return f"{self.n_held_out:,} held-out tickets show a loss of {self.margin:g}"
        wanted = math.ceil(self.n_least / _FRACTIONS[-1])
        return (
            f"too little data for a gate: about {self.n_held_out:,} held-out tickets, and below {self.n_least:,} every "
            f"verdict is HOLD; about {wanted:,} tickets of use are needed, there are {self.n_tickets:,}"
        )


def choose_sizes(n_tickets: int, *, continuous: bool, example_chars: int, reply_chars: int, where: str) -> Sizes:
    """Sizes for so many tickets.

    The held-out share grows from a fifth to three tenths while it is too small for the usual margin; where that is
    not enough, the margin grows to what the items can show.

    Args:
        n_tickets: Tickets of use.
        continuous: The metric has any value per item, not 0 or 1.
        example_chars: Characters of nearly the longest example.
        reply_chars: Of nearly the longest answer.
        where: The file, for the message.

    Raises:
        ConfigError: TG0168, fewer than `MIN_TICKETS`.
    """
    if n_tickets < MIN_TICKETS:
        raise ConfigError(
            f"{n_tickets} tickets of use are too few; {MIN_TICKETS} are the least",
            code="TG0168",
            where=where,
            hint="a ticket is of use when it has a text, an answer (or a label) and no twin; give more of them",
        )
    needed = _needed(continuous)
    fraction = next((share for share in _FRACTIONS if share * n_tickets >= needed), _FRACTIONS[-1])
    held_out = max(1, int(fraction * n_tickets))
    n_items = min(held_out, needed)
    n_train = max(1, n_tickets - held_out - int(_VALIDATION * n_tickets))
    return Sizes(
        n_tickets=n_tickets,
        test_fraction=fraction,
        validation_fraction=_VALIDATION,
        n_held_out=held_out,
        max_items=n_items,
        max_examples=min(n_train, MAX_EXAMPLES),
        max_length=_rounded(example_chars / _CHARS_PER_TOKEN + 96, step=64, low=256, high=2048),
        max_new_tokens=_rounded(reply_chars / _CHARS_PER_TOKEN + 16, step=16, low=16, high=256),
        margin=_margin(n_items, continuous),
        n_least=MIN_CONTINUOUS_ITEMS if continuous else MIN_ITEMS,
    )


def rules_for(metric: str, margin: float, *, floors: tuple[str, ...]) -> tuple[GateRule, ...]:
    """No worse than the champion, better than the best prompt, and floors for 0-or-1 metrics."""
    return (
        GateRule(metric=metric, change_threshold=ChangeThreshold(against="champion", mode="refresh", margin=margin)),
        GateRule(metric=metric, change_threshold=ChangeThreshold(against="best_baseline", mode="improve")),
        *(GateRule(metric=floor, value_threshold=0.9) for floor in floors),
    )


def power_of(rules: tuple[GateRule, ...], n_items: int) -> tuple[RulePower, ...]:
    """What each rule needs, as `tunegate plan` says it."""
    gates = GatesSpec(rules=rules, confidence=_CONFIDENCE, min_items=MIN_ITEMS)
    return plan_gate(gates, traits=traits_by_name(), n_items=n_items, seen={})


def _needed(continuous: bool) -> int:
    if not continuous:
        return margin_items_needed(MARGIN, discordance=ASSUMED_DISCORDANCE, confidence=_CONFIDENCE) or MIN_ITEMS
    spread = PowerSpec().spread
    found = items_needed(MARGIN, sd_null=spread, sd_true=spread, confidence=_CONFIDENCE) or 0
    return max(MIN_CONTINUOUS_ITEMS, found)


def _margin(n_items: int, continuous: bool) -> float:
    """The usual margin, or the smallest that the items show, in whole hundredths."""
    if continuous:
        spread = PowerSpec().spread
        sizes = (step / 100 for step in range(int(MARGIN * 100), 101))
        shown = next(
            (
                size
                for size in sizes
                if (items_needed(size, sd_null=spread, sd_true=spread, confidence=_CONFIDENCE) or 0) <= n_items
            ),
            1.0,
        )
        return max(MARGIN, shown)
    found = smallest_margin(n_items, discordance=ASSUMED_DISCORDANCE, confidence=_CONFIDENCE)
    return max(MARGIN, math.ceil(100 * found) / 100) if found is not None else 1.0


def _rounded(value: float, *, step: int, low: int, high: int) -> int:
    return min(high, max(low, step * math.ceil(value / step)))
