"""What a proposed gate guards besides its comparison: the reply, slices, and customers with several held-out tickets.

Numbers in, settings with their price out: no text leaves `tickets.py`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from schemas.gates import ChangeThreshold, GateRule
from schemas.tables import SliceColumn
from tasks.assess.contract import BLOCK, guard_outcome, least_p, settle
from tasks.assess.power import ASSUMED_DISCORDANCE, items_needed, smallest_difference
from tasks.assess.reply import overlap
from tasks.assess.weigh import MIN_CONTINUOUS_ITEMS
from tasks.start.held_out import SplitShares

GUARDED: tuple[SliceColumn, ...] = ("product", "category")
"""Columns that `init` guards."""
_SLICE_ITEMS = 20
"""Expected items of a slice from which on it counts: with fewer, hardly any loss is shown."""
_ALPHA = 0.05
_GAIN = 0.03
_N_RUNS = 4000
_N_REPLIES = 100
"""Tickets on which the range of chrF is measured."""
_RANGE_SHARE = 4
"""The margin is this part of the range: a candidate that answers every fourth ticket as if it were another is not met,
and 420 items hold at most one equal candidate in ten (27 intents of Bitext)."""
_LEAST_RANGE = 0.04
"""With less, chrF does not tell right replies from wrong ones."""
_EQUAL_POWER = 0.9
_MANY_ITEMS = 100
"""From this number of items on a margin of 0.1 holds at most 4 % of equal candidates (Bitext, by `decide`), and 0.15
with fewer."""
FEW_CUSTOMERS = 90
"""With fewer, the spread between customers is known so badly that one ticket of each shows more: of candidates 5 points
better `improve` passes 15 % by `cluster_by` and 29 % so with 60 customers of 5 tickets, 35 and 38 % with 80, but 48 and
45 % with 100, 85 and 61 % with 150 (discordance 0.1, correlation 0.2)."""
LEAST_CUSTOMERS = 50
"""As `gates.min_items`: one ticket per customer decides nothing with fewer."""
_SEVERAL = 1.2
"""Held-out tickets per customer from which on customers have several."""
_ALIKE = 0.2
"""Assumed correlation of two tickets of one customer."""
Counting = Literal["cluster_by", "one_per"]


@dataclass(frozen=True)
class ReplyRange:
    """chrF (0-1) of replies to other tickets against the reply of a ticket, on average."""

    right: float
    """Of tickets with the same label."""
    wrong: float
    """Of tickets with another label."""
    spread: float
    """Standard deviation of the difference of two right ones."""


@dataclass(frozen=True)
class Guards:
    """The settings, each with a note for its comment; None where there is no such guard."""

    reply: GateRule | None = None
    reply_note: str = ""
    spread: float | None = None
    """`gates.power.spread`, if the reply is judged by chrF."""
    slices: tuple[str, ...] = ()
    slice_note: str = ""
    customers: Counting | None = None
    customer_note: str = ""
    """Also where customers are too few for either."""


NO_GUARDS = Guards()


def propose_guards(
    replies: ReplyRange | None,
    parts: SplitShares,
    slice_sizes: Mapping[str, Sequence[int]],
    *,
    learned: tuple[bool, bool],
    n_tickets: int,
    n_items: int,
) -> Guards:
    """Return the guards of a proposed gate.

    Without a label the comparison itself judges the wording of replies, by chrF, which few items of a slice cannot
    bound: there is no guard of replies or slices then.

    Args:
        learned: Whether replies are, and whether a label is.
    """
    has_reply, has_label = learned
    few, _ = guard_customers(parts, n_tickets, continuous=not has_label)  # then the items are theirs already
    customers, customer_note = guard_customers(
        parts, n_tickets, continuous=not has_label, n_answered=None if few == "one_per" else n_items
    )
    guards = Guards(customers=customers, customer_note=customer_note)
    if not has_label:
        return guards
    slices, slice_note = guard_slices(slice_sizes, n_items=n_items)
    guards = replace(guards, slices=slices, slice_note=slice_note)
    if not has_reply:
        return guards
    rule, note, spread = guard_reply(replies, n_items=n_items)
    return replace(guards, reply=rule, reply_note=note, spread=spread)


def as_counted(parts: SplitShares, n_tickets: int, *, continuous: bool) -> SplitShares:
    """Return the parts with the held-out tickets that are items: one per customer where that is proposed."""
    counting, _ = guard_customers(parts, n_tickets, continuous=continuous)
    return replace(parts, held_out=parts.customers) if counting == "one_per" else parts


def reply_range(tickets: Sequence[tuple[str, str]]) -> ReplyRange | None:
    """Measure how far chrF tells right replies from wrong ones; None where it cannot be measured.

    Args:
        tickets: Label and reply of each.
    """
    by_label = defaultdict(list)
    for label, reply in tickets:
        by_label[label].append(reply)
    right, wrong = [], []
    for place in np.linspace(0, len(tickets) - 1, _N_REPLIES, dtype=int) if tickets else ():
        label, reply = tickets[place]
        same = [each for each in dict.fromkeys(by_label[label]) if each != reply]
        others = [tickets[(place + step) % len(tickets)] for step in (len(tickets) // 3, len(tickets) // 2)]
        others = [each for other, each in others if other != label and each != reply]
        if len(same) < 2 or not others:
            continue
        start = int(place) % len(same)
        right.append([overlap(same[(start + step) % len(same)], reply) for step in (0, len(same) // 2)])
        wrong += [overlap(other, reply) for other in others]
    if len(right) < _N_REPLIES // 3:
        return None
    pairs = np.array(right)
    return ReplyRange(float(pairs.mean()), float(np.mean(wrong)), float((pairs[:, 0] - pairs[:, 1]).std()))


def guard_reply(found: ReplyRange | None, *, n_items: int) -> tuple[GateRule, str, float | None]:
    """Return the rule on replies, why it is as it is, and the spread per item if it is continuous.

    From 320 items on chrF, if it tells right replies from wrong ones by enough for these items; else the share of
    answers that are anything like a reply.
    """
    from scipy.special import ndtr, ndtri

    distance = 0.0 if found is None else found.right - found.wrong
    if found is not None and distance >= _LEAST_RANGE:
        margin = round(distance / _RANGE_SHARE, 3)
        spread = round(found.spread, 3)
        needed = items_needed(margin, sd_null=spread, sd_true=spread, confidence=1 - _ALPHA, power=_EQUAL_POWER)
        if needed is not None and n_items >= max(needed, MIN_CONTINUOUS_ITEMS):
            held = ndtr(ndtri(1 - _ALPHA) - margin * n_items**0.5 / spread)
            note = (
                f"chrF of replies to other tickets is {found.right:.2f} with the same label and {found.wrong:.2f} with "
                "another, and a quarter of the difference is tolerated. Price in power: an equal candidate is held in "
                f"{100 * held:.0f} %"
            )
            return _no_worse("chrf", margin), note, spread
    margin = 0.1 if n_items >= _MANY_ITEMS else 0.15
    note = (
        "the answers that are anything like a reply (chrF of at least what 49 of 50 replies to other tickets have). "
        "Price in power: an equal candidate is held in about 4 % at most"
    )
    return _no_worse("reply", margin), note, None


def _no_worse(metric: str, margin: float) -> GateRule:
    return GateRule(metric=metric, change_threshold=ChangeThreshold(mode="no_worse", margin=margin))


def guard_slices(sizes: Mapping[str, Sequence[int]], *, n_items: int, seed: int = 0) -> tuple[tuple[str, ...], str]:
    """Return the columns to guard, and what the guard shows and costs; empty where no column has two slices to judge.

    Args:
        sizes: Column -> tickets of each of its values.
    """
    counts = {column: _items_of(sizes[column], n_items) for column in GUARDED if column in sizes}
    large = {column: [n for n in each if n >= _SLICE_ITEMS] for column, each in counts.items()}
    columns = tuple(column for column, each in large.items() if len(each) > 1)
    if not columns:
        return (), ""
    rng, differ = np.random.default_rng(seed), ASSUMED_DISCORDANCE
    outcomes = [(differ + gain) / 2 for gain in (_GAIN, -_GAIN)]
    items = np.array([n for column in columns for n in counts[column]])
    won, lost, _ = np.stack([rng.multinomial(n, [*outcomes, 1 - differ], _N_RUNS) for n in items], axis=1).T
    harm = guard_outcome(won.T, lost.T, items)
    codes = settle(harm.met, harm.p_harm, alpha=_ALPHA, p_least=least_p((won + lost).T, items))
    slices = [n for column in columns for n in large[column]]
    shown = [smallest_difference(n, discordance=differ) or 1.0 for n in (max(slices), min(slices))]
    return columns, (
        f"shows a loss of about {100 * shown[0]:.0f} points in the largest slice ({max(slices)} items), of "
        f"{100 * shown[1]:.0f} in the smallest of {len(slices)} with {_SLICE_ITEMS} or more ({min(slices)} items). "
        f"Price in power: blocks {100 * (codes == BLOCK).any(axis=-1).mean():.1f} % of the candidates that are "
        f"{100 * _GAIN:.0f} points better in every slice"
    )


def _items_of(sizes: Sequence[int], n_items: int) -> list[int]:
    """The expected items of each slice that has any."""
    expected = (round(n_items * size / sum(sizes)) for size in sizes)
    return [n for n in expected if n]


def guard_customers(
    parts: SplitShares, n_tickets: int, *, continuous: bool, n_answered: int | None = None
) -> tuple[Counting | None, str]:
    """Return how customers with several held-out tickets are counted, and what it costs.

    Args:
        continuous: The gate's metric needs 320 items, more than one ticket of each of few customers would leave.
        n_answered: Held-out tickets that an arm answers; all of them if not given.
    """
    n_items, n_customers = round(parts.held_out * n_tickets), round(parts.customers * n_tickets)
    n_answered = n_items if n_answered is None else n_answered
    if n_items < _SEVERAL * n_customers:
        return None, ""
    come = f"about {n_items:,} held-out tickets come from {n_customers:,} customers"
    if n_customers < LEAST_CUSTOMERS:
        return None, (
            f"{come}, too few to count customers instead of tickets: equal candidates are promoted more often than the "
            "confidence says"
        )
    come += ", whose answers are right or wrong together"
    if n_answered <= n_customers and n_items > n_customers:
        return "one_per", f"{come}. Price in power: none, since {n_answered:,} of them are answered"
    if n_customers < FEW_CUSTOMERS and not continuous:
        return "one_per", (
            f"{come}; with so few `gates.cluster_by` would hold more. Price in power: {n_customers:,} items instead of "
            f"{n_items:,}"
        )
    effective = n_answered / (1 + (parts.crowd - 1) * n_answered / n_items * _ALIKE)
    return "cluster_by", (
        f"{come}. Price in power: {n_answered:,} of them prove as much as {effective:,.0f} single ones if two tickets "
        f"of a customer correlate by {_ALIKE:g}"
    )
