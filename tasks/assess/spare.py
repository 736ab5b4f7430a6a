"""Choose held-out items so that the budget of verdicts lasts (`gates.reuse.budget`): numbers and ids only.

The same items judge at most so many candidates. As long as the budget is far, the choice is that of the order alone, so
that answers are reused. Near its end, items that judged the most candidates give way to those that judged the fewest,
never judged ones first, and only as many as needed. Which items a candidate gets depends on how many others they have
judged, and on no answer, so that the error probability of its verdict stays.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

from schemas.gates import LEAST_ITEMS

NEAR = 0.95
"""Share of the budget that is used. The rest is for items that are replaced since some prompt cannot be made."""


def most_judged(budget: int) -> float:
    """Mean number of candidates that the items of a verdict may have judged before.

    >>> most_judged(20), most_judged(1)
    (18.05, 0.0)
    """
    return NEAR * (budget - 1)


def spare_items(ranked: Sequence[str], n_items: int, *, counts: Mapping[str, int], most: float) -> list[str]:
    """Return the first `n_items`, exchanged where they judged too many; fewer if too few others are left.

    The first `n_items` as they are if less than `LEAST_ITEMS` would be left: no verdict on those could be better than
    HOLD, either.

    >>> ids = [f"t{n}" for n in range(60)]
    >>> spared = spare_items(ids, 52, counts=dict.fromkeys(ids[:52], 3), most=2.7)
    >>> len(spared), [each for each in ids[:52] if each not in spared], spared[-6:]
    (52, ['t46', 't47', 't48', 't49', 't50', 't51'], ['t52', 't53', 't54', 't55', 't56', 't57'])

    Args:
        ranked: Ids in the order of preference.
        counts: Candidates that each item has judged; none if it is not there.
        most: Mean of the chosen items' counts, at most.
    """
    first, others = ranked[:n_items], sorted(ranked[n_items:], key=lambda name: counts.get(name, 0))
    chosen, total = set(first), sum(counts.get(name, 0) for name in first)
    # Of those that judged as many, the last go first.
    worst = sorted(range(len(first)), key=lambda place: (-counts.get(first[place], 0), -place))
    for place, new in zip(worst, others, strict=False):
        fewer = counts.get(first[place], 0) - counts.get(new, 0)
        if total <= most * len(first) or fewer <= 0:
            break
        chosen.remove(first[place])
        chosen.add(new)
        total -= fewer
    if total > most * len(first):  # of all items those that judged the fewest, as many as there may be
        fewest = sorted(ranked, key=lambda name: counts.get(name, 0))[:n_items]
        sums = accumulate(counts.get(name, 0) for name in fewest)
        chosen = {fewest[place] for place, so_far in enumerate(sums) if so_far <= most * (place + 1)}
    return [name for name in ranked if name in chosen] if len(chosen) >= min(LEAST_ITEMS, len(first)) else list(first)
