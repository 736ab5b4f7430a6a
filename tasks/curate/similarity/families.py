"""Decide which texts stay: equal ones together, similar ones greedily in a declared order.

It reads shingle sets (`tasks/curate/similarity/shingles.py`) and an order of preference.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.curate.similarity.join import CrowdedFamilyError, JoinLimits, choose_prefixes, connect_components, walk
from tasks.curate.similarity.kernels.comparing import ADD_IF_ALONE, LOOK
from tasks.curate.similarity.kernels.prefixes import group_equal
from tasks.curate.similarity.shingles import ShingleSets, power_of_two


@dataclass(frozen=True)
class Decisions:
    """Arrays with one value per text."""

    kept: Any
    """int64: the text that is kept instead; its own number if it stays."""
    score: Any
    """float64: J of the two; 1.0 for equal texts and those that stay."""
    exact: Any
    """bool: it stays, or an equal text stays instead."""
    empty: Any
    """bool: it has no word."""
    component: Any
    """int64: the preferred text of its connected component."""
    n_comparisons: int


def decide(
    sets: ShingleSets, *, order: Any, near: bool, threshold: float, max_comparisons: int, where: str
) -> Decisions:
    """Visit the texts in `order`: one is removed if an equal or similar one stays, else it stays.

    Of equal texts the first in the order represents all. Of similar ones that stay, a text names the most similar, then
    the first in the order. Texts are compared only with those that stay, so thousands of copies cost one comparison
    each. A text without a word stays and represents no other.

    Args:
        order: int64, all numbers of texts, preferred first.
        near: Also compare texts that are not equal.

    Raises:
        CrowdedFamilyError: more than `max_comparisons` were needed; its members are numbers of texts.
    """
    n = len(sets)
    firsts = np.empty(n, np.int64)
    group_equal(sets.keys, order, firsts, np.full(power_of_two(max(64, 2 * n)), -1, np.int64))
    distinct = order[firsts[order] == order]
    number = np.empty(n, np.int64)
    number[distinct] = np.arange(len(distinct))
    number = number[firsts]  # of each text's form among the distinct ones, which are numbered by preference
    alone = np.arange(len(distinct))
    kept, score, component, n_comparisons = alone, np.ones(len(distinct)), alone, 0
    if near:
        try:
            kept, score, component, n_comparisons = _decide_distinct(
                sets.take(distinct), threshold=threshold, max_comparisons=max_comparisons, where=where
            )
        except CrowdedFamilyError as error:
            members = np.flatnonzero(np.isin(number, error.members)).tolist()
            raise CrowdedFamilyError(members=members, max_comparisons=max_comparisons, where=where) from None
    return Decisions(
        kept=distinct[kept][number],
        score=score[number],
        exact=(kept == alone)[number],
        empty=(sets.keys == 0).all(axis=1),
        component=distinct[component][number],
        n_comparisons=n_comparisons,
    )


def _decide_distinct(
    sets: ShingleSets, *, threshold: float, max_comparisons: int, where: str
) -> tuple[Any, Any, Any, int]:
    """Return the kept text, J and smallest number of the component of each, and the number of comparisons."""
    prefixes = choose_prefixes(sets, threshold=threshold)
    component, n_connected = connect_components(
        sets, prefixes, threshold=threshold, max_comparisons=max_comparisons, where=where
    )
    # Similar texts are in one component: a text that is alone in its component needs no comparison.
    in_company = np.flatnonzero(np.bincount(component, minlength=len(sets))[component] > 1)
    actions = np.full(len(sets), LOOK | ADD_IF_ALONE, np.uint8)
    limits = JoinLimits(threshold, max_comparisons - n_connected, where)
    walked = walk(sets, prefixes, order=in_company, actions=actions, limits=limits)
    stays = walked.best == -1
    kept = np.where(stays, np.arange(len(sets)), walked.best)
    return kept, np.where(stays, 1.0, walked.score), component, n_connected + walked.n_comparisons
